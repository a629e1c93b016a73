"""The programs in the documents run as they stand: copied into an empty folder, with nothing before them."""

import builtins
import os
import re
import subprocess
import sys
from pathlib import Path
from symtable import symtable

import pytest

DOCUMENTS = Path(__file__).parents[1] / "docs"


def programs(page: str) -> list[str]:
    """The Python of a page, block by block."""
    text = (DOCUMENTS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def unknown(code: str) -> set[str]:
    """Names that a program uses and neither makes nor imports."""
    names = symtable(code, "page", "exec").get_symbols()
    made = {one.get_name() for one in names if one.is_assigned() or one.is_imported()}
    return {one.get_name() for one in names} - made - set(vars(builtins))


@pytest.mark.parametrize("page", ["annotators", "report", "studies"])
def test_a_program_of_a_page_says_where_each_of_its_names_comes_from(page: str) -> None:
    assert [unknown(code) for code in programs(page)] == [set()]
    assert unknown("write(content)") == {"write", "content"}


@pytest.mark.parametrize(("page", "left"), [("report", "index.html"), ("studies", "7-report/index.html")])
def test_a_program_of_a_page_runs_and_leaves_its_page(page: str, left: str, tmp_path: Path) -> None:
    [code] = programs(page)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / left).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
