"""What `import pasture` gives: listed for Python, for type checkers and for readers, and all three agree."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pasture
from tests.flows.tiny import LOOP, TINY

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
NAMES: dict[str, str] = vars(pasture)["_HOME_OF"]


def test_each_name_is_what_its_home_has() -> None:
    for name, home in NAMES.items():
        assert getattr(pasture, name) is getattr(importlib.import_module(home), name)


def test_a_star_and_completion_give_just_these_names() -> None:
    found: dict[str, object] = {}
    exec("from pasture import *", found)  # noqa: S102
    assert {name for name in found if name != "__builtins__"} == set(NAMES)
    assert set(dir(pasture)) == {*NAMES, "__version__"}


def test_none_of_them_needs_torch() -> None:
    code = "import sys; from pasture import *; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_another_name_is_told_where_to_look() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'anotate_pairs'; docs/python.md lists"):
        pasture.anotate_pairs  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_are_told_the_same() -> None:
    tree = ast.parse((REPOSITORY / "src" / "pasture" / "__init__.pyi").read_text(encoding="utf-8"))
    told = [(node.module, one) for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names]
    assert {one.name: module for module, one in told} == NAMES
    assert all(one.asname == one.name for _, one in told)  # which makes them public


def test_the_page_lists_the_same() -> None:
    table = PAGE.partition("| What for | Names | More |\n")[2].partition("\n\n")[0]
    rows = [line.split("|")[2] for line in table.splitlines()]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(NAMES)


COMPARING, SAID, BOARD, RECIPE, ASKING = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, flags=re.DOTALL)


def printed(code: str, folder: Path) -> str:
    """What a program prints that is started in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_the_page_prints_what_it_says_and_then_a_board(tmp_path: Path) -> None:
    out = printed(COMPARING + BOARD, tmp_path)
    assert out.startswith(SAID)
    # The rate and the interval that the page has for the judge who came last.
    assert re.search(r"twin +48\.2 ± \S+ +44\.9 to 51\.9 .*805/805", out.removeprefix(SAID))


def test_the_recipe_of_the_page_runs_in_silence_and_leaves_the_tables_that_it_reads(tmp_path: Path) -> None:
    code = RECIPE.replace('"recipes/meadow/loop.toml"', repr(str(LOOP))).replace('["seed=1"]', repr(TINY))
    assert code.count(repr(TINY)) == 1
    board, curve, labels = re.split(r"\n(?= +step)|\npreferred\n", printed(code, tmp_path))
    assert sorted(line.split()[1] for line in board.splitlines()[1:]) == ["base", "best_of_n", "ppo", "sft"]
    assert [line.split()[1] for line in curve.splitlines()[1:]] == ["2", "3", "4"]  # the last of its four steps
    assert sum(int(line.split()[1]) for line in labels.splitlines() if not line.startswith("Name")) == 40
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["second"]


def test_the_meadows_model_answers_as_the_page_says(tmp_path: Path) -> None:
    assert printed(ASKING, tmp_path).startswith("the whale .")


def test_importing_the_package_loads_none_of_them() -> None:
    code = "import sys, pasture; print([name for name in sys.modules if name.startswith('pasture.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
