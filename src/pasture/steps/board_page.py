"""Leaderboards in the words of the report: what the pages of a run, of an evaluation and of the demo have alike."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pasture.core.records import Comparison, Preference
from pasture.core.seeds import uniform
from pasture.evaluate.audit import AuditFinding
from pasture.evaluate.board import Board
from pasture.evaluate.human_corrected import CorrectedRate
from pasture.evaluate.length_control import EqualLength
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.win_rate import PairedDifference, paired_difference, summarize_all
from pasture.report.content import (
    Answer,
    Column,
    Difference,
    EqualLengthGap,
    Fact,
    Judgement,
    Leaderboard,
    Sample,
    Table,
)
from pasture.validate.agreement import AnnotatorReport

Rows = Sequence[Mapping[str, Any]]
"""Rows of a board as `BoardRow.to_dict` gives them, and as a run's leaderboard.json holds them."""

OUTCOMES = {"first": "loss", "second": "win", "tie": "tie", "unjudged": "unjudged"}
"""What a verdict means for the system, which stands second beside the reference."""

_MOST_PAIRED = 6
"""Systems of which every pair is compared: 15 pairs are still read, and Holm's correction leaves them their power."""
_MOST_SOURCES = 12
_MOST_ANSWERS = 8
_NORMAL_95 = 1.96


def leaderboards(board: Board, title: str | None = None, differences: Sequence[Difference] = ()) -> list[Leaderboard]:
    """The board for the page, one for each judge and reference; `title` names the judge of a board that has one."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in board.rows:
        groups.setdefault((row.win_rate.judge, row.win_rate.reference), []).append(row)
    found = []
    for (judge, _), rows in groups.items():
        days = sorted({row.date for row in rows if row.date})
        found.append(
            Leaderboard(
                title=title or judge,
                rows=tuple(row.win_rate for row in rows),
                differences=tuple(differences) if len(groups) == 1 else (),
                note=", ".join([*([judge] if title else []), *([" to ".join(days)] if days else [])]),
            )
        )
    return found


def differences_from(systems: Sequence[Outcomes], baseline: str, seed: int) -> list[Difference]:
    """The paired comparison of every other system with `baseline`, and of the winner with the next of those others.

    None where `baseline` is not among them. A system of which nothing was judged has no place in it.
    """
    systems = _judged(systems)
    by_name = {outcomes.system: outcomes for outcomes in systems}
    if baseline not in by_name:
        return []
    pairs = [(outcomes, by_name[baseline]) for name, outcomes in by_name.items() if name != baseline]
    best, *rest = sorted(systems, key=_rank)
    following = [outcomes for outcomes in rest if outcomes.system != baseline]
    if best.system != baseline and following:
        pairs.append((best, following[0]))
    return [_difference(paired_difference(a, b, seed)) for a, b in pairs]


def differences_among(
    systems: Sequence[Outcomes], baseline: str, seed: int, at_equal_length: EqualLength | None = None
) -> list[Difference]:
    """The paired comparison of every pair: those with `baseline` first, then the better system of each over the other.

    A reader compares whichever two systems he cares for, so all pairs are there and p is corrected for them all; with
    no choice left to the numbers, the correction also covers who came first. Of more than six systems they would be
    too many to read, and the many null ones would cost those that matter their power: see `differences_from`, from
    the first where `baseline` is not among them. A pair that was judged on no common instruction is left out.
    """
    judged = sorted(_judged(systems), key=_rank)
    if len(judged) > _MOST_PAIRED:
        start = baseline if baseline in {outcomes.system for outcomes in judged} else judged[0].system
        found = differences_from(systems, start, seed)
    else:
        with_baseline = [
            (one, two) for one in _judged(systems) for two in judged if one.system != two.system == baseline
        ]
        others = [pair for pair in combinations(judged, 2) if baseline not in {outcomes.system for outcomes in pair}]
        pairs = [(a, b) for a, b in [*with_baseline, *others] if _share(a, b)]
        found = [_difference(paired_difference(a, b, seed)) for a, b in pairs]
    return [_with_gap(one, at_equal_length) for one in found]


def _judged(systems: Sequence[Outcomes]) -> list[Outcomes]:
    return [outcomes for outcomes in systems if outcomes.judged.any()]


def _share(a: Outcomes, b: Outcomes) -> bool:
    return not set(a.instruction[a.judged]).isdisjoint(b.instruction[b.judged])


def _with_gap(found: Difference, at_equal_length: EqualLength | None) -> Difference:
    gap = None if at_equal_length is None else at_equal_length.gap(found.system, found.baseline)
    if gap is None:
        return found
    difference, (low, high) = gap
    told = EqualLengthGap(difference=difference, interval_low=low, interval_high=high)
    return found.model_copy(update={"at_equal_length": told})


def leaderboard_of(systems: Sequence[Outcomes], *, title: str, baseline: str = "", seed: int = 0) -> Leaderboard:
    """The leaderboard, for a page, of systems that one judge compared with one reference, with paired differences.

    `title` is the judge as it reads after "by"; the pairs with `baseline`, where it is one of the systems, come first.

    Raises:
        DataError: if the systems were judged by several judges or against several references.
    """
    rows = tuple(summarize_all(systems, seed))
    return Leaderboard(title=title, rows=rows, differences=tuple(differences_among(systems, baseline, seed)))


def _rank(outcomes: Outcomes) -> tuple[float, str]:
    """As leaderboards sort: by win rate, equal ones by name, those without any judgement last."""
    credit = outcomes.credit[outcomes.judged]
    return (-math.fsum(credit) / len(credit) if len(credit) else math.inf, outcomes.system)


def _difference(found: PairedDifference) -> Difference:
    return Difference(
        system=found.system_a,
        baseline=found.system_b,
        difference=found.difference,
        interval_low=found.interval.low,
        interval_high=found.interval.high,
        p_value=found.p_value,
    )


def source_table(title: str, rows: Rows) -> Table | None:
    """Win rates by source of instructions; None where there is but one."""
    sources = sorted({source for row in rows for source in row["by_source"]})
    if len(sources) < 2:
        return None
    shown = sources[:_MOST_SOURCES]
    left_out = len(sources) - len(shown)
    more = f" The first {len(shown)} of {len(sources)} sources; the CSV holds all." if left_out else ""
    counted = rows[0]["by_source"]
    return Table(
        title=f"By source, judged by {title}",
        caption=f"Win rate on each source of instructions, below it the 95% interval; in brackets how many of "
        f"{rows[0]['win_rate']['system']} were judged. Where few were, intervals are wide: two systems whose intervals "
        f"overlap far are not told apart there.{more}",
        columns=(
            Column(title="System"),
            *(
                Column(title=f"{source} ({counted.get(source, {'judged': 0})['judged']})", format="figure")
                for source in shown
            ),
        ),
        rows=tuple(
            (row["win_rate"]["system"], *(_rate_with_interval(row["by_source"].get(source)) for source in shown))
            for row in rows
        ),
    )


def _rate_with_interval(found: Mapping[str, Any] | None) -> str | None:
    """The rate on a source, and below it the interval; None where nothing was judged."""
    if found is None or found["rate"] is None:
        return None
    low, high = wilson_interval(found["rate"], found["judged"])
    return f"{100 * found['rate']:.1f}%\n{100 * low:.0f} to {100 * high:.0f}"


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """The 95% interval of a share of `count` judgements; ties, which vary less than wins, make it a little too wide.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    squared = _NORMAL_95**2
    middle = (rate + squared / (2 * count)) / (1 + squared / count)
    half = _NORMAL_95 * math.sqrt(rate * (1 - rate) / count + squared / (4 * count**2)) / (1 + squared / count)
    return max(0.0, middle - half), min(1.0, middle + half)


_SHARES = {
    "share_longer": Column(title="Longer", format="percent", meaning="How often its answer is longer."),
    "share_list": Column(title="Lists", format="percent", meaning="How often its answer is laid out as a list."),
    "share_shown_first": Column(title="Shown first", format="percent", meaning="How often the judge saw it first."),
    "rate_when_first": Column(title="Rate first", format="percent", meaning="Its win rate where it was shown first."),
    "rate_when_second": Column(title="Rate second", format="percent", meaning="Its win rate where it came second."),
}


def length_table(title: str, rows: Rows) -> Table:
    """Win rates at equal length where they are known, and what the answers look like."""
    controlled = any(row["length_controlled"] for row in rows)
    equal = (
        Column(title="Equal length", format="percent", meaning=_method(rows)),
        Column(title="± SE", format="percent", meaning="Standard error of the rate at equal length, by bootstrap."),
    )
    return Table(
        title=f"Length and place, judged by {title}",
        caption="What the answers look like, and what their place was worth.",
        columns=(
            Column(title="System"),
            *(equal if controlled else ()),
            Column(title="Length", format="count", meaning="Mean characters of its answers."),
            Column(title="Reference", format="count", meaning="Mean characters of the reference's answers."),
            *_SHARES.values(),
        ),
        rows=tuple(
            (
                row["win_rate"]["system"],
                *(_equal_length(row) if controlled else ()),
                row["win_rate"]["mean_length"],
                row["mean_reference_length"],
                *(row[name] for name in _SHARES),
            )
            for row in rows
        ),
    )


def _method(rows: Rows) -> str:
    methods = sorted({row["length_controlled"]["method"] for row in rows if row["length_controlled"]})
    return f"The win rate if its answers were as long as the reference's ({', '.join(methods)})."


def _equal_length(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    found = row["length_controlled"]
    return (None, None) if found is None else (found["rate"], found["standard_error"])


def audit_table(findings: Sequence[AuditFinding]) -> Table:
    """What the systems that deserve to lose have won."""
    return Table(
        title="Audit",
        caption="Systems that deserve to lose, before the same judge.",
        columns=(
            Column(title="System"),
            Column(title="What it answers"),
            Column(title="Win rate", format="percent"),
            Column(title="At most", format="percent", meaning="What such a system should win at most."),
            Column(title="Judged", format="count"),
            Column(title="Verdict"),
        ),
        rows=tuple(
            (
                found.name,
                found.what,
                found.win_rate.rate,
                found.expected_at_most,
                found.win_rate.judged,
                "more than it should" if found.alarming else "as it should",
            )
            for found in findings
        ),
    )


def corrected_table(corrected: Mapping[str, Sequence[CorrectedRate]]) -> Table:
    """The win rates by people, estimated from their labels and the judge's, by system."""
    return Table(
        title="Corrected by people's labels",
        caption="The judge's win rates, turned into those that people would give.",
        columns=(
            Column(title="System"),
            Column(title="Method"),
            Column(title="Corrected", format="percent"),
            Column(title="From", format="percent", meaning="Lower end of the 95% interval."),
            Column(title="To", format="percent", meaning="Upper end of the 95% interval."),
            Column(title="Judge alone", format="percent"),
            Column(title="Labels alone", format="percent"),
            Column(title="Labels", format="count", meaning="Instructions that carry people's labels."),
        ),
        rows=tuple(
            (system, one.method, one.rate, *one.interval, one.judge_rate, one.human_rate, one.labelled)
            for system, results in corrected.items()
            for one in results
        ),
    )


_MEASURES = {
    "agreement": Column(
        title="Agrees",
        format="percent",
        meaning="One label with the majority of people's; for people themselves, one with the majority of the others'.",
    ),
    "bias": Column(
        title="Bias", format="percent", meaning="How far the majority of its labels is from people's majority."
    ),
    "variance": Column(
        title="Variance", format="percent", meaning="How far one label is from the majority of its others."
    ),
    "alpha": Column(
        title="Alpha", format="number", digits=2, meaning="Krippendorff's: 1 is full agreement with itself, 0 chance."
    ),
    "prefer_longer": Column(
        title="Prefers longer", format="percent", meaning="Among answers of clearly different length."
    ),
    "prefer_first": Column(
        title="Prefers first", format="percent", meaning="The answer listed first; 50% is no leaning."
    ),
}


def annotators_table(reports: Sequence[AnnotatorReport], caption: str) -> Table:
    """What each annotator is worth, agreement with its 95% interval."""
    return Table(
        title="How the annotators compare",
        caption=caption,
        columns=(Column(title="Annotator"), *_MEASURES.values(), Column(title="Agreement, 95% interval")),
        rows=tuple(
            (
                report.annotator,
                *(None if (found := getattr(report, name)) is None else found.value for name in _MEASURES),
                "" if report.agreement is None else "{:.1%} to {:.1%}".format(*report.agreement.interval),
            )
            for report in reports
        ),
    )


def breakdowns(title: str, rows: Rows) -> list[Table]:
    """The tables that stand behind one judge's leaderboard."""
    by_source = source_table(title, rows)
    return [*([by_source] if by_source else []), length_table(title, rows)]


def judge_facts(board: Board) -> list[Fact]:
    """Who judged, when, and all that the verdicts depend on."""
    judges = sorted({row.win_rate.judge for row in board.rows})
    facts = [Fact(name="Judge", value=", ".join(judges))]
    if board.date:
        facts.append(Fact(name="Judged on", value=board.date))
    if board.judge_identity:
        facts.append(Fact(name="Judge's identity", value=json.dumps(dict(board.judge_identity), sort_keys=True)))
    return facts


def samples(
    comparisons: Sequence[Comparison], judgements: Mapping[str, Sequence[Preference]], count: int
) -> tuple[Sample, ...]:
    """A few instructions, drawn by content, with the reference's answer, the systems' and what each judge said.

    `judgements` holds preferences by the judge's title. The reference stands first in every comparison.
    """
    said: dict[str, list[Judgement]] = {}
    for title, preferences in judgements.items():
        for preference in preferences:
            one = Judgement.model_validate({"judge": title, "outcome": OUTCOMES[preference.preferred]})
            said.setdefault(preference.comparison_id, []).append(one)
    asked = {comparison.instruction.id: comparison for comparison in comparisons}
    chosen = sorted(asked, key=lambda one: uniform(0, "report-sample", one))[:count]
    answers: dict[str, list[Answer]] = {one: [Answer(completion=asked[one].first)] for one in chosen}
    for comparison in comparisons:
        own = answers.get(comparison.instruction.id)
        if own is not None and len(own) <= _MOST_ANSWERS:
            own.append(Answer(completion=comparison.second, judgements=tuple(said.get(comparison.id, ()))))
    return tuple(Sample(instruction=asked[one].instruction, answers=tuple(answers[one])) for one in chosen)
