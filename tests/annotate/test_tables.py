"""The caller's rows: nothing of them is lost, changed or overwritten, and what cannot be written is said beforehand."""

import datetime as dt
import gzip
from pathlib import Path
from typing import Any

import pytest

from pasture.annotate.entry import Listener, annotate_pairs
from pasture.annotate.tables import require_fit, write_rows
from pasture.core.errors import DataError
from pasture.core.tables import read_rows

PAIR = {"instruction": "do", "output_1": "good", "output_2": "bad"}


@pytest.mark.parametrize(
    "text",
    [
        "one\r\ntwo\rthree\nfour",
        "\u0633\u0644\u0627\u0645\u200f\u200e (\u05e9\u05dc\u05d5\u05dd)\u200f",  # Arabic and Hebrew with their marks
        "soft\u00adhyphen, zero\u200bwidth, \ufeffbyte order mark",
        "\u202bembedded\u202c \x1b[31m and a bell \x07",
    ],
)
def test_text_comes_back_from_a_csv_file_letter_for_letter(tmp_path: Path, text: str) -> None:
    write_rows(tmp_path / "t.csv", [{"output": text}])
    assert read_rows(tmp_path / "t.csv") == [{"output": text}]


def test_a_gzip_with_a_changed_byte_is_named(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f'{{"number": {number * 7919 % 1000}}}\n' for number in range(300)).encode())
    # Wherever the byte stands: in the header, among the compressed bytes, or in the checksum at the end.
    for position in (0, *range(20, len(whole), 97), len(whole) - 6):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        (tmp_path / "t.jsonl.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"t\.jsonl\.gz: cannot be read"):
            read_rows(tmp_path / "t.jsonl.gz")


def test_a_date_within_a_cell_of_a_csv_file_becomes_text_as_in_json(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", [{"evidence": {"day": dt.date(2026, 1, 2)}}])
    assert read_rows(tmp_path / "t.csv") == [{"evidence": '{"day": "2026-01-02"}'}]


def test_a_column_that_later_rows_alone_have_is_in_every_format(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2, "tag": "late"}]
    write_rows(tmp_path / "t.parquet", rows)
    assert read_rows(tmp_path / "t.parquet") == [{"id": 1, "tag": None}, {"id": 2, "tag": "late"}]
    write_rows(tmp_path / "t.csv", rows)
    assert read_rows(tmp_path / "t.csv") == [{"id": "1", "tag": ""}, {"id": "2", "tag": "late"}]


@pytest.mark.parametrize("column", ["error", "seconds", "annotator"])
def test_a_column_that_a_later_row_alone_has_is_not_overwritten(column: str) -> None:
    listener = Listener()
    with pytest.raises(DataError, match=f"has a column '{column}' already.*--prefix judge_ .*prefix='judge_'"):
        annotate_pairs([PAIR, {**PAIR, column: "the caller's"}], listener)
    assert listener.heard == ()


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_a_lone_surrogate_anywhere_in_a_row_is_named_before_it_is_written(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for value in ("\ud800", ["\udc80"], {"\udfff": 1}):
        with pytest.raises(DataError, match=r"row 2 holds a lone surrogate in column 'note'") as caught:
            require_fit(tmp_path / f"t.{ending}", [PAIR, {**PAIR, "note": value}])
        str(caught.value).encode()
    require_fit(tmp_path / f"t.{ending}", [PAIR, {**PAIR, "note": "\U0001f600"}])
    assert list(tmp_path.iterdir()) == []


def test_a_list_in_a_list_without_end_is_named_before_it_is_written(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(DataError, match="row 1, column 'tree', is nested too deeply"):
        require_fit(tmp_path / "t.jsonl", [{"tree": nested}])


@pytest.mark.parametrize(
    "values",
    [
        [1, "one"],
        ["one", 1],
        [[1], "one"],
        [{"a": 1}, [1]],
        [2**70, 1],
        [{}, {}],  # a struct without fields, which Arrow holds and Parquet does not
    ],
)
def test_a_column_that_parquet_cannot_hold_is_named_before_it_is_written(tmp_path: Path, values: list[Any]) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rows = [{**PAIR, "mixed": value} for value in values]
    with pytest.raises(DataError, match=r"column 'mixed' does not fit into Parquet.*Write \.jsonl"):
        require_fit(tmp_path / "t.parquet", rows)
    require_fit(tmp_path / "t.jsonl", rows)
