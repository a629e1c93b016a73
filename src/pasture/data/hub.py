"""Data files by name: on this machine, or in a data set of the Hugging Face hub.

Of the hub only plain files are taken (JSON, JSONL, CSV, Parquet), never a loading script.
"""

import fnmatch
import hashlib
import importlib
import re
from pathlib import Path
from types import ModuleType

import httpx2

from pasture.core.errors import DataError, DependencyError
from pasture.core.files import fingerprint
from pasture.core.tables import SUFFIXES

HUB = "hub:"
"""What the name of files on the hub begins with."""

_REFERENCE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<pattern>[^@]+))?(?:@(?P<revision>\S+))?")


def data_files(name: str) -> list[Path]:
    """The local paths of the files that `name` stands for, in the order of their names.

    A path stands for itself; of a folder, every data file in it is meant. `hub:ORG/NAME/FILES@REVISION` stands for the
    data files of a data set on the hub: FILES may hold `*` and may be left out for all of them, REVISION may be left
    out for the newest, and a commit's hash there fixes the bytes. What was fetched before is not fetched again.

    Raises:
        DataError: if there are none, or they cannot be fetched.
        DependencyError: for the hub where huggingface_hub is not installed.
    """
    if name.startswith(HUB):
        return _fetched(name)
    path = Path(name)
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: no such file. Check the path; a data set of the hub begins with {HUB!r}.")
        return [path]
    found = sorted(one for one in path.iterdir() if is_data_file(one.name))
    if not found:
        raise DataError(f"{path}: the folder holds no data file ({', '.join(SUFFIXES)}).")
    return found


def fingerprint_of(name: str) -> str:
    """What tells the data that `name` stands for from other data: the files' content, or the name on the hub.

    Nothing is fetched: name a revision on the hub, or another content under the same name goes unnoticed.

    Raises:
        DataError: if there are no such files.
    """
    if name.startswith(HUB):
        return name
    rows = [f"{path.name} {fingerprint(path)}" for path in data_files(name)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def is_data_file(name: str) -> bool:
    """Whether a file of this name can be read as rows."""
    return Path(name.removesuffix(".gz")).suffix.lower() in SUFFIXES


def _fetched(name: str) -> list[Path]:
    parts = _REFERENCE.fullmatch(name.removeprefix(HUB))
    if parts is None:
        raise DataError(f"{name!r}: expected {HUB}ORG/NAME, with /FILES and @REVISION after it where wanted.")
    repository, revision = parts["repository"], parts["revision"]
    pattern = parts["pattern"] or "*"
    hub = _huggingface_hub(name)
    try:
        there = hub.list_repo_files(repository, repo_type="dataset", revision=revision)
        wanted = sorted(file for file in there if is_data_file(file) and fnmatch.fnmatchcase(file, pattern))
        if not wanted:
            held = ", ".join(sorted(filter(is_data_file, there))[:5]) or "none"
            raise DataError(f"{name}: no data file matches {pattern!r}. Data files there: {held}.")
        return [Path(hub.hf_hub_download(repository, file, repo_type="dataset", revision=revision)) for file in wanted]
    except DataError:
        raise
    except (OSError, ValueError, httpx2.HTTPError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name}: cannot be fetched from the hub ({first_line}). Check the name and the network, or name a local "
            "copy of the file."
        ) from error


def _huggingface_hub(name: str) -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DependencyError(
            f"{name}: the hub needs huggingface_hub. Install it with: pip install 'pasture[train]', or name a file."
        ) from error
