"""Steps of room 6: how the simulated annotators compare with the people they stand in for."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.files import read_records, write_json_lines, write_text
from pasture.core.ports import Annotator
from pasture.core.records import Comparison
from pasture.steps import Outcome, Task
from pasture.validate.agreement import analyze
from pasture.validate.cross_annotations import Columns, read_cross_annotations

LABELS_PER_PAIR = 4
"""As in the paper's cross-annotations (section 4.1)."""
_LABEL = {"first": 1, "second": 2, "tie": 1.5, "unjudged": None}


def annotators(task: Task) -> Outcome:
    """Agreement with people's majority, bias and variance of people, of the pool, and of the pool with label noise.

    Writes `cross_annotations.jsonl`, a row a label in AlpacaEval's columns, and `annotators.json`.
    """
    settings = task.settings
    pairs = read_records(task.inputs["pairs"] / "comparisons.jsonl", Comparison)[: settings["pairs"]]
    crowds = meadow_crowds(settings["label_flip_probability"])
    rows = []
    for number, (name, crowd) in enumerate(crowds.items()):
        task.progress(number, len(crowds))
        rows += label_rows(name, crowd, pairs)
    write_json_lines(task.folder / "cross_annotations.jsonl", rows)
    found = read_cross_annotations(rows, Columns())
    reports = [asdict(analyze(found[name], found["people"], settings["seed"])) for name in crowds]
    write_text(task.folder / "annotators.json", json.dumps(reports, indent=1) + "\n")
    return Outcome(details={"pairs": len(pairs), "labels": len(rows)})


def meadow_crowds(flips: float) -> dict[str, list[Annotator]]:
    """People, the pool, and the pool with label flips, by name: for each label of a pair one annotator."""
    return {
        "people": [MeadowPeople(seed=seed) for seed in range(LABELS_PER_PAIR)],
        "pool": [MeadowPool(seed=seed, label_flip_probability=0.0) for seed in range(LABELS_PER_PAIR)],
        f"pool, {100 * flips:g}% flips": [
            MeadowPool(seed=seed, label_flip_probability=flips) for seed in range(LABELS_PER_PAIR)
        ],
    }


def label_rows(name: str, crowd: Sequence[Annotator], pairs: Sequence[Comparison]) -> list[dict[str, object]]:
    """A row a label in AlpacaEval's columns, the labels of one annotator together."""
    return [
        {
            "instruction": pair.instruction.instruction,
            "input": pair.instruction.input,
            "output_1": pair.first.text,
            "output_2": pair.second.text,
            "annotator": name,
            "preference": _LABEL[label.preferred],
        }
        for who in crowd
        for pair, label in zip(pairs, who.annotate(pairs), strict=True)
    ]
