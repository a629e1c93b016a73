"""What moves a judge besides quality: position, length, lists, chance, and what it refuses to judge.

Each pair is asked about in both orders, and once more in both, so that a leaning to a position is told apart from
chance. Length and lists are measured on verdicts that stood in both orders or were ties: length as AlpacaEval does; a
list has two items or more here, where AlpacaEval, and the boards with it (`core.layout`), count a single one.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pasture.annotate.pool import LLMPool
from pasture.core.records import Comparison, Preference, Verdict

LENGTH_MARGIN = 30
"""Characters by which lengths must differ to count, as in AlpacaEval."""

_ITEM = re.compile(r"^[ \t]*(?:[-*•‣]|\d{1,3}[.)]|[A-Za-z][.)])[ \t]+\S", re.MULTILINE)
_REFUSAL = re.compile(
    r"^\W*sorry\b|\bI(?:\Wm| am)(?: \w+)? sorry\b|\bI(?: \w+)? apologi[sz]e\b"
    r"|\b(?:I (?:can\Wt|cannot|am unable|won\Wt|will not|must decline)|I\Wm unable"
    r"|as an AI|unable to (?:assist|help|judge|compare))\b",
    re.IGNORECASE,
)
"""In the judge's reply, which may speak of a coffee filter, or of an answer that is sorry writing."""
_FILTERED = re.compile(r"filter|safeguards|safety|content.?policy|moderation", re.IGNORECASE)
"""In what the service says where it gave no reply."""
_VALUE: Mapping[Verdict, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class Share:
    """A share of some cases."""

    value: float | None
    """None where there was no case."""
    standard_error: float | None
    """Over pairs; None below two."""
    count: int
    """Pairs that it was measured on."""


@dataclass(frozen=True)
class BiasReport:
    """A judge's leanings on one set of pairs; 0.5 is no leaning in the first three."""

    asked: int
    """Pairs, each in two orders."""
    judged: int
    """Pairs with a verdict in both orders."""
    unjudged: int
    refused: int
    """Pairs that are unjudged because the judge declined, or its service filtered, rather than by bad form."""
    prefers_first_shown: Share
    """How often the answer shown first won, over both orders; ties count half."""
    prefers_longer: Share
    """How often the longer answer won, where lengths differ by more than 30 characters."""
    prefers_list: Share
    """How often the answer with a list won, where exactly one has one."""
    changes_with_order: Share
    """How often the verdict changed when the order did."""
    agrees_with_itself: Share
    """How often asking the same anew, in the same order, gave the same verdict."""
    cost_usd: float | None
    """None where a price is unknown."""

    def as_dict(self) -> dict[str, object]:
        """The report as plain JSON."""
        return asdict(self)


def bias_report(pool: LLMPool, comparisons: Sequence[Comparison]) -> BiasReport:
    """The leanings of the pool's judges on `comparisons`, noise left out; four calls for each pair.

    Pairs with identical texts teach nothing about a judge and are left out.
    """
    different = [each for each in comparisons if each.first.text != each.second.text]
    panel = replace(pool.panel, order="both", noise=None)

    def ask(sample: int) -> list[Preference]:
        asking = LLMPool(panel, pool.engine, draws=pool.draws, sample=sample, progress=pool.progress)
        return asking.annotate(different)

    return measured(different, ask(pool.sample), ask(pool.sample + 1))


def measured(comparisons: Sequence[Comparison], once: Sequence[Preference], again: Sequence[Preference]) -> BiasReport:
    """The report of preferences that were asked for in both orders, twice."""
    asked = list(zip(comparisons, once, strict=True))
    judged = [(comparison, said) for comparison, said in asked if said.preferred != "unjudged"]
    costs = [said.cost_usd for said in (*once, *again)]
    known = [cost for cost in costs if cost is not None]
    return BiasReport(
        asked=len(asked),
        judged=len(judged),
        unjudged=len(asked) - len(judged),
        refused=sum(is_refusal(said) for _, said in asked),
        prefers_first_shown=_share([_first_shown(said) for _, said in judged]),
        prefers_longer=_share(_won_by(_longer, judged)),
        prefers_list=_share(_won_by(_with_list, judged)),
        changes_with_order=_share([float(not _orders_agree(said)) for _, said in judged]),
        agrees_with_itself=_share(
            [value for one, other in zip(once, again, strict=True) for value in _same_verdicts(one, other)]
        ),
        cost_usd=sum(known) if len(known) == len(costs) else None,
    )


def has_list(text: str) -> bool:
    """Whether two lines or more begin with a bullet, a number or a letter."""
    return len(_ITEM.findall(text)) >= 2


def is_refusal(preference: Preference) -> bool:
    """Whether the judge, or its service, declined to judge, rather than replied in bad form."""
    if preference.preferred != "unjudged":
        return False
    failed = [order for order in _orders(preference) if order["preferred"] == "unjudged"]
    replies = [order.get("raw_reply") for order in failed] or [preference.raw_reply]
    # The error is of the first that failed; with a reply beside it, it quotes the reply.
    filtered = replies[0] is None and _FILTERED.search(preference.error or "") is not None
    return filtered or any(_REFUSAL.search(reply) for reply in replies if reply)


def _orders(preference: Preference) -> list[Mapping[str, Any]]:
    return list((preference.evidence or {}).get("orders", []))


def _first_shown(preference: Preference) -> float:
    """How often, over the two orders, the side shown first won."""
    won = [_VALUE[order["preferred"]] for order in _orders(preference)]
    shown_first = [order["shown_first"] == "first" for order in _orders(preference)]
    return sum(value if first else 1 - value for value, first in zip(won, shown_first, strict=True)) / len(won)


def _orders_agree(preference: Preference) -> bool:
    return len({order["preferred"] for order in _orders(preference)}) == 1


def _same_verdicts(one: Preference, other: Preference) -> list[float]:
    """For a pair judged both times, the share of its two orders in which both verdicts were the same."""
    couples = [
        (a["preferred"], b["preferred"])
        for a, b in zip(_orders(one), _orders(other), strict=True)
        if "unjudged" not in (a["preferred"], b["preferred"])
    ]
    return [sum(a == b for a, b in couples) / len(couples)] if couples else []


def _longer(comparison: Comparison) -> int:
    """1 where the first is the longer by more than the margin, -1 where the second is, else 0."""
    more = len(comparison.first.text) - len(comparison.second.text)
    return 0 if abs(more) <= LENGTH_MARGIN else 1 if more > 0 else -1


def _with_list(comparison: Comparison) -> int:
    """1 where only the first has a list, -1 where only the second has, else 0."""
    return int(has_list(comparison.first.text)) - int(has_list(comparison.second.text))


def _won_by(side: Callable[[Comparison], int], judged: Sequence[tuple[Comparison, Preference]]) -> list[float]:
    """How far the side that `side` points to won, for each pair in which it points to one."""
    pointed = [(side(comparison), _VALUE[said.preferred]) for comparison, said in judged]
    return [value if points > 0 else 1 - value for points, value in pointed if points != 0]


def _share(values: Sequence[float]) -> Share:
    count = len(values)
    if count == 0:
        return Share(None, None, 0)
    mean = math.fsum(values) / count
    if count < 2:
        return Share(mean, None, count)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Share(mean, math.sqrt(variance / count), count)
