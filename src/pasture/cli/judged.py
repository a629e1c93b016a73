"""Comparisons put to the judge that the options name, and what came back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pasture.cli import judges
from pasture.core.records import Comparison, Preference
from pasture.evaluate.audit import AuditFinding, audit_comparisons, audit_findings
from pasture.evaluate.orders import BothOrders, both_orders, single_orders
from pasture.evaluate.outcomes import Credit, Outcomes, judge_label, outcomes_of


@dataclass(frozen=True)
class Judged:
    """What one judge said of systems beside one reference."""

    judge: str
    """Name and identity, as it stands beside every number."""
    identity: Mapping[str, object]
    date: str
    credit: Credit
    reference: str
    comparisons: Sequence[Comparison]
    preferences: Sequence[Preference]
    tricks: Sequence[Comparison] = ()
    """Comparisons of the audit's systems."""
    audited: Sequence[Preference] = ()

    def systems(self) -> list[Outcomes]:
        """The outcomes of each system."""
        return outcomes_of(
            self.preferences,
            self.comparisons,
            judge=self.judge,
            reference=self.reference,
            credit=self.credit,
            date=self.date,
        )

    def findings(self) -> list[AuditFinding]:
        """What the audit's systems won, worst first; empty where none was asked for."""
        if not self.tricks:
            return []
        return audit_findings(self.audited, self.tricks, reference=self.reference, judge=self.judge, seed=0)

    def orders(self) -> dict[str, BothOrders]:
        """The both-order estimate of each system, by name, where the judge was asked in both orders."""
        split = [single for preference in self.preferences for single in single_orders(preference)]
        if not split:
            return {}
        asked = {single.comparison_id for single in split}
        comparisons = [comparison for comparison in self.comparisons if comparison.id in asked]
        found = outcomes_of(split, comparisons, judge=self.judge, reference=self.reference, credit=self.credit)
        return {outcomes.system: both_orders(outcomes, seed=0) for outcomes in found}

    def cost(self) -> str:
        """How many judgements there are, and what they cost."""
        costs = [preference.cost_usd for preference in [*self.preferences, *self.audited]]
        unknown = costs.count(None)
        more = f", {unknown} judgements of unknown price" if unknown else ""
        return f"{len(costs)} judgements, ${sum(cost for cost in costs if cost is not None):.4f}{more}."


def put_to_judge(
    options: Sequence[str], comparisons: Sequence[Comparison], reference: str, *, audit: bool = False
) -> Judged:
    """The judge's preferences; of an audit's systems too where `audit` says so.

    The meadow's judges cast votes, and a vote counts whole; of other judges a probability counts as that share.

    Raises:
        PastureError: as the judge does, or `judges.open_judge`.
    """
    tricks = audit_comparisons(comparisons, reference) if audit else []
    with judges.open_judge(options) as (name, annotator):
        preferences = annotator.annotate(comparisons)
        audited = annotator.annotate(tricks) if tricks else []
        identity = dict(annotator.identity)
    return Judged(
        judge=judge_label(name, identity),
        identity=identity,
        date=datetime.now(UTC).date().isoformat(),
        credit="verdict" if name in judges.MEADOW else "probability",
        reference=reference,
        comparisons=comparisons,
        preferences=preferences,
        tricks=tricks,
        audited=audited,
    )
