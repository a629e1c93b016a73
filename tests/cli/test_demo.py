"""`pasture demo` works after a plain installation, and its numbers follow from the answers that it ships."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.data.recorded import SHIPPED, read_recorded, record
from pasture.world import meadow

WITHOUT_TORCH_OR_NETWORK = """
import socket, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers", "accelerate", "peft", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def refuse(*_, **__):
    raise OSError("no network")

sys.meta_path.insert(0, Refused())
socket.socket.connect = refuse
sys.argv = ["pasture", "demo", "--out", sys.argv[1]]
from pasture.cli import main
main()
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demo, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-c", WITHOUT_TORCH_OR_NETWORK, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_needs_neither_torch_nor_a_network_and_says_who_won(shown):
    out, said = shown
    assert "Judged by people (hidden), " in said
    assert "comes first" in said
    assert "pool, 25% flips" in said
    assert str(out / "index.html") in said
    page = (out / "index.html").read_text()
    assert "Which of four systems is best" in page
    assert "0.7 million" in page


@pytest.mark.parametrize("judge", ["people", "pool", "noisy-pool"])
def test_its_rates_are_the_shares_of_the_verdicts_that_it_leaves(shown, judge):
    folder = shown[0] / judge
    systems = {row.id: row.second.system for row in read_records(folder / "comparisons.jsonl", Comparison)}
    credit: Counter[str] = Counter()
    for row in read_records(folder / "preferences.jsonl", Preference):
        credit[systems[row.comparison_id]] += {"first": 0.0, "second": 1.0, "tie": 0.5}[row.preferred]  # type: ignore[assignment]
    with (folder / "leaderboard.csv").open() as file:
        rates = {row["system"]: float(row["win_rate"]) for row in csv.DictReader(file)}
    assert rates == pytest.approx({system: total / 805 for system, total in credit.items()})
    assert len(rates) == 4


def test_label_noise_pulls_every_rate_towards_one_half(shown):
    def rates(judge: str) -> list[float]:
        rows = json.loads((shown[0] / judge / "leaderboard.json").read_text())["rows"]
        return [row["win_rate"]["rate"] for row in sorted(rows, key=lambda row: row["win_rate"]["system"])]

    # A flip of 25% moves a rate r to about r / 2 + 1 / 4; 2.5 standard errors of the difference are 0.05.
    assert rates("noisy-pool") == pytest.approx([rate / 2 + 0.25 for rate in rates("pool")], abs=0.05)


def test_its_answers_can_be_compared_again_from_their_files(shown):
    rows = json.loads((shown[0] / "answers/ppo.json").read_text())
    assert len(rows) == 805
    assert rows[0].keys() >= {"instruction", "input", "output", "generator", "dataset"}


def test_what_is_shipped_is_small_and_answers_the_meadows_evaluation_set():
    recorded = read_recorded()
    assert SHIPPED.stat().st_size < 400_000
    assert list(recorded.instructions) == meadow.evaluation_set(805, 0)
    assert list(recorded.reference) == meadow.demonstrations(list(recorded.instructions), 0)


def test_a_run_is_recorded_and_read_back_to_the_same_comparisons(tmp_path):
    instructions = [
        Instruction(id=f"i{number}", instruction="say it", input="x", source="s", split="evaluation")
        for number in range(3)
    ]
    write_records(tmp_path / "1-data/evaluation.jsonl", instructions)
    made = {}
    for system in ("a", "b"):
        made[system] = [
            Comparison.of(
                one,
                Completion(instruction_id=one.id, text="ref", system="demonstrations", seed=0, finish_reason="stop"),
                Completion(instruction_id=one.id, text=f"{system} <b>\u202e", system=system, seed=0, token_count=4),
            )
            for one in instructions
        ]
        write_records(tmp_path / f"3-annotate/evaluation/{system}/comparisons.jsonl", made[system])
    paths = [tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"]
    assert [record(tmp_path, path) for path in paths] == [2, 2]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = read_recorded(paths[0])
    assert {system: again.comparisons(system) for system in again.systems} == made


def test_a_run_without_judged_answers_and_a_damaged_file_say_so(tmp_path):
    write_records(tmp_path / "1-data/evaluation.jsonl", meadow.evaluation_set(2, 0))
    with pytest.raises(DataError, match="Finish the run first"):
        record(tmp_path, tmp_path / "out.jsonl.gz")
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"instruction": {}, "answers": {}}\n')
    with pytest.raises(DataError, match="not a file of recorded answers"):
        read_recorded(damaged)
