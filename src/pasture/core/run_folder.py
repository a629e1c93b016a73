"""A folder that is a run: finished steps stay finished, half a step is never taken for a whole one.

Every step owns one folder. It is built under a name that ends in `.partial` and appears under its real name in one
rename, with `step.json` inside; so a kill at any moment leaves each step either finished or to be continued. A result
that is replaced leaves by a rename too, and is deleted where nobody looks for it.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import tomli_w

from pasture.core.errors import RunFolderError
from pasture.core.files import fingerprint, flush_to_disk, remove_drafts, unwritable, weights_fingerprint, write_text
from pasture.core.looks import note_look, summarized

RECIPE_FILE = "recipe.toml"
MANIFEST_FILE = "manifest.json"
STEP_FILE = "step.json"
KEY_FILE = ".key"
DISCARDED = ".discarded"
WEIGHTS_SUFFIX = ".safetensors"
_LOCKS = ".locks"
_LOCK_LETTERS = 16


@dataclass(frozen=True)
class FinishedStep:
    """What is known of a step that ran to its end."""

    key: str
    """Hash of all that the step's result depends on."""
    files: Mapping[str, str]
    """Fingerprint by path, relative to the step's folder."""
    seconds: float
    cost_usd: float | None
    """None where a price was unknown."""
    details: Mapping[str, object]


class RunFolder:
    """The folder of one recipe's run, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out while the block runs.

        Raises:
            RunFolderError: if another process holds the folder, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise unwritable(self.path, error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderError(
                    f"{self.path} is in use by another pasture process. Wait for it, or choose another folder."
                ) from error
            except OSError as error:
                raise unwritable(self.path / ".lock", error) from error
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what a killed process was about to remove, or had half written beside the steps."""
        try:
            remove_drafts(self.path)
            for discarded in self.path.glob(f"{DISCARDED}*"):
                shutil.rmtree(discarded)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def claim(self, recipe: Mapping[str, object], *, update: bool = False, free: Sequence[str] = ()) -> None:
        """Write down the resolved recipe, or check that it is the one this folder was begun with.

        With `update`, a changed recipe takes the old one's place; steps that it does not touch stay finished. So does
        one that differs in keys of `free` alone, on which no step depends; "pools.*.store" is that key of any pool.

        Raises:
            RunFolderError: naming the keys that differ.
        """
        target = self.path / RECIPE_FILE
        text = tomli_w.dumps(recipe)
        if target.exists():
            changed = differing_keys(_read_toml(target), tomllib.loads(text))
            if not changed:
                return
            if not update and not all(is_free(key, free) for key in changed):
                raise RunFolderError(
                    f"{self.path} was begun with another recipe; different keys: {', '.join(changed)}. "
                    "Choose another folder with --out, or pass --update to redo the steps that these keys touch."
                )
        write_text(target, text)

    @contextlib.contextmanager
    def step_held(self, key: str) -> Iterator[IO[str]]:
        """Let no other process work at the step with this key while the block runs; wait for one that does.

        What comes back is the lock: whoever inherits the open file holds it too.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        path = self.path / _LOCKS / key[:_LOCK_LETTERS]
        try:
            path.parent.mkdir(exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise unwritable(path, error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise unwritable(path, error) from error
            yield lock

    def show(self, views: Mapping[str, str], keys: Mapping[str, str]) -> None:
        """Make finished steps (values) visible at other places in the folder (keys), as links.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        for place, name in views.items():
            link, target = self.path / place, self.step_path(name)
            if not (target / STEP_FILE).exists() or json.loads((target / STEP_FILE).read_bytes())["key"] != keys[name]:
                continue
            relative = os.path.relpath(target, link.parent)
            try:
                if link.is_symlink() and str(link.readlink()) == relative:
                    continue
                link.parent.mkdir(parents=True, exist_ok=True)
                draft = link.with_name(f".{link.name}.link")
                draft.unlink(missing_ok=True)
                draft.symlink_to(relative, target_is_directory=True)
                draft.replace(link)
            except OSError as error:
                raise unwritable(link, error) from error

    def step_path(self, name: str) -> Path:
        """Where the finished step's files lie."""
        return self.path / name

    def finished(self, name: str) -> FinishedStep | None:
        """The step as it was finished last, whatever its key; None where it has not been.

        Raises:
            RunFolderError: if its record is damaged, or one of its files is missing or was changed.
        """
        record = self.step_path(name) / STEP_FILE
        if not record.exists():
            return None
        try:
            row = json.loads(record.read_text(encoding="utf-8"))
            step = FinishedStep(row["key"], dict(row["files"]), row["seconds"], row["cost_usd"], dict(row["details"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{record} is damaged ({error!r}). Remove {record.parent} to redo the step."
            ) from error
        for file, digest in step.files.items():
            path = self.step_path(name) / file
            if not path.is_file() or not _holds(path, digest):
                raise RunFolderError(
                    f"{path} is missing or was changed after its step finished. "
                    f"Put it back, or remove {record.parent} to redo the step."
                )
        return step

    def is_finished(self, name: str, key: str) -> bool:
        """Whether the step was finished with this key and its files are as they were."""
        step = self.finished(name)
        return step is not None and step.key == key

    def workspace(self, name: str, key: str) -> Path:
        """A folder to build the step in; what an interrupted try with the same key left is still there.

        Whole files, that is: half-written drafts of `atomic_file` are gone.

        Raises:
            RunFolderError: if it cannot be written, or where the step would go lies what no step made.
        """
        partial, target = self._partial(name), self.step_path(name)
        if target.exists() and not (target / STEP_FILE).exists():
            raise RunFolderError(
                f"{target} is in the way: it holds no {STEP_FILE}, so no finished step made it. "
                "Move it elsewhere, or choose another folder with --out."
            )
        try:
            if partial.exists() and _read_key(partial) != key:
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
                remove_drafts(folder)
            write_text(partial / KEY_FILE, key)
        except OSError as error:
            raise unwritable(partial, error) from error
        return partial

    def publish(self, name: str, *, seconds: float, cost_usd: float | None, details: Mapping[str, object]) -> None:
        """Turn the workspace into the finished step, in one rename; an older result makes room.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        partial, target = self._partial(name), self.step_path(name)
        key = _read_key(partial)
        try:
            files = {}
            for path in sorted(partial.rglob("*")):
                flush_to_disk(path)
                if path.is_file() and path not in (partial / KEY_FILE, partial / STEP_FILE):
                    files[path.relative_to(partial).as_posix()] = _fingerprint(path)
            row = {"key": key, "files": files, "seconds": seconds, "cost_usd": cost_usd, "details": dict(details)}
            write_text(partial / STEP_FILE, json.dumps(row, indent=1, sort_keys=True) + "\n")
            self._discard(target)
            partial.replace(target)
            flush_to_disk(target.parent)
        except OSError as error:
            raise unwritable(target, error) from error

    def look(self, name: str, key: str) -> None:
        """Note for good that the step judges a system on the evaluation set.

        Raises:
            RunFolderError: if the folder cannot be written.
        """
        try:
            note_look(self.path, name, key)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def write_manifest(self, facts: Mapping[str, object], steps: Mapping[str, str]) -> None:
        """Gather what is known of the finished `steps` (name to key) into the manifest, beside `facts` of the run."""
        rows = {}
        for name, key in steps.items():
            step = self.finished(name)
            if step is not None and step.key == key:
                rows[name] = {
                    "key": step.key,
                    "seconds": step.seconds,
                    "cost_usd": step.cost_usd,
                    "details": dict(step.details),
                    "files": dict(step.files),
                }
        manifest = {**facts, "evaluation_set": summarized(self.path, steps), "steps": rows}
        write_text(self.path / MANIFEST_FILE, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def _discard(self, target: Path) -> None:
        """Take an old result away whole: a kill amid deleting it in place would leave half of it under its name."""
        if not target.exists():
            return
        own = self.path / f"{DISCARDED}-{secrets.token_hex(4)}"  # another process may be taking one away, too
        target.replace(own)
        shutil.rmtree(own)

    def _partial(self, name: str) -> Path:
        return self.path / f"{name}.partial"


def _fingerprint(path: Path) -> str:
    return weights_fingerprint(path) if path.suffix == WEIGHTS_SUFFIX else fingerprint(path)


def _holds(path: Path, digest: str) -> bool:
    """Whether a file holds what its fingerprint says; steps of earlier versions have that of weights for any file."""
    return digest == weights_fingerprint(path) or (path.suffix != WEIGHTS_SUFFIX and digest == fingerprint(path))


def _read_key(partial: Path) -> str:
    key = partial / KEY_FILE
    return key.read_text(encoding="utf-8") if key.exists() else ""


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}). Choose another folder with --out.") from error


def is_free(key: str, free: Sequence[str]) -> bool:
    """Whether a dotted key, or a table that holds it, is one of `free`, in which a star is any one name."""
    parts = key.split(".")
    return any(
        len(parts) >= len(pattern) and all(want in ("*", part) for want, part in zip(pattern, parts, strict=False))
        for pattern in (one.split(".") for one in free)
    )


def differing_keys(old: Mapping[str, object], new: Mapping[str, object], prefix: str = "") -> list[str]:
    """Dotted names of the keys whose values differ between two nested tables, sorted."""
    changed = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += differing_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}")
    return changed
