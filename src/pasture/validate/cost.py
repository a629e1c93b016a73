"""What labels cost, simulated and from people, by a run's own records and by the paper's rates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pasture.core.errors import DataError
from pasture.validate.plain import plain

PEOPLE_USD_PER_LABEL = 0.30
"""$3,000 for 10,000 labels. Source: Dubois et al. 2023, section 3.1; AlpacaEval's evaluator table."""
PEOPLE_SECONDS_PER_LABEL = 36.8
"""9.2 minutes for 15 labels, of one person's time. Source: AlpacaEval's evaluator table: 36,800 s per 1,000."""


@dataclass(frozen=True)
class LedgerEntry:
    """What one step of a run took, from its `step.json`."""

    step: str
    seconds: float
    cost_usd: float | None
    """None where a price is unknown."""
    label_count: int = 0
    """Labels that the step asked for."""


@dataclass(frozen=True)
class LabelCost:
    """Labels of one kind."""

    labels: str
    label_count: int
    cost_usd: float | None
    hours: float
    """Of the machine, or of one person's time."""
    usd_per_thousand: float | None
    hours_per_thousand: float


@dataclass(frozen=True)
class StudyCost:
    """A study, and what it would have cost with people."""

    simulated: LabelCost
    """The labels that the simulation gave, by the run's records."""
    people: LabelCost
    """As many labels at the paper's rate for people."""
    study_usd: float | None
    """All steps, labels included; None where a price is unknown."""
    study_hours: float
    """Of the machine, all steps one after the other."""
    with_people_usd: float | None
    """The same study with people in the place of every annotator."""
    with_people_hours: float
    price_ratio: float | None
    """Of a label from people to a simulated one; None where the simulated one is free or its price unknown."""

    def to_dict(self) -> dict[str, object]:
        """The result as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def study_cost(
    ledger: Sequence[LedgerEntry],
    people_usd_per_label: float = PEOPLE_USD_PER_LABEL,
    people_seconds_per_label: float = PEOPLE_SECONDS_PER_LABEL,
) -> StudyCost:
    """The study of `ledger` beside the same study with a person behind every label.

    The meadow's people count as simulated annotators in the first column: they cost a machine's time alone.

    Raises:
        DataError: if the ledger is empty or no step asked for a label.
    """
    asked = [entry for entry in ledger if entry.label_count > 0]
    if not asked:
        raise DataError(f"no label was asked for in any of {len(ledger)} steps, so labels have no price.")
    labels = sum(entry.label_count for entry in asked)
    simulated_usd, simulated_hours = _sum(asked), sum(entry.seconds for entry in asked) / 3600
    people_usd, people_hours = labels * people_usd_per_label, labels * people_seconds_per_label / 3600
    others = [entry for entry in ledger if entry.label_count == 0]
    rest_usd, rest_hours = _sum(others), sum(entry.seconds for entry in others) / 3600
    return StudyCost(
        simulated=_label_cost("simulated", labels, simulated_usd, simulated_hours),
        people=_label_cost("people, at the paper's rate", labels, people_usd, people_hours),
        study_usd=None if simulated_usd is None or rest_usd is None else simulated_usd + rest_usd,
        study_hours=simulated_hours + rest_hours,
        with_people_usd=None if rest_usd is None else people_usd + rest_usd,
        with_people_hours=people_hours + rest_hours,
        price_ratio=people_usd / simulated_usd if simulated_usd else None,
    )


def _label_cost(labels: str, count: int, usd: float | None, hours: float) -> LabelCost:
    thousands = count / 1000
    return LabelCost(labels, count, usd, hours, None if usd is None else usd / thousands, hours / thousands)


def _sum(entries: Sequence[LedgerEntry]) -> float | None:
    prices = [entry.cost_usd for entry in entries]
    return None if None in prices else sum(price for price in prices if price is not None)
