"""What `import pasture` gives: listed for Python, for type checkers and for readers, and all three agree."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pasture

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
    rows = [line.split("|")[2] for line in PAGE.splitlines() if line.startswith("| ")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(NAMES)


def test_the_example_of_the_page_prints_what_it_says(tmp_path: Path) -> None:
    code, said = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == said


def test_importing_the_package_loads_none_of_them() -> None:
    code = "import sys, pasture; print([name for name in sys.modules if name.startswith('pasture.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
