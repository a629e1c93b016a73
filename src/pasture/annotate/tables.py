"""The caller's rows in whatever form they come: a list of dicts, a DataFrame, a Dataset or a path.

Rows are read as they are and given back in the same form, old columns untouched. pandas, datasets and pyarrow are
used where the caller brings them and never needed otherwise.
"""

import csv
import importlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pasture.core.errors import DataError, DependencyError
from pasture.core.files import atomic_file, require_writable, write_json_lines, write_text
from pasture.core.hostile import disarmed
from pasture.core.records import Record
from pasture.core.tables import SUFFIXES, read_rows, text_field

Row = dict[str, Any]
FORMATS = ".json, .jsonl, .csv or .parquet"


@dataclass(frozen=True)
class Table:
    """Rows, and the way back to the form in which they came."""

    rows: Sequence[Row]
    origin: str
    """What errors call it."""
    _with_columns: Callable[[Mapping[str, list[Any]]], Any]
    _of_rows: Callable[[list[Row]], Any]

    def check_free(self, names: Iterable[str]) -> None:
        """See that columns can be added.

        Raises:
            DataError: naming the first that any row has already.
        """
        taken = next((name for name in names if any(name in row for row in self.rows)), None)
        if taken is not None:
            raise DataError(
                f"{self.origin} has a column {taken!r} already, and it is not overwritten. "
                "Give the new columns a prefix, such as --prefix judge_ (in Python, prefix='judge_')."
            )

    def with_columns(self, columns: Mapping[str, list[Any]]) -> Any:
        """The caller's rows in the caller's form, with further columns, one value for each row."""
        return self._with_columns(columns)

    def of_rows(self, rows: list[Row]) -> Any:
        """Other rows in the caller's form."""
        return self._of_rows(rows)


def as_table(data: Any) -> Table:
    """Whatever the caller has, as a table.

    Raises:
        DataError: if it is none of a list of mappings, a DataFrame, a Dataset and a path of a known format.
    """
    if isinstance(data, str | Path):
        rows = read_rows(Path(data))
        if not rows:
            raise DataError(f"{data}: the file holds no rows. Expected one for each pair.")
        return Table(rows, str(data), lambda columns: _widened(rows, columns), lambda made: made)
    if _is(data, "pandas", "DataFrame"):
        return _frame_table(data)
    if _is(data, "datasets", "Dataset"):
        return _dataset_table(data)
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        rows = [dict(row) for row in data]
        return Table(rows, "the list", lambda columns: _widened(rows, columns), lambda made: made)
    raise DataError(
        "expected a list of dicts, a pandas DataFrame, a datasets.Dataset or a path of a "
        f"{', '.join(SUFFIXES)} file, got {_described(data)}."
    )


def _described(data: Any) -> str:
    """What `data` is; of a list, what is in it that is no row."""
    if not isinstance(data, list | tuple):
        return type(data).__name__
    other = next(row for row in data if not isinstance(row, Mapping))
    advice = ". A record becomes a row by model_dump(): [one.model_dump() for one in ...]"
    return f"a list with {type(other).__name__} in it{advice if isinstance(other, Record) else ''}"


def require_target(path: Path) -> None:
    """See that rows can be written to `path`, before anybody is paid for them.

    Raises:
        DataError: if its ending is of no known format.
        DependencyError: for Parquet where pyarrow is not installed.
        RunFolderError: if no file can be written there.
    """
    if path.suffix not in (".json", ".jsonl", ".csv", ".parquet"):
        raise DataError(f"{path}: expected a name that ends in {FORMATS}, got ending {path.suffix!r}.")
    if path.suffix == ".parquet":
        _pyarrow("parquet")
    require_writable(path)


def require_fit(path: Path, rows: Sequence[Row]) -> None:
    """See that `rows` can be written to `path` as they are, before anybody is paid for what will stand beside them.

    Raises:
        DataError: naming row and column of a lone surrogate or of lists in lists without end; for Parquet, the column
            whose values have no type in common.
    """
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            try:
                json.dumps([name, _for_json(value)], ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{path}: cannot be written: row {number} holds a lone surrogate in column {name!a}, which no "
                    "file can hold. Mend or remove the row."
                ) from error
            except RecursionError as error:
                raise DataError(
                    f"{path}: cannot be written: row {number}, column {name!r}, is nested too deeply. Remove it."
                ) from error
    if path.suffix == ".parquet":
        for name in _names(rows):
            _require_one_type(path, name, [row.get(name) for row in rows])


def _require_one_type(path: Path, name: str, values: list[Any]) -> None:
    arrow = _pyarrow("")
    try:
        _pyarrow("parquet").write_table(arrow.Table.from_pydict({name: values}), arrow.BufferOutputStream())
    except (arrow.ArrowException, OverflowError, TypeError) as error:
        raise DataError(
            f"{path}: column {name!r} does not fit into Parquet, which has one type a column ({error}). Write .jsonl, "
            "or make its values alike."
        ) from error


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows by the ending of `path`, whole or not at all.

    In a CSV file, text that a spreadsheet would take for a formula gets an apostrophe. In JSON, which has neither, NaN
    and infinities become null, and dates text; so in a list or dict of a CSV cell. A column that some rows lack is
    empty there. All else is exact.
    """
    if path.suffix == ".jsonl":
        write_json_lines(path, [_for_json(row) for row in rows])
    elif path.suffix == ".json":
        plain = [_for_json(row) for row in rows]
        write_text(path, json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    elif path.suffix == ".csv":
        _write_csv(path, rows)
    elif path.suffix == ".parquet":
        columns = {name: [row.get(name) for row in rows] for name in _names(rows)}
        with atomic_file(path) as draft:
            _pyarrow("parquet").write_table(_pyarrow("").Table.from_pydict(columns), draft)
    else:
        raise DataError(f"{path}: expected a {FORMATS} file, got ending {path.suffix!r}.")


def text_of(row: Mapping[str, Any], column: str, where: str, *, optional: bool = False) -> str:
    """The text in a column, as `text_field` reads it; where it is optional, empty for what is missing, None or NaN.

    Raises:
        DataError: naming row and column, if there is no text.
    """
    value = row.get(column)
    missing = value is None or (isinstance(value, float) and math.isnan(value)) or _is(value, "pandas", "NAType")
    if missing and optional:
        return ""
    if isinstance(value, str | bool | int | float) and not missing:
        return text_field(dict(row), column, where)
    if column not in row:
        raise DataError(
            f"{where}: expected text in column {column!r}, got columns {', '.join(map(str, row))}. Rename one of them; "
            "two systems' outputs are joined by --head2head, several outputs of an instruction paired by --samples."
        )
    got = "nothing" if missing else type(value).__name__
    raise DataError(f"{where}: expected text in column {column!r}, got {got}. Mend or remove the row.")


def _is(data: Any, module: str, name: str) -> bool:
    """Whether it is an instance of `module.name`; a module that is not loaded made none of its objects."""
    loaded = sys.modules.get(module)
    kind = getattr(loaded, name, None) if name != "NAType" else type(getattr(loaded, "NA", None))
    return kind is not None and kind is not type(None) and isinstance(data, kind)


def _widened(rows: Sequence[Row], columns: Mapping[str, list[Any]]) -> list[Row]:
    return [{**row, **{name: values[i] for name, values in columns.items()}} for i, row in enumerate(rows)]


def _frame_table(frame: Any) -> Table:
    pandas = sys.modules["pandas"]
    rows = frame.to_dict("records")

    def with_columns(columns: Mapping[str, list[Any]]) -> Any:
        series = {name: pandas.Series(values, index=frame.index) for name, values in columns.items()}
        return frame.assign(**series)

    return Table(rows, "the DataFrame", with_columns, pandas.DataFrame)


def _dataset_table(dataset: Any) -> Table:
    kind = type(dataset)

    def with_columns(columns: Mapping[str, list[Any]]) -> Any:
        wider = dataset
        for name, values in columns.items():
            wider = wider.add_column(name, values)
        return wider

    return Table(dataset.to_list(), "the Dataset", with_columns, kind.from_list)


def _for_json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _for_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(part) for part in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def _names(rows: Sequence[Row]) -> list[str]:
    """The columns of all rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    names = _names(rows)
    with atomic_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([disarmed(name) for name in names])
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = json.dumps(_for_json(value), ensure_ascii=False)
    return disarmed(value) if isinstance(value, str) else value


def _pyarrow(part: str) -> Any:
    try:
        return importlib.import_module(f"pyarrow.{part}" if part else "pyarrow")
    except ImportError as error:
        raise DependencyError("Parquet files need pyarrow: pip install 'pasture[tables]'.") from error
