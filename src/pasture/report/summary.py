"""The paragraph that says what the numbers say: who won, by how much, by whose judgement, and how sure that is."""

from collections.abc import Sequence

from pasture.core.hostile import on_one_line, shortened
from pasture.core.records import WinRate
from pasture.report.content import Difference, EqualLengthGap, Leaderboard
from pasture.report.numbers import percent, points

_NAME_CHARACTERS = 40
_NAMED = 5

MEADOW = (
    "These numbers come from the meadow, a miniature world built into Pasture: a model of 0.7 million "
    "parameters, a few hundred words, and people who are simulated too. Its truth is known, so it shows how the "
    "methods behave when labels are noisy. It says nothing about any real model or any real person."
)
"""The honest line for every report made in the built-in world."""


def sentences(leaderboards: tuple[Leaderboard, ...], baseline: str = "") -> list[str]:
    """The summary, one statement each; empty where nothing was judged.

    The first leaderboard leads. "Do not touch" speaks of the two intervals; where a paired difference is given, it
    speaks instead, being the sharper of the two. Intervals that overlap prove nothing, so nothing is said of them.
    """
    boards = [board for board in leaderboards if _judged(board)]
    if not boards:
        return ["Nothing has been judged, so there is no ranking."] if leaderboards else []
    lead = boards[0]
    best = _judged(lead)[0]
    lines = [_winner(lead, best), _against_reference(best)]
    start = lead.row(baseline)
    if start is not None and start.rate is not None and start.system != best.system:
        lines += [_progress(lead, best, start), _at_equal_length(lead, best, start)]
    others = [row for row in _judged(lead)[1:] if row.system != baseline]
    if others:
        lines.append(_next(lead, best, others[0]))
    lines += _other_opinions(lead, boards[1:])
    lines += _unjudged(leaderboards)
    return [line for line in lines if line]


def _judged(board: Leaderboard) -> list[WinRate]:
    return [row for row in board.ranked() if row.rate is not None]


def _with_interval(row: WinRate, board: Leaderboard) -> str:
    if row.interval_low is None or row.interval_high is None:
        return percent(row.rate)
    span = f"{percent(row.interval_low)} to {percent(row.interval_high)}"
    return f"{percent(row.rate)} ({board.confidence * 100:g}% interval {span})"


def _winner(board: Leaderboard, best: WinRate) -> str:
    others = _judged(board)[1:]
    tied = [row.system for row in others if row.rate == best.rate]
    level = f", level with {_some(tied)}" if tied else ""
    # Of one system alone there is no first place: the reference may win more often.
    first = f" comes first{level}: it" if others else ""
    return (
        f"Judged by {_judge(board.title)}, {_name(best.system)}{first} "
        f"wins {_with_interval(best, board)} of {best.judged:,} comparisons with {_name(best.reference)}."
    )


def _against_reference(best: WinRate) -> str:
    if best.interval_low is None or best.interval_high is None:
        return ""
    reference = _name(best.reference)
    if best.interval_low > 0.5:
        return f"That is more than half, so it beats {reference}."
    if best.interval_high < 0.5:
        return f"That is less than half, so it does not reach {reference}."
    return f"The interval holds 50%, so it cannot be told apart from {reference}."


def _progress(board: Leaderboard, best: WinRate, start: WinRate) -> str:
    gain, verdict = _set_apart(board, best, start)
    origin = f"From {_name(start.system)}, where training set out"
    return f"{origin}, it is a gain of {gain} over {percent(start.rate)}: {verdict}."


def _at_equal_length(board: Leaderboard, best: WinRate, start: WinRate) -> str:
    """What becomes of the gain at equal length, where its sign or the word on chance would be another."""
    paired = _paired(board, best.system, start.system)
    gap = None if paired is None else paired.at_equal_length
    if paired is None or gap is None or _direction(paired) == _direction(gap):
        return ""
    span = f"{points(gap.interval_low)} to {points(gap.interval_high)}"
    verdict = "chance does not explain it" if _direction(gap) else "that may be chance"
    return (
        f"Length is part of this: if all answers were as long as those of {_name(best.reference)}, it would be a "
        f"{'gain' if gap.difference >= 0 else 'loss'} of {points(abs(gap.difference))} points "
        f"({board.confidence * 100:g}% interval of the gain {span}): {verdict}."
    )


def _direction(found: Difference | EqualLengthGap) -> int:
    """1 or -1 where the whole interval lies on one side of 0, else 0: no sign can be told."""
    return int(found.interval_low > 0) - int(found.interval_high < 0)


def _next(board: Leaderboard, best: WinRate, other: WinRate) -> str:
    lead, verdict = _set_apart(board, best, other)
    return f"Next comes {_name(other.system)} with {percent(other.rate)}, {lead} behind: {verdict}."


def _set_apart(board: Leaderboard, best: WinRate, other: WinRate) -> tuple[str, str]:
    """How far `best` is ahead of `other`, and whether that can be chance."""
    paired = _paired(board, best.system, other.system)
    if paired is not None:
        span = f"{points(paired.interval_low)} to {points(paired.interval_high)}"
        lead = f"{points(paired.difference)} points ({board.confidence * 100:g}% interval {span})"
        return lead, _explained(board, paired)
    lead = f"{points((best.rate or 0.0) - (other.rate or 0.0))} points"
    if best.interval_low is None or other.interval_high is None:
        return lead, "there is no interval to tell whether it is chance"
    if best.interval_low > other.interval_high:
        return lead, "the two intervals do not touch"
    return lead, "no paired difference was computed that would tell whether it is chance"


def _explained(board: Leaderboard, paired: Difference) -> str:
    """Whether chance explains the lead of a system that was picked as the first of all after they were judged.

    Its p-value counts as often as there were others that might have come first (Bonferroni).
    """
    if paired.interval_low <= 0 <= paired.interval_high:
        return "it may be chance"
    count = len(_judged(board))
    if paired.p_value is not None and paired.p_value * (count - 1) > 1 - board.confidence:
        return f"the first of {count} was picked afterwards, so it may be chance"
    return "chance does not explain it"


def _paired(board: Leaderboard, system: str, other: str) -> Difference | None:
    for found in board.differences:
        if (found.system, found.baseline) == (system, other):
            return found
        if (found.system, found.baseline) == (other, system):
            return Difference(
                system=system,
                baseline=other,
                difference=-found.difference,
                interval_low=-found.interval_high,
                interval_high=-found.interval_low,
                p_value=found.p_value,
                at_equal_length=None if found.at_equal_length is None else found.at_equal_length.reversed(),
            )
    return None


def _other_opinions(lead: Leaderboard, boards: Sequence[Leaderboard]) -> list[str]:
    """What the other judges make of the order, those of one order in one sentence."""
    here = {row.system for row in _judged(lead)}
    alike: dict[tuple[str, ...], list[Leaderboard]] = {}
    for board in boards:
        order = tuple(row.system for row in _judged(board) if row.system in here)
        if len(order) > 1:
            alike.setdefault(order, []).append(board)
    return [_opinion(lead, order, group) for order, group in alike.items()]


def _opinion(lead: Leaderboard, order: Sequence[str], boards: Sequence[Leaderboard]) -> str:
    judges = _joined([f"by {_judge(board.title)}" for board in boards])
    judges = judges[0].upper() + judges[1:]
    if list(order) == [row.system for row in _judged(lead) if row.system in order]:
        return f"{judges}, the {len(order)} systems rank in the same order."
    rates = []
    for board in boards:
        best = board.row(order[0])
        assert best is not None  # noqa: S101  # its name was taken from this board
        rates.append(_with_interval(best, board))
    return (
        f"{judges}, the systems rank otherwise, from first to last: {_some(order)}; "
        f"there {_name(order[0])} wins {_joined(rates)}."
    )


def _joined(texts: Sequence[str]) -> str:
    return " and ".join([*([", ".join(texts[:-1])] if len(texts) > 1 else []), texts[-1]])


def _judge(title: str) -> str:
    """A judge's name for the midst of a sentence: what follows a comma stands in brackets."""
    name, comma, rest = _name(title).partition(", ")
    return f"{name} ({rest})" if comma else name


def _unjudged(boards: tuple[Leaderboard, ...]) -> list[str]:
    lines = []
    for board in boards:
        missing, asked = sum(row.unjudged for row in board.rows), sum(row.asked for row in board.rows)
        if missing:
            verb = "was" if missing == 1 else "were"
            put = f"Of {asked:,} comparisons put to {_judge(board.title)}"
            lines.append(f"{put}, {missing:,} {verb} not judged and count nowhere.")
    return lines


def _name(text: str) -> str:
    return shortened(on_one_line(shortened(text, 10 * _NAME_CHARACTERS)), _NAME_CHARACTERS)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(_name(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
