"""Comparisons put to the judge that the options name: what is refused before, and what came back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from rich.console import Console

from pasture.cli import judges
from pasture.cli.progress import shown_progress
from pasture.core.errors import DataError
from pasture.core.hostile import on_one_line, shortened
from pasture.core.records import Comparison, Preference
from pasture.evaluate.audit import AuditFinding, audit_comparisons, audit_findings
from pasture.evaluate.board import Board
from pasture.evaluate.human_corrected import corrected_rates
from pasture.evaluate.orders import BothOrders, both_orders, has_both_orders
from pasture.evaluate.outcomes import Credit, Outcomes, judge_label, outcomes_of, single_orders
from pasture.evaluate.outputs import Pairing
from pasture.evaluate.table import short_name
from pasture.evaluate.win_rate import against_even
from pasture.report.numbers import LEAST_P

_REASON_CHARACTERS = 300


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
        """The both-order estimate of each system, by name, where the judge was asked in both orders.

        A system of which no pair has a verdict in each order is not among them.
        """
        split = [single for preference in self.preferences for single in single_orders(preference)]
        if not split:
            return {}
        asked = {single.comparison_id for single in split}
        comparisons = [comparison for comparison in self.comparisons if comparison.id in asked]
        found = outcomes_of(split, comparisons, judge=self.judge, reference=self.reference, credit=self.credit)
        return {outcomes.system: both_orders(outcomes, seed=0) for outcomes in found if has_both_orders(outcomes)}

    def failures(self) -> str:
        """How many judgements hold no verdict, the commonest reason and what to do; empty where there are none."""
        every = [*self.preferences, *self.audited]
        reasons = Counter(one.error or "no reason given" for one in every if one.preferred == "unjudged")
        if not reasons:
            return ""
        [(reason, times)] = reasons.most_common(1)
        # Votes are of the meadow's judges, who say the same when they are asked again.
        again = "" if self.credit == "verdict" else " Ask about these alone with --judge retry_unjudged=true."
        return (
            f"{reasons.total()} of {len(every)} judgements are no verdict, {times} of them for this reason: "
            f"{on_one_line(shortened(reason, _REASON_CHARACTERS)).rstrip('.')}.{again}"
        )

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
    with shown_progress(Console(), "judging") as progress, judges.open_judge(options, progress) as (name, annotator):
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


def check_pairings(pairings: Sequence[Pairing]) -> None:
    """Refuse before money is spent what the board would refuse after."""
    if len({frozenset(row.instruction.id for row in pairing.comparisons) for pairing in pairings}) > 1:
        counts = ", ".join(str(len(pairing.comparisons)) for pairing in pairings)
        raise DataError(
            f"the systems answered different instructions of the reference ({counts}), so their rates cannot be "
            "ranked. Evaluate them one by one with --out, then ask for pasture leaderboard --allow-mixed."
        )
    names = [pairing.comparisons[0].second.system for pairing in pairings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"several files answer under one name: {twice}. Give each system a name of its own, in the column "
            "'generator' or as the name of its file."
        )


def check_labels(labels: Sequence[Outcomes], asked: Sequence[Outcomes]) -> None:
    """Refuse before money is spent labels of other pairs, or of too few: as if every other comparison had been won."""
    guessed = [replace(one, credit=(np.arange(len(one)) % 2).astype(np.float64)) for one in asked]
    corrected_rates(guessed, labels, seed=0)


def who_wins(outcomes: Outcomes, board: Board) -> str:
    """Which of two systems wins, and whether that is more than chance, in a sentence."""
    rate = board.rows[0].win_rate.rate
    if rate is None:
        return "Nothing could be judged, so neither wins."
    if rate == 0.5:
        return "Neither wins more often."
    winner = short_name(outcomes.system if rate > 0.5 else outcomes.reference)
    p_value = against_even(outcomes, seed=0)
    if p_value < 0.05:
        return f"{winner} wins more often, more often than chance explains ({p_in_words(p_value)})."
    return f"{winner} wins more often, but chance explains that ({p_in_words(p_value)})."


def p_in_words(p_value: float) -> str:
    """A p-value as a sentence holds it, two digits or the bound that pages stop at too."""
    return f"p < {LEAST_P}" if p_value < LEAST_P else f"p = {p_value:.2g}"
