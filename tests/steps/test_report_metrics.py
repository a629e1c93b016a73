"""What the report reads of trainings."""

import json
from pathlib import Path

from pasture.report.content import Series
from pasture.steps.report import _metrics, _ppo_curves

TODAY = {"step": 1, "reward": 0.5, "objective/kl": 1.5, "completions/mean_length": 7.0, "entropy": 2.5}
EARLIER = {
    "step": 1, "objective/scores": 0.5, "objective/kl": 1.5, "completions/mean_length": 7.0, "policy/entropy": 2.5,
}  # fmt: skip


def test_a_training_of_before_is_drawn_as_one_of_today(tmp_path: Path) -> None:
    figures = []
    for row in (TODAY, EARLIER):
        (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        figures.append(_ppo_curves(_metrics(tmp_path)))
    assert figures[0] == figures[1]
    lines = [line for panel in figures[1].panels for line in panel.series if isinstance(line, Series)]
    # By hand, panel by panel: score, divergence, length, entropy.
    assert [line.y for line in lines] == [(0.5,), (1.5,), (7.0,), (2.5,)]
