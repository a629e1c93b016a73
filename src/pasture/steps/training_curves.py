"""How every training of a run went, from the metrics that it left: its reward where it has one, else its loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pasture.core.files import read_json_lines
from pasture.plan import REWARD_MODEL, SFT
from pasture.report.content import Figure, Panel, Series
from pasture.report.figure_names import figure_names

Rows = Sequence[Mapping[str, object]]
"""What a training logged, a row for each step or round; docs/metrics.md says what the names mean."""

_LEARN = "4-learn/"
_METRICS = "metrics.jsonl"
_EARLIER_NAMES = {"objective/scores": "reward", "policy/entropy": "entropy"}
"""What figures were called in folders of trainings that are as good as today's."""
_OF_ANSWERS = (
    ("reward", "Reward model's score", "score"),
    ("objective/kl", "KL to the SFT model, nats an answer", "KL"),
    ("completions/mean_length", "Answer length, tokens", "length"),
    ("entropy", "Entropy, nats a token", "entropy"),
)
"""Names of metrics of a policy's own answers, with the title of their panel and the label of their line."""
_TITLES = {"sft": "SFT loss, nats a token", "reward_model": "Reward model's loss, nats a pair"}


def trainings(inputs: Mapping[str, Path]) -> dict[str, Rows]:
    """What each training among a run's steps logged, by its name; the stages that others build on come first."""
    found = {
        role.removeprefix(_LEARN): metrics(folder)
        for role, folder in inputs.items()
        if role.startswith(_LEARN) and (folder / _METRICS).is_file()
    }
    stages = [name.removeprefix(_LEARN) for name in (SFT, REWARD_MODEL)]
    return {name: found[name] for name in [*stages, *found] if name in found}


def metrics(folder: Path) -> Rows:
    """The rows that a training left in its folder, under today's names."""
    rows = read_json_lines(folder / _METRICS)
    return [{_EARLIER_NAMES.get(name, name): value for name, value in row.items()} for row in rows]


def run_figures(found: Mapping[str, Rows], progress: Mapping[str, str]) -> list[Figure]:
    """A figure for each training that measures its own answers on the way, and one that holds all others.

    `progress` names what a training goes on by, where that is no step.
    """
    figures, rest = [], []
    files = figure_names("learning", list(found))
    for name, rows in found.items():
        x_label = progress.get(name, "step")
        panels = _answer_panels(rows, x_label)
        if len(panels) > 1:
            caption = f"Means over each {x_label}'s own answers."
            figures.append(Figure(name=files[name], title=f"How {name} went", caption=caption, panels=panels))
        elif (panel := _one_panel(name, {name: rows}, x_label)) is not None:
            rest.append(panel)
    if rest:
        caption = "What each minimizes on what it learns from; where rows were held out, the same on them."
        figures.append(Figure(name="training", title="How the other trainings went", caption=caption,
                              panels=tuple(rest)))  # fmt: skip
    return figures


def study_figure(by_arm: Mapping[str, Mapping[str, Rows]], progress: Mapping[str, str]) -> Figure | None:
    """A panel for each training of a study, a line for each arm that has it; None where nothing was trained."""
    names = list(dict.fromkeys(name for found in by_arm.values() for name in found))
    panels = []
    for name in names:
        lines = {arm: found[name] for arm, found in by_arm.items() if name in found}
        panel = _one_panel(name, lines, progress.get(name, "step"))
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    return Figure(
        name="training",
        title="Reward or loss of every training",
        caption="The first run of each arm; a training that several arms share is drawn once. Scores are those of "
        "each arm's own reward model, so lines of two arms cannot be laid beside each other in height.",
        panels=tuple(panels),
    )


def _answer_panels(rows: Rows, x_label: str) -> tuple[Panel, ...]:
    """The panels of metrics of own answers that the rows have; none where there is no reward among them."""
    measured = [one for one in _OF_ANSWERS if any(one[0] in row for row in rows)]
    if not measured or measured[0][0] != "reward":
        return ()
    return tuple(
        Panel(title=title, x_label=x_label, series=(Series.of(label, rows, x="step", y=name),))
        for name, title, label in measured
    )


def _one_panel(name: str, lines: Mapping[str, Rows], x_label: str) -> Panel | None:
    """Reward or loss of one training, a line for each label; None where it logged neither."""
    first = next(iter(lines.values()))
    measured = next((one for one in ("reward", "loss") if any(one in row for row in first)), None)
    if measured is None:
        return None
    title = _TITLES.get(name, f"{name}: {'mean reward of its answers' if measured == 'reward' else 'loss'}")
    drawn = _without_repetition(lines)
    if len(drawn) > 1:
        series = [Series.of(label, rows, x="step", y=measured) for label, rows in drawn.items()]
    else:
        held_out = [row for row in first if "eval_loss" in row] if measured == "loss" else []
        series = [Series.of("training" if held_out else measured, first, x="step", y=measured)]
        series += [Series.of("held out", held_out, x="step", y="eval_loss")] if held_out else []
    return Panel(title=title, x_label=x_label, series=tuple(series))


def _without_repetition(lines: Mapping[str, Rows]) -> dict[str, Rows]:
    """Each training once: arms that share one step have the same rows."""
    found: dict[str, Rows] = {}
    for label, rows in lines.items():
        if rows not in found.values():
            found[label] = rows
    return found
