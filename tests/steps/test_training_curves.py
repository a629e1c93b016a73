"""What the report draws of trainings: whichever were run, by what each of them measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pasture.report.content import Figure, Series
from pasture.steps.training_curves import run_figures, study_figure, trainings

TODAY = {"step": 1, "reward": 0.5, "objective/kl": 1.5, "completions/mean_length": 7.0, "entropy": 2.5}
EARLIER = {
    "step": 1, "objective/scores": 0.5, "objective/kl": 1.5, "completions/mean_length": 7.0, "policy/entropy": 2.5,
}  # fmt: skip
DPO = [{"step": 1, "loss": 0.7, "rewards/margins": 0.1}, {"step": 2, "loss": 0.6, "eval_loss": 0.65}]
ROUNDS = [{"step": 1, "reward": 0.2}, {"step": 2, "reward": 0.4}]


def logged(folder: Path, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> dict[str, Path]:
    """Folders of trainings that logged these rows, by the role that a run's report knows them by."""
    for name, own in rows.items():
        (folder / name).mkdir()
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return {f"4-learn/{name}": folder / name for name in rows}


def lines(figure: Figure) -> dict[str, dict[str, tuple[float | None, ...]]]:
    """The drawn values by panel and line."""
    return {
        panel.title: {line.label: line.y for line in panel.series if isinstance(line, Series)}
        for panel in figure.panels
    }


def test_a_training_of_before_is_drawn_as_one_of_today(tmp_path: Path) -> None:
    found = []
    for name, row in (("today", TODAY), ("earlier", EARLIER)):
        (tmp_path / name).mkdir()
        found.append(run_figures(trainings(logged(tmp_path / name, {"ppo": [row]})), {}))
    assert found[0] == found[1]
    # By hand, panel by panel: score, divergence, length, entropy.
    assert [list(panel.values()) for panel in lines(found[1][0]).values()] == [[(0.5,)], [(1.5,)], [(7.0,)], [(2.5,)]]


def test_every_training_has_a_panel_whatever_its_method_is_called(tmp_path: Path) -> None:
    rows = {"mine": [{"step": 1, "loss": 0.9}], "dpo": DPO, "expert": ROUNDS, "rloo": [TODAY], "sft": DPO[:1]}
    own, others = run_figures(trainings(logged(tmp_path, rows)), {"expert": "round"})
    assert own.name == "learning-rloo"
    assert lines(others) == {
        "SFT loss, nats a token": {"loss": (0.7,)},
        "mine: loss": {"loss": (0.9,)},
        "dpo: loss": {"training": (0.7, 0.6), "held out": (0.65,)},
        "expert: mean reward of its answers": {"reward": (0.2, 0.4)},
    }
    assert [panel.x_label for panel in others.panels if hasattr(panel, "x_label")] == ["step", "step", "step", "round"]


def test_trainings_whose_names_differ_in_what_a_file_name_loses_have_a_figure_each(tmp_path: Path) -> None:
    long = "a" * 80
    names = ["my_rl", "my-rl", f"{long}1", f"{long}2"]
    found = run_figures(trainings(logged(tmp_path, {name: [TODAY] for name in names})), {})
    assert [figure.title for figure in found] == [f"How {name} went" for name in names]
    files = [figure.name for figure in found]
    assert files[:2] == ["learning-my-rl", "learning-my-rl-2"]
    assert len(set(files)) == len(files)
    assert max(map(len, files)) <= 64


def test_steps_that_trained_nothing_and_metrics_without_a_loss_leave_no_panel(tmp_path: Path) -> None:
    inputs = logged(tmp_path, {"reward_model": [{"step": 1, "eval_accuracy": 0.6}]})
    (tmp_path / "best_of_n").mkdir()
    assert run_figures(trainings({**inputs, "4-learn/best_of_n": tmp_path / "best_of_n"}), {}) == []
    assert study_figure({"people": trainings(inputs)}, {}) is None


def test_a_study_draws_a_line_for_each_arm_and_what_arms_share_once() -> None:
    simulated = [{**row, "loss": 0.5} for row in DPO]
    figure = study_figure(
        {"simulation": {"sft": DPO[:1], "dpo": simulated}, "people": {"sft": DPO[:1], "dpo": DPO}}, {}
    )
    assert figure is not None
    assert lines(figure) == {
        "SFT loss, nats a token": {"loss": (0.7,)},
        "dpo: loss": {"simulation": (0.5, 0.5), "people": (0.7, 0.6)},
    }
