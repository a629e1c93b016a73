"""What is printed of a judge beside people: agreement, leaning to the answer shown first, changes with the order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pasture.core.records import Preference

HUMAN = {0: "tie", 1: "first", 2: "second"}
HEADER = f"{'':<36} {'judged':>7} {'agrees':>7} {'first shown wins':>17} {'changes':>8} {'P(first)':>9} {'s':>6}"


def majority(row: Mapping[str, Any]) -> str | None:
    """What most of three people said; None where each said another thing."""
    label, votes = Counter(row[f"human_{number}"] for number in (1, 2, 3)).most_common(1)[0]
    return HUMAN[label] if votes > 1 else None


def agreement(preferences: Sequence[Preference], rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of judged pairs in which the judge says what most people say; a tie against a side counts half."""
    said = [(each.preferred, majority(row)) for each, row in zip(preferences, rows, strict=True)]
    judged = [pair for pair in said if pair[0] != "unjudged" and pair[1] is not None]
    return _mean([1.0 if mine == theirs else 0.5 if "tie" in (mine, theirs) else 0.0 for mine, theirs in judged])


def orders(preference: Preference) -> list[Mapping[str, Any]]:
    """Each order in which the pair was shown, with its verdict."""
    evidence = preference.evidence or {}
    single = {name: getattr(preference, name) for name in ("shown_first", "preferred", "probability_first")}
    return list(evidence.get("orders", [single]))


def first_shown_wins(preferences: Sequence[Preference]) -> float | None:
    """Over all orders with a verdict; a tie counts half."""
    shown = [
        one for each in preferences for one in orders(each) if one["shown_first"] and one["preferred"] != "unjudged"
    ]
    return _mean([0.5 if one["preferred"] == "tie" else one["preferred"] == one["shown_first"] for one in shown])


def changes_with_order(preferences: Sequence[Preference]) -> float | None:
    """Over pairs with a verdict in both orders."""
    agree = [(each.evidence or {}).get("agree") for each in preferences]
    return _mean([not one for one in agree if one is not None])


def line(title: str, preferences: Sequence[Preference], rows: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """A row of the table."""
    judged = sum(each.preferred != "unjudged" for each in preferences)
    figures = (
        agreement(preferences, rows),
        first_shown_wins(preferences),
        changes_with_order(preferences),
        _mean([each.probability_first for each in preferences if each.probability_first is not None]),
    )
    agrees, first, changes, chance = ("-" if one is None else f"{one:.3f}" for one in figures)
    count = f"{judged}/{len(preferences)}"
    return f"{title:<36} {count:>7} {agrees:>7} {first:>17} {changes:>8} {chance:>9} {seconds:>6.0f}"


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
