"""Finished steps of a made-up study as files: what judges said of each system, curves, labels, picked steps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pasture.core.files import write_json_lines, write_records
from pasture.core.ports import silent
from pasture.core.records import Comparison, Completion, Instruction, Preference, Verdict
from pasture.core.run_folder import STEP_FILE
from pasture.core.seeds import stream
from pasture.recipe import parse, resolved_for_steps
from pasture.steps import Task, study, study_page

COUNT = 30
INSTRUCTIONS = [
    Instruction(id=f"i{number}", instruction=f"say {number}", source="x", split="evaluation") for number in range(COUNT)
]


def drawn(rate: float, name: str) -> list[Verdict]:
    """Verdicts on the instructions, this share of them wins by chance."""
    return ["second" if value < rate else "first" for value in stream(0, name).random(COUNT)]


@dataclass
class MadeStudy:
    """A study whose steps are put here one by one."""

    root: Path
    recipe: Mapping[str, Any]
    inputs: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, table: Mapping[str, Any]) -> "MadeStudy":
        """The study of a recipe that says `table`."""
        return cls(root, resolved_for_steps(parse({"name": "tiny", **table}, "study.toml")))

    def add(
        self, role: str, details: Mapping[str, Any] | None = None, *, seconds: float = 1.0, usd: float = 0.0
    ) -> Path:
        """The folder of a step that is finished."""
        folder = self.inputs[role] = self.root / role
        folder.mkdir(parents=True)
        record = {"seconds": seconds, "cost_usd": usd, "details": dict(details or {})}
        (folder / STEP_FILE).write_text(json.dumps(record), encoding="utf-8")
        return folder

    def data(self, run: str) -> None:
        """The instructions of a run."""
        write_records(self.add(f"{run}/1-data") / "evaluation.jsonl", INSTRUCTIONS)

    def judge(
        self, run: str, system: str, said: Mapping[str, Sequence[Verdict]], *, split: str = "evaluation", each: int = 1
    ) -> None:
        """A system's answers to a set and what each judge said of them, with `each` labels of one after the other."""
        details = {judge: {"asked": len(verdicts)} for judge, verdicts in said.items()}
        folder = self.add(f"{run}/3-annotate/{split}/{system}", details)
        comparisons = [
            Comparison.of(
                one,
                Completion(instruction_id=one.id, text="reference", system="demonstrations", seed=0),
                Completion(instruction_id=one.id, text=f"{system} {one.id}", system=system, seed=0),
            )
            for one in INSTRUCTIONS
        ]
        write_records(folder / "comparisons.jsonl", comparisons)
        for judge, verdicts in said.items():
            pairs = zip([one for one in comparisons for _ in range(each)], verdicts, strict=True)
            rows = [_preference(comparison.id, judge, verdict) for comparison, verdict in pairs]
            write_records(folder / f"{judge}.jsonl", rows)

    def labels(self, run: str, verdicts: Sequence[Verdict]) -> None:
        """What a run's arm learns from."""
        folder = self.add(f"{run}/3-annotate/preference", {"asked": len(verdicts)})
        rows = [_preference(str(number), "a", verdict) for number, verdict in enumerate(verdicts)]
        write_records(folder / "preferences.jsonl", rows)

    def curve(self, run: str, system: str, judge: str, places: Mapping[int, Sequence[float | None]]) -> None:
        """A method's way, with the credit of each instruction at each step."""
        folder = self.add(f"{run}/5-evaluate/curve/{system}")
        rows = [{"system": system, "judge": judge, "progress": step} for step in places]
        more = {"progress_name": "step", "rate": None, "standard_error": None}
        points = [{**row, **more, "kl": 0.1 * number, "proxy": 1.0 * number} for number, row in enumerate(rows)]
        outcomes = [{**row, "credit": list(credit)} for row, credit in zip(rows, places.values(), strict=True)]
        write_json_lines(folder / "points.jsonl", points)
        write_json_lines(folder / "outcomes.jsonl", outcomes)

    def picked(self, run: str, system: str) -> None:
        """A training of which a step was picked, and its answers."""
        found = {"step": 2, "win_rate": 0.5, "standard_error": 0.1, "split": "validation"}
        folder = self.add(f"{run}/5-evaluate/selection/{system}")
        (folder / "selection.json").write_text(json.dumps(found), encoding="utf-8")
        self.add(f"{run}/2-generate/evaluation/{system}")

    def results(self) -> dict[str, Any]:
        """What `study.results` writes, by file, as a step that the page reads."""
        told = ("3-annotate/", "5-evaluate/", "2-generate/validation/")
        inputs = {role: path for role, path in self.inputs.items() if role.partition("/")[2].startswith(told)}
        settings = {"study": self.recipe["study"], "baselines": list(self.recipe["baselines"]), "seed": 0}
        folder = self.add("study")
        study.results(Task(folder, inputs, settings, silent))
        return {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}

    def page(self) -> dict[str, Any]:
        """What the page shows."""
        folder = self.root / "page"
        folder.mkdir()
        study_page.page(Task(folder, self.inputs, {"recipe": self.recipe}, silent))
        shown: dict[str, Any] = json.loads((folder / "study.json").read_text())
        return shown


def _preference(comparison: str, judge: str, verdict: Verdict) -> Preference:
    error = "no reply" if verdict == "unjudged" else None
    return Preference(comparison_id=comparison, annotator=judge, preferred=verdict, cost_usd=0.0, error=error)
