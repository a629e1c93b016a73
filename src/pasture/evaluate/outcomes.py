"""Preferences as columns of numbers, seen from one system's side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pasture.core.errors import DataError
from pasture.core.layout import has_list
from pasture.core.records import Comparison, Preference, Verdict, by_id, content_id

Credit = Literal["verdict", "probability"]
"""What a judgement is worth: 1, 1/2 or 0 by its verdict, or the judge's own probability where it gives one."""

Strings = NDArray[np.str_]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

_VERDICT_CREDIT = {"first": 1.0, "tie": 0.5, "second": 0.0, "unjudged": np.nan}
_OPPOSITE: Mapping[Verdict, Verdict] = {"first": "second", "second": "first"}
_OF_AN_ORDER = {"shown_first", "preferred", "probability_first"}
"""What a pool keeps of each of the two orders that it asked in, at the least."""


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
    verdict: Floats | None = None
    """1, 1/2 or 0 by the judge's word, NaN where unjudged; None where there is but a number, which `credit` holds."""
    credit_when_first: Floats | None = None
    """Credit of the judgement that saw the system's completion first, NaN where none did; None as `by_place` says."""
    credit_when_second: Floats | None = None
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

    def __repr__(self) -> str:
        names = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("system", "reference", "judge"))
        return f"Outcomes({names}: {int(self.judged.sum())} judged of {len(self)})"

    @property
    def judged(self) -> Booleans:
        """Which entries hold a judgement."""
        return ~np.isnan(self.credit)

    @property
    def pair(self) -> tuple[str, str, str]:
        """Judge, system and reference."""
        return self.judge, self.system, self.reference

    def by_place(self) -> tuple[Floats, Floats]:
        """The credit where the judge saw the system's completion first, and where it saw it second.

        NaN where it did not. A pair that was asked in both orders has both; where `credit_when_first` and
        `credit_when_second` are absent each was asked in one, as `shown_first` says.
        """
        if self.credit_when_first is not None and self.credit_when_second is not None:
            return self.credit_when_first, self.credit_when_second
        return np.where(self.shown_first, self.credit, np.nan), np.where(self.shown_first, np.nan, self.credit)

    def turned_round(self) -> Self:
        """The same judgements, seen from the reference's side; its completions' identities are not at hand."""
        when_first, when_second = self.by_place()
        return replace(
            self,
            system=self.reference,
            reference=self.system,
            credit=1 - self.credit,
            verdict=None if self.verdict is None else 1 - self.verdict,
            shown_first=~self.shown_first,
            credit_when_first=1 - when_second,
            credit_when_second=1 - when_first,
            system_length=self.reference_length,
            reference_length=self.system_length,
            system_list=self.reference_list,
            reference_list=self.system_list,
            answer=None,
        )

    def where(self, chosen: Booleans) -> Self:
        """The entries that `chosen` marks."""
        return replace(self, **{name: column[chosen] for name, column in self._columns.items()})

    @property
    def _columns(self) -> Mapping[str, Any]:
        """Those that are there."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return {name: column for name, column in columns.items() if column is not None}


_COLUMNS = [field.name for field in fields(Outcomes) if field.name not in ("system", "reference", "judge", "date")]


def pooled(parts: Sequence[Outcomes]) -> Outcomes:
    """The entries of all `parts`, which are about one pair of systems; columns that one of them lacks are left out."""
    joined: dict[str, Any] = {}
    for name in _COLUMNS:
        columns = [getattr(part, name) for part in parts]
        joined[name] = None if any(column is None for column in columns) else np.concatenate(columns)
    return replace(parts[0], **joined)


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
        DataError: if a preference belongs to no comparison, two comparisons have one id, or `reference` takes part in
            none.
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
    known = by_id(comparisons)
    answered = set()
    for preference in preferences:
        comparison = known.get(preference.comparison_id)
        if comparison is None:
            raise DataError(
                f"preference of {preference.annotator!r} is about comparison {preference.comparison_id!r}, which is "
                f"not among the {len(known)} given. Pass the comparisons that were judged."
            )
        answered.add(comparison.id)
        yield comparison, preference
    for comparison in known.values():
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
    shown = [(row[1], side) for row, side in zip(rows, sides, strict=True)]
    share = np.array([_credit(preference, side, credit) for preference, side in shown])
    shown_first = np.array([preference is not None and preference.shown_first == side for preference, side in shown])
    when_first, when_second = np.where(shown_first, share, np.nan), np.where(shown_first, np.nan, share)
    for number, (preference, side) in enumerate(shown):
        if preference is not None and preference.evidence and preference.preferred != "unjudged":
            when_first[number], when_second[number] = _by_place(preference, side, credit)
    return Outcomes(
        system=system,
        reference=reference,
        judge=judge,
        instruction=np.array([comparison.instruction.id for comparison, _ in rows], dtype=np.str_),
        source=np.array([comparison.instruction.source for comparison, _ in rows], dtype=np.str_),
        credit=share,
        shown_first=shown_first,
        verdict=np.array([_credit(preference, side, "verdict") for preference, side in shown]),
        credit_when_first=when_first,
        credit_when_second=when_second,
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
    # Noise that turns a judgement over turns its probability over too; noise in a judgement's place has none.
    if credit == "probability" and preference.probability_first is not None:
        value = preference.probability_first
    return value if side == "first" else 1.0 - value


def _by_place(preference: Preference, side: Literal["first", "second"], credit: Credit) -> tuple[float, float]:
    """The credit where the judge saw the completion of `side` first, and where second; NaN where it did not."""
    # Of identical texts nobody was asked, so neither was shown.
    if (preference.evidence or {}).get("identical"):
        return np.nan, np.nan
    when_first = when_second = np.nan
    for single in single_orders(preference) or [preference]:
        if single.shown_first == side:
            when_first = _credit(single, side, credit)
        else:
            when_second = _credit(single, side, credit)
    return when_first, when_second


def single_orders(preference: Preference) -> list[Preference]:
    """The verdicts of the two orders that a pool asked in and kept as evidence; none where it asked in one.

    An order without a verdict comes back unjudged. Where noise turned the whole over, so it does each order.

    Raises:
        DataError: if what is kept is no verdict.
    """
    orders = (preference.evidence or {}).get("orders")
    if not isinstance(orders, list) or not all(isinstance(one, dict) and one.keys() >= _OF_AN_ORDER for one in orders):
        return []
    try:
        singles = [
            Preference(
                comparison_id=preference.comparison_id,
                annotator=preference.annotator,
                preferred=order["preferred"],
                probability_first=order["probability_first"],
                shown_first=order["shown_first"],
                error="no verdict in this order" if order["preferred"] == "unjudged" else None,
            )
            for order in orders
        ]
    except ValidationError as error:
        raise DataError(
            f"preference of {preference.annotator!r} about comparison {preference.comparison_id!r}: evidence['orders'] "
            f"should hold a verdict for each order, got {orders!r:.200}. Judge the comparison again."
        ) from error
    return [_turned_over(single) for single in singles] if preference.flipped_by_noise else singles


def _turned_over(single: Preference) -> Preference:
    """The opposite verdict, its probability the other answer's."""
    probability = single.probability_first
    return single.model_copy(
        update={
            "preferred": _OPPOSITE.get(single.preferred, single.preferred),
            "probability_first": None if probability is None else 1 - probability,
        }
    )
