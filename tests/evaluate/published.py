"""AlpacaEval's published annotations beside this repository, for the tests that meet published numbers."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pasture.core.tables import read_rows
from pasture.evaluate.alpaca_eval import credit_of
from pasture.evaluate.outcomes import Outcomes

FOLDER = Path(__file__).parents[2].parent / "shared/data/alpaca_eval"

needs_published = pytest.mark.skipif(not FOLDER.exists(), reason=f"AlpacaEval's published data is not at {FOLDER}")


def systems(version: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / version / "annotations").glob("*.parquet"))


def read(version: str, system: str) -> Outcomes:
    """The outcomes of one system, in the order of its file; instructions by their hash."""
    rows = read_rows(FOLDER / version / "annotations" / f"{system}.parquet")
    switched = np.array([row["is_switched_seed0"] for row in rows], dtype=np.bool_)
    return Outcomes(
        system=system,
        reference=str(rows[0]["generator_1"]),
        judge=str(rows[0]["annotator"]),
        instruction=np.array([row["instruction_sha16"] for row in rows], dtype=np.str_),
        source=np.array([row["dataset"] for row in rows], dtype=np.str_),
        credit=np.array([credit_of(row["preference"], system) for row in rows]),
        shown_first=switched,
        system_length=np.array([row["len_2"] for row in rows], dtype=np.float64),
        reference_length=np.array([row["len_1"] for row in rows], dtype=np.float64),
        system_list=np.zeros(len(rows), dtype=np.bool_),
        reference_list=np.zeros(len(rows), dtype=np.bool_),
    )


def table(name: str) -> dict[str, dict[str, str]]:
    """A CSV of the folder, by the name in its first column."""
    with (FOLDER / name).open(encoding="utf-8") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def instructions() -> list[dict[str, Any]]:
    with gzip.open(FOLDER / "instructions.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
