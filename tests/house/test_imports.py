"""What imports what: rooms never meet, torch stays where learning is, and a plain installation is enough."""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.house.house import PACKAGE, PYPROJECT, REPOSITORY, ROOMS, files, modules, name_of, needed_extra

LAYERS, TORCH = (contract["name"] for contract in PYPROJECT["tool"]["importlinter"]["contracts"])


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the import linter says of the package in `folder`/src, under this repository's contracts."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--config", str(REPOSITORY / "pyproject.toml"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "300"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "src" / "pasture", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contracts_hold() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract", "importer", "imported"),
    [
        ("annotate/draws.py", "from pasture.learn import ppo", LAYERS, "pasture.annotate", "pasture.learn"),
        ("report/page.py", "import pasture.evaluate.board", LAYERS, "pasture.report", "pasture.evaluate"),
        ("core/records.py", "from pasture import flow", LAYERS, "pasture.core", "pasture.flow"),
        ("world/words.py", "from pasture.formulas import masks", LAYERS, "pasture.world", "pasture.formulas"),
        ("evaluate/board.py", "import pasture.steps", LAYERS, "pasture.evaluate", "pasture.steps"),
        ("recipe.py", "from pasture.plan import build", LAYERS, "pasture.recipe", "pasture.plan"),
        ("steps/data.py", "from pasture.flow import execute", LAYERS, "pasture.steps", "pasture.flow"),
        ("flow.py", "from pasture import cli", LAYERS, "pasture.flow", "pasture.cli"),
        ("core/seeds.py", "import torch", TORCH, "pasture.core", "torch"),
        ("evaluate/win_rate.py", "import torch", TORCH, "pasture.evaluate", "torch"),
        ("cli/doctor.py", "import transformers", TORCH, "pasture.cli", "transformers"),
        ("annotate/draws.py", "from pasture.models import load", TORCH, "pasture.annotate", "torch"),
        ("flow.py", "from pasture.steps import learn", TORCH, "pasture.flow", "torch"),
        ("models/sampler_config.py", "import torch", TORCH, "pasture.models.sampler_config", "torch"),
    ],
)
def test_a_planted_violation_is_caught_and_named(
    copy: Path, file: str, line: str, contract: str, importer: str, imported: str
) -> None:
    path = copy / "src" / "pasture" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    done = lint(copy)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"{contract} BROKEN" in said
    assert f"{importer} is not allowed to import {imported}" in said


def test_a_new_part_of_the_house_has_to_find_its_layer(copy: Path) -> None:
    (copy / "src" / "pasture" / "attic").mkdir()
    (copy / "src" / "pasture" / "attic" / "__init__.py").touch()
    done = lint(copy)
    assert done.returncode != 0
    assert "not listed as layers: - pasture.attic" in " ".join(done.stdout.split())


def test_every_module_that_is_free_of_torch_is_held_to_it() -> None:
    (contract,) = (c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["name"] == TORCH)
    held = contract["source_modules"]
    # A package's own __init__ runs before its modules: where the modules may need torch, only imports tell.
    packages = {name for name in modules() if any(other.startswith(f"{name}.") for other in modules())}
    free = [name for name in modules() if needed_extra(name) is None and name not in packages]
    missing = [name for name in free if not any(name == one or name.startswith(f"{one}.") for one in held)]
    assert missing == [], "add them, or their package, to source_modules of the torch contract in pyproject.toml"
    train = {Requirement(line).name for line in PYPROJECT["project"]["optional-dependencies"]["train"]}
    assert set(contract["forbidden_modules"]) == train


IMPORT_EACH = """
import importlib, json, sys

allowed, free, listed = json.loads(sys.stdin.read())

class OnlyAllowed:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyAllowed())
failed = {}
for module in [*free, *listed]:
    # What a failed import left behind would make the next one pass.
    for name in set(listed) & set(sys.modules):
        del sys.modules[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        failed[module] = error.name or getattr(error.__cause__, "name", None) or str(error)
print(json.dumps(failed))
"""


def plain_installation() -> list[str]:
    """Top-level names of all that `pip install .` brings: the dependencies, and what they depend on."""
    waiting, seen, tops = [*PYPROJECT["project"]["dependencies"]], set(), {"pasture"}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        waiting += importlib.metadata.requires(name) or []
        tops |= {path.parts[0].partition(".")[0] for path in importlib.metadata.files(name) or ()}
    return sorted(tops)


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """The package that is missing, by module, where only a plain installation is there."""
    free = [name for name in modules() if needed_extra(name) is None]
    listed = [name for name in modules() if needed_extra(name) is not None]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_EACH],
        input=json.dumps([plain_installation(), free, listed]),
        capture_output=True,
        text=True,
        check=True,
    )
    failed: dict[str, str] = json.loads(done.stdout)
    return failed


def test_a_plain_installation_is_all_that_modules_need_unless_they_are_listed(failures: dict[str, str]) -> None:
    assert {name: lacks for name, lacks in failures.items() if needed_extra(name) is None} == {}
    assert not {"torch", "transformers", "hypothesis", "pytest"} & set(plain_installation())


def test_the_listed_modules_do_need_their_extra(failures: dict[str, str]) -> None:
    listed = [name for name in modules() if needed_extra(name) is not None]
    assert [name for name in listed if name not in failures] == []
    for name in listed:
        extra = PYPROJECT["project"]["optional-dependencies"][needed_extra(name)]
        assert failures[name].partition(".")[0] in {Requirement(line).name for line in extra}


def late_imports(path: Path) -> list[int]:
    """Lines of imports inside functions or classes, and of calls that import by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = []
    for outer in ast.walk(tree):
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            lines += [inner.lineno for inner in ast.walk(outer) if isinstance(inner, ast.Import | ast.ImportFrom)]
        if isinstance(outer, ast.Call) and ast.unparse(outer.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            lines.append(outer.lineno)
    return sorted(set(lines))


LATE = {
    "pasture": "its public names lie in many rooms, and each is loaded when it is asked for",
    "pasture.flow": "so that only steps that need torch load it",
    "pasture.engines": "so that an engine's package is asked for by those alone who use it",
    "pasture.core.tables": "pyarrow is optional: read only where a file is Parquet",
    "pasture.data.hub": "huggingface_hub is optional: asked only where a name begins with hub:",
    "pasture.evaluate.alpaca_length_control": "scikit-learn takes a second to load, for one optional number",
    "pasture.annotate.campaign.address": "SQLAlchemy is optional: needed only for a campaign in a database",
    "pasture.annotate.tables": "pyarrow is optional: written only where Parquet is asked for",
    "pasture.cli": "a verb loads its own module alone, so that none waits for the libraries of another",
    "pasture.cli.people": "the page's server is optional: needed only where a campaign is served",
    "pasture.machine.ray_cluster": "Ray is optional: needed only where a run goes to a cluster",
    "pasture.machine.tracker_settings": "wandb is optional: asked for a login only where runs are to go there",
    "pasture.steps.together": "a process that was started for one step loads what that step needs",
    "pasture.engines.api": "tokenizers is optional: needed only for a bias by text",
}
"""The modules that may import late, and why; the first, flow, engines, cli and steps.together alone import parts of
Pasture so."""


def test_only_the_listed_modules_import_late() -> None:
    found = {name_of(path): lines for path in files() if (lines := late_imports(path))}
    assert {name: lines for name, lines in found.items() if name not in LATE} == {}


def test_a_late_import_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os\nif os.name:\n    import sys\ndef f():\n    import json\nclass C:\n    from a import b\n"
        "x = __import__('c')\nimportlib.import_module('d')\n"
    )
    assert late_imports(path) == [5, 7, 8, 9]


def test_the_rooms_that_there_are_lie_in_one_corridor() -> None:
    (contract,) = (c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["name"] == LAYERS)
    corridor = next(layer for layer in contract["layers"] if "(data)" in layer)
    assert corridor == " | ".join(f"({room})" for room in ROOMS)
