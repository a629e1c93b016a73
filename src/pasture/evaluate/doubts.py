"""What keeps the rates of a leaderboard from being compared, or from being believed."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from pasture.core.hostile import shortened
from pasture.evaluate.outcomes import Outcomes

_BY_PLACE = 0.8
"""Share of verdicts for one of the two places from which on they say more of the judge than of the answers."""
_LEAST_BY_PLACE = 20
"""Verdicts in each order without which nothing is said of places."""
_TWINS = 0.9
"""Share of answers in common from which on two systems are taken for one; a method that learns shares under half of
them with what it began as, and the best of 8 samples half of them with the best of 16."""
_LEAST_OF_TWINS = 20
"""Answers in common without which nothing is said of twins."""
_NAMED = 5
_NAMED_CHARACTERS = 120


def comparability(systems: Sequence[Outcomes]) -> list[str]:
    """What keeps the systems' rates from being compared, a sentence each; empty where nothing does."""
    doubts = []
    judges = sorted({outcomes.judge for outcomes in systems})
    if len(judges) > 1:
        doubts.append(f"The systems were judged by different judges: {_some(judges)}.")
    references = sorted({outcomes.reference for outcomes in systems})
    if len(references) > 1:
        doubts.append(f"The systems were compared with different references: {_some(references)}.")
    asked = [set(outcomes.instruction.tolist()) for outcomes in systems]
    everyone = set().union(*asked)
    short = [
        f"{shortened(outcomes.system, _NAMED_CHARACTERS)!r} lacks {len(everyone - own)}"
        for outcomes, own in zip(systems, asked, strict=True)
        if len(own) < len(everyone)
    ]
    if short:
        doubts.append(f"The systems were judged on different instructions: of {len(everyone)}, {_some(short)}.")
    return doubts


def judges_by_place(systems: Sequence[Outcomes]) -> list[str]:
    """Which judges chose by the place that an answer was shown in, a sentence each."""
    found = []
    for judge in sorted({outcomes.judge for outcomes in systems}):
        places = [outcomes.by_place() for outcomes in systems if outcomes.judge == judge]
        when_first, when_second = (np.concatenate(credit) for credit in zip(*places, strict=True))
        is_first, is_second = ~np.isnan(when_first), ~np.isnan(when_second)
        if min(is_first.sum(), is_second.sum()) < _LEAST_BY_PLACE:
            continue
        won_first, won_second = (np.sign(each - 1 / 2) / 2 + 1 / 2 for each in (when_first, when_second))
        # Both orders weigh the same: else a strong system that is mostly shown first would look like a biased judge.
        first = (won_first[is_first].mean() + 1 - won_second[is_second].mean()) / 2
        place, share = ("first", first) if first > 1 / 2 else ("second", 1 - first)
        if share >= _BY_PLACE:
            both = bool((is_first & is_second).any())
            found.append(
                f"{shortened(judge, _NAMED_CHARACTERS)} preferred what it was shown {place} in {share:.0%} of "
                f"{is_first.sum() + is_second.sum():,} {'verdicts, asked in both orders' if both else 'comparisons'}: "
                f"these rates say little about the answers. Ask another judge{'' if both else ', or in both orders'}."
            )
    return found


def twins(systems: Sequence[Outcomes]) -> list[str]:
    """Which systems give the same answers, in one sentence; of none whose answers are not at hand."""
    holders: dict[tuple[str, str], set[str]] = {}
    for outcomes in systems:
        answers = () if outcomes.answer is None else outcomes.answer.tolist()
        for answered in zip(outcomes.instruction.tolist(), answers, strict=False):
            holders.setdefault(answered, set()).add(outcomes.system)
    given = Counter(system for names in holders.values() for system in names)
    shared = Counter(pair for names in holders.values() for pair in combinations(sorted(names), 2))
    alike = {pair: count / min(given[name] for name in pair) for pair, count in shared.items()}
    found = [
        f"{' and '.join(repr(shortened(name, _NAMED_CHARACTERS)) for name in pair)} ({share:.0%})"
        for pair, share in alike.items()
        if share >= _TWINS and shared[pair] >= _LEAST_OF_TWINS
    ]
    sentence = (
        f"Answers that are the same, letter for letter: {_some(found)}. Either one file was given twice, or training "
        "changed next to nothing: raise its learning rate, its steps or its epochs."
    )
    return [sentence] if found else []


def _some(items: list[str]) -> str:
    shown = ", ".join(shortened(item, _NAMED_CHARACTERS) for item in items[:_NAMED])
    return shown if len(items) <= _NAMED else f"{shown} and {len(items) - _NAMED} more"
