"""Rows from files of other makers: JSON, JSONL, CSV or Parquet, each plain or gzipped where that makes sense."""

import csv
import gzip
import importlib
import io
import json
import zlib
from pathlib import Path

from pasture.core.errors import DataError, DependencyError

Row = dict[str, object]

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
"""What `read_rows` reads, by the end of the file's name; all but Parquet also with ".gz" after it."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, in order, values as the format has them: a CSV's are all text.

    JSON has to be a list of objects.

    Raises:
        DataError: if the file is missing, of another kind, or does not hold rows; names the line where there is one.
        DependencyError: for Parquet where pyarrow is not installed.
    """
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)} (or one of them with .gz).")
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check the path.") from error
    except (OSError, EOFError, zlib.error) as error:  # what is wrong with a gzip comes as any of the three
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if suffix == ".parquet":
        return _parquet(path, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}). Save it as UTF-8.") from error
    if suffix == ".csv":
        return _comma_separated(path, text)
    return _one_json(path, text) if suffix == ".json" else _json_lines(path, text)


def flat(row: Row) -> Row:
    """A comparison as runs record them, with its texts in columns as in others' files; any other row as it is."""
    asked, first, second = (row.get(name) for name in ("instruction", "first", "second"))
    if not (isinstance(asked, dict) and isinstance(first, dict) and isinstance(second, dict)):
        return row
    texts = {name: asked.get(name) for name in ("instruction", "input")}
    sides = {f"output_{number}": side.get("text") for number, side in enumerate((first, second), start=1)}
    systems = {f"generator_{number}": side.get("system") for number, side in enumerate((first, second), start=1)}
    return {
        **{name: value for name, value in row.items() if name not in ("first", "second")},
        **texts,
        **sides,
        **systems,
    }


def _comma_separated(path: Path, text: str) -> list[Row]:
    csv.field_size_limit(1 << 30)  # answers of a megabyte are text like any other
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [dict[str, object](row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error}).") from error
    for number, row in enumerate(rows, start=1):
        # csv files surplus cells under None, and fills missing ones with None.
        if None in row or None in row.values():
            columns = reader.fieldnames or []
            raise DataError(f"{path}: row {number} has not the {len(columns)} cells that the header names.")
    return rows


def _one_json(path: Path, text: str) -> list[Row]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}). A file with an object a line should end in .jsonl.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a JSON list of objects.")
    return rows


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON ({error}). Mend or remove the line.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}.")
        rows.append(row)
    return rows


def _parquet(path: Path, content: bytes) -> list[Row]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DependencyError(
            f"{path}: reading Parquet needs pyarrow. Install it with: pip install 'pasture[tables]'"
        ) from error
    try:
        table = parquet.read_table(io.BytesIO(content))
    except (ValueError, OSError) as error:  # pyarrow's own errors are subclasses of these two
        raise DataError(f"{path}: not a Parquet file ({error}).") from error
    rows: list[Row] = table.to_pylist()
    return rows


def text_field(row: Row, name: str, where: str, default: str | None = None) -> str:
    """The text under `name`; `default`, where one is given, stands in for a field that is absent or null.

    A number or a truth value becomes its JSON text: files in the wild hold answers such as `true`.

    Raises:
        DataError: if the field is missing or holds something else.
    """
    value = row.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{where}: expected text under {name!r}, got {found}. Fields: {', '.join(map(str, row))}.")
    return value
