"""`pasture calibrate` on files of known make, on the meadow's pairs and on published human labels."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.cli import calibrate
from pasture.core.errors import DataError
from pasture.core.records import Comparison
from pasture.world import meadow
from pasture.world.writing import MODEL_LIKE
from pasture.world.writing import write as write_answer

app = typer.Typer()
calibrate.register(app)
app.command("other")(lambda: None)  # with one verb alone typer would want no name

PANDALM = Path(__file__).parents[2].parent / "shared/data/pandalm/human_pairs.jsonl.gz"
needs_pandalm = pytest.mark.skipif(not PANDALM.exists(), reason=f"no PandaLM data at {PANDALM}")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def found(*arguments: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return result


def pairs_with_flips(count: int, flips: float) -> list[dict[str, object]]:
    """Pairs with four people drawn from three judges, flipped so often, and the judges' own labels."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, count)
    judges = np.where(generator.random((3, count)) < [[0.95], [0.9], [0.85]], truth, 1 - truth)
    people = judges[generator.integers(0, 3, (count, 4)), np.arange(count)[:, None]]
    people = np.where(generator.random(people.shape) < flips, 1 - people, people)
    rows: list[dict[str, object]] = [
        dict[str, object](instruction=f"do {row}", output_1="a", output_2="b")
        | {f"person_{number}": int(label) + 1 for number, label in enumerate(people[row])}
        | {f"judge_{number}": int(label) + 1 for number, label in enumerate(judges[:, row])}
        for row in range(count)
    ]
    return rows


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_known_flips_are_found_in_a_file_of_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", pairs_with_flips(2000, 0.15))
    people = ",".join(f"person_{number}" for number in range(4))
    result = found(path, "--people", people, "--labels", "judge_0,judge_1,judge_2")
    assert result["label_flip_probability"] == pytest.approx(0.15, abs=0.04)
    assert result["matches"]
    assert set(result["weights"]) == {"judge_0", "judge_1", "judge_2"}


def test_rows_of_labels_and_a_file_of_the_pool_say_the_same(tmp_path: Path) -> None:
    wide = pairs_with_flips(400, 0.15)
    texts = ("instruction", "output_1", "output_2")
    labels, pool = (
        [
            {name: row[name] for name in texts} | {"annotator": who, "preference": row[f"{kind}_{number}"]}
            for row in wide
            for number in range(size)
            for who in ["people" if kind == "person" else f"judge_{number}"]
        ]
        for kind, size in (("person", 4), ("judge", 3))
    )
    narrow = found(write(tmp_path / "people.jsonl", labels), "--pool", write(tmp_path / "pool.jsonl", pool))
    people = ",".join(f"person_{number}" for number in range(4))
    path = write(tmp_path / "pairs.jsonl", wide)
    assert narrow == found(path, "--people", people, "--labels", "judge_0,judge_1,judge_2")


def meadow_rows(who: str) -> list[dict[str, object]]:
    """Pairs of the meadow, each with four labels: of its people, or of its pool with a fifth of them flipped."""
    instructions = meadow.instructions("preference", 1200, seed=11)
    pairs = [
        Comparison.of(one, *(write_answer(one, MODEL_LIKE, "imitation", 11, sample) for sample in (0, 1)))
        for one in instructions
    ]
    pairs = [pair for pair in pairs if pair.first.text != pair.second.text]
    rows: list[dict[str, object]] = []
    for seed in range(4):
        crowd = MeadowPeople(seed=seed) if who == "people" else MeadowPool(seed=seed, label_flip_probability=0.2)
        rows += [
            {
                "instruction": pair.instruction.instruction,
                "input": pair.instruction.input,
                "output_1": pair.first.text,
                "output_2": pair.second.text,
                "annotator": who,
                "preference": 1 if label.preferred == "first" else 2,
            }
            for pair, label in zip(pairs, crowd.annotate(pairs), strict=True)
        ]
    return rows


def test_the_meadows_pool_finds_its_own_flips(tmp_path: Path) -> None:
    # People who are the pool itself with 20% flips: the raters' own chances come with it, so flips are what is left.
    rows = [{**row, "annotator": "people"} for row in meadow_rows("pool")]
    result = found(write(tmp_path / "labels.jsonl", rows), "--meadow")
    assert len(result["weights"]) == 13
    assert result["label_flip_probability"] == pytest.approx(0.2, abs=0.06)


def test_labels_of_others_in_the_file_are_no_labels_of_people(tmp_path: Path) -> None:
    # As a run's own 6-validate/annotators/cross_annotations.jsonl, which holds the pool's labels too.
    people, others = meadow_rows("people"), meadow_rows("pool")
    mixed, alone = write(tmp_path / "mixed.jsonl", people + others), write(tmp_path / "alone.jsonl", people)
    assert found(mixed, "--meadow") == found(alone, "--meadow")


@needs_pandalm
def test_two_automatic_judges_are_said_not_to_be_people() -> None:
    shown = run(PANDALM, "--people", "human_1,human_2,human_3", "--labels", "gpt35,pandalm_7b")
    assert "The pool does not match people within 2 points" in shown
    assert "no mixture of these annotators comes within 2 points" in shown
    result = found(PANDALM, "--people", "human_1,human_2,human_3", "--labels", "gpt35,pandalm_7b")
    # Each label against the two others of its pair, in plain Python: they agree on a side, or are no majority.
    with gzip.open(PANDALM, "rt", encoding="utf-8") as file:
        every = [json.loads(line) for line in file]
    rows = [row for row in every if row["gpt35"] != "garbage"]
    assert result["left_out_count"] == len(every) - len(rows)
    side = {1: -1, 2: 1, 0: 0}
    right = []
    for row in rows:
        leads = [side[int(row[f"human_{number}"])] for number in (1, 2, 3)]
        for lead in leads:
            others = sum(leads) - lead
            right.append(1 - abs(lead - (others > 0) + (others < 0)) / 2)
    halves = result["fitted"], result["held_out"]
    count = sum(half["pair_count"] for half in halves)
    assert count == len(rows)
    people = sum(half["people_agreement"] * half["pair_count"] for half in halves) / count
    assert people == pytest.approx(sum(right) / len(right))


def test_the_table_says_the_flips_and_the_verdict(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", pairs_with_flips(2000, 0.15))
    shown = run(path, "--people", "person_0,person_1,person_2,person_3", "--labels", "judge_0,judge_1,judge_2")
    assert "label_flip_probability = 0.1" in shown
    assert "The pool matches people within 2 points on held-out pairs." in shown


@pytest.mark.parametrize("pools", [[], ["--meadow", "--labels", "judge_0"]])
def test_exactly_one_pool_has_to_be_named(tmp_path: Path, pools: list[str]) -> None:
    path = write(tmp_path / "pairs.jsonl", pairs_with_flips(50, 0.1))
    with pytest.raises(DataError, match="one of --labels COLUMNS, --pool FILE or --meadow"):
        run(path, *pools)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.jsonl: no rows"):
        run(write(tmp_path / "pairs.jsonl", []), "--meadow")
