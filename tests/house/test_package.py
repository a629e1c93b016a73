"""What is delivered: the wheel holds all of the package, the documents name all of the house."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.house import PACKAGE, PYPROJECT, REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; hatchling comes with the extra [dev], so that nothing is fetched."""
    target = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        str(REPOSITORY),
        "--no-deps",
        "--wheel-dir",
        str(target),
    ]
    done = subprocess.run([*command, "--no-build-isolation", "--no-index"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = target.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    # What git tracks or would track: caches and drafts of other programs are no part of the package.
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/pasture"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of the package's files")
    expected = {line.removeprefix("src/") for line in done.stdout.splitlines() if (REPOSITORY / line).exists()}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in expected if not name.endswith(".py")} <= held
    assert expected <= held
    assert {name for name in held if name.startswith("pasture/")} == expected


def test_the_wheel_brings_the_command_the_licence_and_no_torch_unless_asked(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert "pasture = pasture.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    metadata = archive.read(f"{info}/METADATA").decode()
    torch = [line for line in metadata.splitlines() if re.match(r"Requires-Dist: (torch|transformers)\b", line)]
    assert len(torch) == 2
    assert all(line.endswith("extra == 'train'") for line in torch)


def test_every_dependency_is_pinned_exactly() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pins}
    assert len(pinned) == len(pins)
    extras = PYPROJECT["project"]["optional-dependencies"]
    asked = [*PYPROJECT["project"]["dependencies"], *extras["train"], *extras["dev"]]
    assert {re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", line)[0]).lower() for line in asked} <= pinned


def test_the_house_rules_are_short_enough_to_be_read() -> None:
    assert len((REPOSITORY / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_readme_shows_every_part_of_the_package() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    parts = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert len(parts) > 8
    assert [part for part in parts if not re.search(rf"^\W*{part}/", readme, re.MULTILINE)] == []


@pytest.mark.parametrize("document", sorted(p.relative_to(REPOSITORY).as_posix() for p in REPOSITORY.glob("*.md")))
def test_what_a_document_links_to_is_there(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []
