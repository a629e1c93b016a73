"""`pasture doctor`: what is installed, which device, which SQLite."""

import importlib.metadata
import os
import platform
import re
import shutil
import sqlite3
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pasture
from pasture import flow

PURPOSES = {
    "train": "training, and models that answer or score here",
    "anthropic": "judges of Anthropic's",
    "vllm": "judges on vLLM in this process; Linux",
    "tables": "Parquet files",
    "people": "campaigns of real people",
    "postgres": "a store of answers in PostgreSQL",
    "ray": "steps on a cluster",
    "tensorboard": "--track tensorboard",
    "trackio": "--track trackio",
    "wandb": "--track wandb",
    "dev": "tests and checks of Pasture itself",
}
"""What each extra is for, those first that most want."""

_MOST_VERSIONS = 7
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
WAL_SAFE_SQLITE = (3, 51, 3)


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("doctor", epilog="Example: pasture doctor")(doctor)


def doctor() -> None:
    """Say what is installed, what it runs on, and what is missing for what."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, finding in [*_machine(), *_packages(), *_keys()]:
        table.add_row(name, Text(finding))
    Console().print(table)


def _machine() -> list[tuple[str, str]]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    journal = "WAL" if sqlite3.sqlite_version_info >= WAL_SAFE_SQLITE else "TRUNCATE, full sync"
    return [
        ("pasture", pasture.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("disk here", f"{free:.0f} GiB free"),
        ("sqlite", f"{sqlite3.sqlite_version} (store journal: {journal})"),
        *flow.describe_device().items(),
    ]


def packages_of(extra: str) -> list[str]:
    """The packages that `pip install 'pasture[EXTRA]'` brings, as this installation says."""
    lines = [
        line
        for line in importlib.metadata.requires("pasture") or ()
        if re.search(rf"""extra == ['"]{extra}['"]""", line)
    ]
    return [re.split(r"[\[><=!~; ]", line)[0] for line in lines]


def _packages() -> list[tuple[str, str]]:
    """Each extra, what it is for, and what of it is here."""
    rows = []
    for name, purpose in PURPOSES.items():
        versions = {package: _version(package) for package in packages_of(name)}
        missing = [package for package, version in versions.items() if version is None]
        if missing:
            found = f"missing {', '.join(missing)}; pip install 'pasture[{name}]'"
        elif len(versions) > _MOST_VERSIONS:
            found = f"all {len(versions)} packages"
        else:
            found = ", ".join(f"{package} {version}" for package, version in versions.items())
        rows.append((f"extra {name}", f"for {purpose}: {found}"))
    return rows


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _keys() -> list[tuple[str, str]]:
    return [
        (name, "set" if os.environ.get(name) else "not set (needed only for judges of that service)") for name in KEYS
    ]
