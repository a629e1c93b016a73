"""Ceilings that make one stop and think: file, function, parameters, names."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.house import REPOSITORY

FILE_LINES, FUNCTION_LINES, PARAMETERS = 500, 60, 7
FORBIDDEN = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}

SOURCES = [
    path
    for folder in ("src", "tests", "benchmarks", "examples")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
    if "__pycache__" not in path.parts
]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def line_count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameter_count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters that a caller fills: self, cls and ignored ones do not count."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([one for one in arguments if one.arg not in ("self", "cls")])


def too_much(path: Path, text: str) -> list[str]:
    """What in a file passes a ceiling.

    Tests may have more parameters, as parametrize fills them.
    """
    found = []
    if (lines := len(text.splitlines())) > FILE_LINES:
        found.append(f"{lines} lines")
    for node in functions(ast.parse(text)):
        if line_count(node) > FUNCTION_LINES:
            found.append(f"{node.name}: {line_count(node)} lines")
        if parameter_count(node) > PARAMETERS and "tests" not in path.parts:
            found.append(f"{node.name}: {parameter_count(node)} parameters")
    words = set(path.stem.split("_")) | set(path.parent.name.split("_"))
    return found + [f"is called {word!r}" for word in sorted(words & FORBIDDEN)]


def test_no_file_function_or_name_passes_a_ceiling() -> None:
    assert len(SOURCES) > 50
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    found = {str(path.relative_to(REPOSITORY)): much for path, text in texts.items() if (much := too_much(path, text))}
    assert found == {}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.py", "x = 1\n" * 501, ["501 lines"]),
        ("a.py", "x = 1\n" * 500, []),
        ("a.py", "def f():\n" + "    x = 1\n" * 60, ["f: 61 lines"]),
        ("a.py", "def f():\n" + "    x = 1\n" * 59, []),
        ("a.py", "class C:\n    async def f(self, a, b, c, d, e, /, f, *, g, h): ...\n", ["f: 8 parameters"]),
        ("a.py", "class C:\n    def f(self, a, b, c, d, e, /, f, *, g): ...\n", []),
        ("io_utils.py", "", ["is called 'utils'"]),
        ("common/a.py", "", ["is called 'common'"]),
        ("commonly.py", "", []),
    ],
)
def test_what_passes_a_ceiling_is_seen(name: str, text: str, said: list[str]) -> None:
    assert too_much(Path("src") / name, text) == said
