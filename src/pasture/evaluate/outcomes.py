"""Preferences as columns of numbers, seen from one system's side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pasture.core.errors import DataError
from pasture.core.layout import has_list
from pasture.core.records import Comparison, Preference, content_id

Credit = Literal["verdict", "probability"]
"""What a judgement is worth: 1, 1/2 or 0 by its verdict, or the judge's own probability where it gives one."""

Strings = NDArray[np.str_]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

_VERDICT_CREDIT = {"first": 1.0, "tie": 0.5, "second": 0.0, "unjudged": np.nan}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What one judge made of one system against one reference: an entry of each column for each preference."""

    system: str
    reference: str
    judge: str
    instruction: Strings
    """Identity of the instruction: the cluster that resampling draws."""
    source: Strings
    credit: Floats
    """Share of a win that went to the system, in [0, 1]; NaN where unjudged."""
    shown_first: Booleans
    """Whether the judge saw the system's completion first."""
    system_length: Floats
    """Characters."""
    reference_length: Floats
    system_list: Booleans
    """Whether the completion is laid out as a list."""
    reference_list: Booleans
    answer: Strings | None = None
    """Identity of the system's completion, by its text; None where texts are not at hand."""
    date: str | None = None
    """Day of the judgements, as YYYY-MM-DD."""

    def __post_init__(self) -> None:
        sizes = {len(column) for column in self._columns.values()}
        if len(sizes) != 1:
            raise DataError(f"columns of {self.system!r} differ in length: {sorted(sizes)}. Give one entry each.")
        credit = self.credit[~np.isnan(self.credit)]
        if credit.size and not (credit.min() >= 0 and credit.max() <= 1):
            raise DataError(f"credit of {self.system!r} must lie in [0, 1], got {credit.min()} to {credit.max()}.")

    def __len__(self) -> int:
        return len(self.credit)

    @property
    def judged(self) -> Booleans:
        """Which entries hold a judgement."""
        return ~np.isnan(self.credit)

    @property
    def pair(self) -> tuple[str, str, str]:
        """Judge, system and reference."""
        return self.judge, self.system, self.reference

    def where(self, chosen: Booleans) -> Self:
        """The entries that `chosen` marks."""
        return replace(self, **{name: column[chosen] for name, column in self._columns.items()})

    @property
    def _columns(self) -> Mapping[str, Any]:
        """Those that are there."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return {name: column for name, column in columns.items() if column is not None}


_COLUMNS = [field.name for field in fields(Outcomes) if field.name not in ("system", "reference", "judge", "date")]


def judge_label(name: str, identity: Mapping[str, object]) -> str:
    """The judge's name with eight hexadecimal digits of its identity, such as "greedy #1f0c22ab".

    The same prompt over another model is another judge: under its name alone the two would be ranked together.
    """
    return f"{name} #{content_id(json.dumps(identity, sort_keys=True))[:8]}"


def outcomes_of(
    preferences: Sequence[Preference],
    comparisons: Sequence[Comparison],
    *,
    judge: str,
    reference: str,
    credit: Credit = "verdict",
    date: str | None = None,
) -> list[Outcomes]:
    """The outcomes of each system that was compared with `reference`, in order of first appearance.

    A comparison without any preference counts as asked and unjudged. A comparison of the reference with itself
    counts for the reference as a system; comparisons in which `reference` takes no part are left out.

    Raises:
        DataError: if a preference belongs to no comparison, or `reference` takes part in none.
    """
    rows: dict[str, list[tuple[Comparison, Preference | None]]] = {}
    for comparison, preference in _joined(preferences, comparisons):
        names = (comparison.first.system, comparison.second.system)
        if reference in names:
            system = names[0] if names[1] == reference else names[1]
            rows.setdefault(system, []).append((comparison, preference))
    if not rows:
        met = sorted({side.system for row in comparisons for side in (row.first, row.second)})
        raise DataError(f"no comparison with reference {reference!r} among {len(comparisons)}. Systems: {met}.")
    found = [_columns(system, reference, judge, own, credit) for system, own in rows.items()]
    return [replace(outcomes, date=date) for outcomes in found]


def _joined(
    preferences: Sequence[Preference], comparisons: Sequence[Comparison]
) -> Iterator[tuple[Comparison, Preference | None]]:
    by_id = {comparison.id: comparison for comparison in comparisons}
    answered = set()
    for preference in preferences:
        comparison = by_id.get(preference.comparison_id)
        if comparison is None:
            raise DataError(
                f"preference of {preference.annotator!r} is about comparison {preference.comparison_id!r}, which is "
                f"not among the {len(by_id)} given. Pass the comparisons that were judged."
            )
        answered.add(comparison.id)
        yield comparison, preference
    for comparison in by_id.values():
        if comparison.id not in answered:
            yield comparison, None


def _columns(
    system: str,
    reference: str,
    judge: str,
    rows: list[tuple[Comparison, Preference | None]],
    credit: Credit,
) -> Outcomes:
    # Of a comparison of the reference with itself the second side is the system's, as in AlpacaFarm.
    sides: list[Literal["first", "second"]] = [
        "second" if comparison.second.system == system else "first" for comparison, _ in rows
    ]
    own = [getattr(row[0], side).text for row, side in zip(rows, sides, strict=True)]
    other = [(row[0].first if side == "second" else row[0].second).text for row, side in zip(rows, sides, strict=True)]
    return Outcomes(
        system=system,
        reference=reference,
        judge=judge,
        instruction=np.array([comparison.instruction.id for comparison, _ in rows], dtype=np.str_),
        source=np.array([comparison.instruction.source for comparison, _ in rows], dtype=np.str_),
        credit=np.array([_credit(row[1], side, credit) for row, side in zip(rows, sides, strict=True)]),
        shown_first=np.array(
            [row[1] is not None and row[1].shown_first == side for row, side in zip(rows, sides, strict=True)]
        ),
        system_length=np.array([len(text) for text in own], dtype=np.float64),
        reference_length=np.array([len(text) for text in other], dtype=np.float64),
        system_list=_lists(own),
        reference_list=_lists(other),
        answer=answers_of(own),
    )


def answers_of(texts: Sequence[str]) -> Strings:
    """What stands for each text in `Outcomes.answer`."""
    return np.array([content_id(text) for text in texts], dtype=np.str_)


def _lists(texts: list[str]) -> Booleans:
    known = {text: has_list(text) for text in set(texts)}
    return np.array([known[text] for text in texts])


def _credit(preference: Preference | None, side: Literal["first", "second"], credit: Credit) -> float:
    if preference is None or preference.preferred == "unjudged":
        return np.nan
    value = _VERDICT_CREDIT[preference.preferred]
    # Where noise chose the verdict, the judge's probability belongs to another label.
    if credit == "probability" and preference.probability_first is not None and not preference.flipped_by_noise:
        value = preference.probability_first
    return value if side == "first" else 1.0 - value
