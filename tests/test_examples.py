"""The loop in seven short files: each runs alone, leaves its files where it says, and shows what it claims to show."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pasture.core.files import read_records
from pasture.core.records import Comparison, Instruction, Preference

EXAMPLES = Path(__file__).parents[1] / "examples"
LESSONS = sorted(path.stem for path in EXAMPLES.glob("[1-7]_*.py"))
PAGE = EXAMPLES / "README.md"
MOST_LINES = 60


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a lesson in an empty folder; what it printed, and the folder that it wrote to."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> tuple[str, Path]:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        assert [path.name for path in tmp_path.iterdir()] == ["runs"]
        assert [path.name for path in (tmp_path / "runs" / "examples").iterdir()] == [name]
        text = capsys.readouterr().out
        assert name.startswith("4") or quoted(name) in text  # what training gives may differ in its last digits
        return text, tmp_path / "runs" / "examples" / name

    return run


def quoted(name: str) -> str:
    """What the page of the examples says that a lesson ends with."""
    [row] = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith(f"| `{name}.py`")]
    return row.split("`")[-2]


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return float(found[1])


def test_there_is_a_lesson_for_each_room_and_none_is_long() -> None:
    rooms = ["instructions", "completions", "annotate", "learn", "evaluate", "validate", "report"]
    assert [f"{place}_{room}" for place, room in enumerate(rooms, start=1)] == LESSONS
    assert max(len((EXAMPLES / f"{name}.py").read_text().splitlines()) for name in LESSONS) <= MOST_LINES


def test_the_page_of_the_examples_names_each() -> None:
    text = PAGE.read_text(encoding="utf-8")
    own = ["my_method.py", "my_scorer.py", "my_annotator.py"]
    assert re.findall(r"`(\w+\.py)`", text) == [*(f"{name}.py" for name in LESSONS), *own]


def test_a_lesson_runs_as_a_program_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "1_instructions.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 of 805 evaluation instructions are in another split" in done.stdout


def test_1_no_evaluation_instruction_is_in_a_training_split(lesson) -> None:
    text, folder = lesson("1_instructions")
    asked = {
        split: {(one.instruction, one.input) for one in read_records(folder / f"{split}.jsonl", Instruction)}
        for split in ("sft", "preference", "unlabeled", "validation", "evaluation")
    }
    evaluation = asked.pop("evaluation")
    assert not any(evaluation & others for others in asked.values())
    # The sources of the paper's evaluation set in size: Dubois et al. 2023, section 2.2.
    assert "sources: chat 188, drills 252, essays 80, facts 129, puzzles 156" in text


def test_2_an_answer_does_not_depend_on_what_else_is_asked(lesson) -> None:
    text, folder = lesson("2_completions")
    assert "instruction 40 gets the same answers: True" in text
    pairs = read_records(folder / "comparisons.jsonl", Comparison)
    assert len({pair.instruction.id for pair in pairs}) == len(pairs) == 100
    assert number(r"(\d+) of equal answers", text) == sum(pair.first.text == pair.second.text for pair in pairs)


def test_3_flips_cost_agreement_and_a_coin_chooses_half_of_the_labels(lesson) -> None:
    text, folder = lesson("3_annotate")
    person, pool, flipped = (number(rf"{who} +(\d+)%", text) for who in ("one person", "pool", "pool, 25% flips"))
    assert person > pool > flipped > 50
    labels = read_records(folder / "pool-25-flips.jsonl", Preference)
    assert number(r"flips .*coin: (\d+)", text) == sum(one.flipped_by_noise for one in labels)
    # Twice 25% of the labels, within four standard errors of a coin: 4 * sqrt(0.25 / 1443) = 5.3%.
    assert sum(one.flipped_by_noise for one in labels) / len(labels) == pytest.approx(0.5, abs=0.053)


def test_4_a_model_learns_from_noisy_labels_what_people_like(lesson) -> None:
    text, folder = lesson("4_learn")
    # Where the policy is its own reference every margin is 0, and the loss -log(1/2) = 0.693 nats a pair.
    assert number(r"loss ([\d.]+) at the first", text) == 0.693
    assert number(r"(\d+) steps", text) == 35  # 1,200 pairs less 100 held out, 32 a step
    assert number(r"in ([\d.]+)% of 805", text) > 50
    assert (folder / "model" / "model.safetensors").exists()


def test_5_the_twin_of_the_reference_wins_half_and_talk_wins_by_length(lesson) -> None:
    text, folder = lesson("5_evaluate")
    found = re.findall(r"(\w+) +([\d.]+) ± [\d.]+ +([\d.]+) to ([\d.]+)", text)
    rows = {name: [float(part) for part in parts] for name, *parts in found}
    assert rows["twin"][1] <= 50 <= rows["twin"][2]
    assert rows["careful"][1] > 50
    assert rows["talkative"][0] > rows["careful"][0]
    assert number(r"talkative .* ([\d.]+) ± [\d.]+ +805/805", text) < rows["talkative"][1]
    assert (folder / "leaderboard.json").exists()


def test_6_pool_and_people_agree_on_the_best_and_part_over_rambling(lesson) -> None:
    text, folder = lesson("6_validate")
    rates = {name: (float(a), float(b)) for name, a, b in re.findall(r"(\w+) +([\d.]+)% +([\d.]+)%", text)}
    assert max(rates, key=lambda name: rates[name][0]) == max(rates, key=lambda name: rates[name][1]) == "careful"
    people, pool = (sorted(rates, key=lambda name: rates[name][side]) for side in (0, 1))
    # Spearman's formula for ranks without ties: 1 - 6 sum d^2 / (n (n^2 - 1)).
    squares = sum((people.index(name) - pool.index(name)) ** 2 for name in rates)
    assert number(r"Spearman ([\d.]+)", text) == pytest.approx(1 - 6 * squares / (6 * 35), abs=0.005)
    assert "the pool puts rambling above" in text
    assert (folder / "ranking.json").exists()


def test_7_the_page_says_what_the_terminal_says_and_asks_nobody_for_anything(lesson) -> None:
    text, folder = lesson("7_report")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "careful comes first" in text
    assert "careful comes first" in re.sub(r"<[^>]+>", "", page)
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
