"""A run's instructions and labels may come from files: one line of a recipe moves a method to other people's labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import DataError, LeakError
from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.plan import Plan, build
from pasture.recipe import parse
from pasture.steps import Task, learn
from pasture.steps import data as steps
from tests.learn import toy

LEARN: dict[str, Any] = {
    "sft": {"method": "sft", "epochs": 1},
    "reward_model": {"method": "reward_model", "epochs": 1},
    "dpo": {"method": "dpo", "epochs": 1},
}


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"instruction": f"Say {n}", "input": "", "output": f"{n}!", **more} for n in range(count)]


def write(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def planned(**changes: Any) -> Plan:
    return build(parse({"name": "tiny", "learn": LEARN, **changes}, "tiny.toml"))


def changed(before: Plan, after: Plan) -> set[str]:
    return {name for name, key in after.keys.items() if before.keys.get(name) != key}


def do(plan: Plan, name: str, folder: Path, **inputs: Path) -> dict[str, object]:
    [step] = [one for one in plan.steps if one.name == name]
    work = getattr(steps, step.work.split(".")[1])
    folder.mkdir()
    return dict(work(Task(folder, inputs, step.settings, lambda *_, **__: None)).details)


def test_one_line_moves_a_method_from_simulated_to_other_preferences(tmp_path: Path):
    pairs = [{"instruction": "Say", "output_1": f"{n}", "output_2": "x", "preference": 1 + n % 2} for n in range(6)]
    file = write(tmp_path / "people.json", pairs)
    simulated, other = planned(), planned(feedback={"file": file})
    moved = changed(simulated, other)
    assert {"2-generate/preference", "3-annotate/preference", "4-learn/reward_model", "4-learn/dpo"} <= moved
    assert not {"1-data", "4-learn/sft", "2-generate/evaluation/sft", "2-generate/evaluation/base"} & moved
    details = do(other, "2-generate/preference", tmp_path / "pairs")
    assert details == {"preferences": 6, "left_out": {}}
    # Nobody was asked for them, so that a study's page has no price for them.
    assert do(other, "3-annotate/preference", tmp_path / "labels", pairs=tmp_path / "pairs") == {"given": 6}
    comparisons = read_records(tmp_path / "pairs" / "comparisons.jsonl", Comparison)
    preferences = read_records(tmp_path / "labels" / "preferences.jsonl", Preference)
    assert [one.preferred for one in preferences] == ["first", "second"] * 3
    assert [one.comparison_id for one in preferences] == [one.id for one in comparisons]


def test_labels_of_a_changed_file_are_learned_from_anew(tmp_path: Path):
    pairs = [{"instruction": "Say", "output_1": "a", "output_2": "b", "preference": 1}]
    before = planned(feedback={"file": write(tmp_path / "people.json", pairs)})
    write(tmp_path / "people.json", [{**pairs[0], "preference": 2}])
    assert "4-learn/dpo" in changed(before, planned(feedback={"file": str(tmp_path / "people.json")}))


def test_instructions_of_files_become_a_runs_splits(tmp_path: Path):
    sizes = {"sft": 4, "preference": 3, "unlabeled": 2, "validation": 2, "evaluation": 3}
    source = write(tmp_path / "mine.json", rows(11))
    other = [{**row, "instruction": f"Tell {n} apart"} for n, row in enumerate(rows(3, dataset="koala"))]
    reference = write(tmp_path / "reference.json", other)
    data = {"source": source, "evaluation_source": reference, **sizes}
    plan = planned(data=data)
    assert sizes.items() <= do(plan, "1-data", tmp_path / "data").items()
    for name, size in sizes.items():
        instructions = read_records(tmp_path / "data" / f"{name}.jsonl", Instruction)
        assert len(instructions) == size
        if name in ("sft", "validation", "evaluation"):
            answers = read_records(tmp_path / "data" / f"{name}-demonstrations.jsonl", Completion)
            assert [one.instruction_id for one in answers] == [one.id for one in instructions]
    assert {one.source for one in read_records(tmp_path / "data" / "evaluation.jsonl", Instruction)} == {"koala"}
    write(tmp_path / "mine.json", rows(12))
    assert "1-data" in changed(plan, planned(data=data))


def test_what_leaks_into_training_is_refused_left_out_or_allowed(tmp_path: Path):
    # By hand, in triples of words: five of seven (0.71) in common with the one, four of six (0.67) with the other.
    leaking, kept = "one two three four five six seven eight", "one two three four five six"
    texts = [kept, leaking, *(f"Say {n}" for n in range(9))]
    source = write(tmp_path / "mine.json", [{"instruction": text, "output": "!"} for text in texts])
    evaluated = [{"instruction": "one two three four five six seven nine", "output": "!"}]
    reference = write(tmp_path / "reference.json", evaluated)
    training = {"sft": 8, "preference": 1, "unlabeled": 1, "validation": 1}
    data = {"source": source, "evaluation_source": reference, **training, "evaluation": 1}
    with pytest.raises(LeakError, match=r"1 of 1 .* set data\.leaks to \"leave_out\" or \"allow\"\."):
        do(planned(data=data), "1-data", tmp_path / "refused")
    for leaks, left in (("leave_out", {*texts} - {leaking}), ("allow", {*texts})):
        folder = tmp_path / leaks
        details = do(planned(data={**data, "leaks": leaks}), "1-data", folder)
        splits = {name: read_records(folder / f"{name}.jsonl", Instruction) for name in training}
        assert {one.instruction for rows in splits.values() for one in rows} == left
        assert {name: details[name] for name in training} == {name: len(rows) for name, rows in splits.items()}
        assert (details["leaks"], details["evaluation"]) == (1, 1)
        answers = read_records(folder / "sft-demonstrations.jsonl", Completion)
        assert [one.instruction_id for one in answers] == [one.id for one in splits["sft"]]


def test_instructions_to_compare_on_need_a_references_outputs(tmp_path: Path):
    content = [{**row, "output": None} for row in rows(3)]
    sizes = {"sft": 4, "preference": 3, "unlabeled": 2, "validation": 2, "evaluation": 3}
    reference = write(tmp_path / "reference.json", content)
    data = {"source": write(tmp_path / "mine.json", rows(11)), "evaluation_source": reference, **sizes}
    with pytest.raises(DataError, match=r"the split 'evaluation' needs an output.*data\.evaluation_source"):
        do(planned(data=data), "1-data", tmp_path / "data")
    with pytest.raises(DataError, match="no such file"):
        planned(data={**data, "source": str(tmp_path / "none.json")})


def test_a_recipe_may_leave_out_prompts_that_are_too_long(tmp_path: Path):
    base = toy.save_base(tmp_path / "base")
    short = toy.demonstrations(4)
    long = Instruction(id="long", instruction="w1 " * 40, source="toy", split="sft")
    pairs = [*short, (long, toy.completion(long, "w2"))]
    data = tmp_path / "data"
    write_records(data / "sft.jsonl", [instruction for instruction, _ in pairs])
    write_records(data / "sft-demonstrations.jsonl", [answer for _, answer in pairs])
    settings = {
        "config": {"epochs": 1, "batch_size": 4, "max_tokens": 32},
        "seed": 0,
        "template": "plain",
        "demonstrations": "sft",
        "start": str(base),
    }

    def trained(*, leave_out_long: bool) -> dict[str, object]:
        (tmp_path / str(leave_out_long)).mkdir()
        told = {**settings, "leave_out_long": leave_out_long}
        return dict(learn.sft(Task(tmp_path / str(leave_out_long), {"data": data}, told, toy.quiet)).details)

    assert trained(leave_out_long=True) == {"demonstrations": 4, "left_out_long": 1}
    card = json.loads((tmp_path / "True" / "model" / "pasture.json").read_text())
    assert (card["method"], card["template"], card["start"]) == ("sft", "plain", str(base))
    assert card["data"]["learned from"]["count"] == 4
    with pytest.raises(DataError, match="expected a prompt of 1 to 31 tokens"):
        trained(leave_out_long=False)
