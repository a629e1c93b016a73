"""A file of the user's own, copied from a test's `EXAMPLE`, and its `RECIPE` with that file's name in place of FILE."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(request.module.EXAMPLE, tmp_path / "mine.py"))


@pytest.fixture
def recipe(request: pytest.FixtureRequest, tmp_path: Path, file: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(request.module.RECIPE.replace("FILE", str(file)))
    return path
