"""What a campaign shows of each annotator by itself: share, speed, known answers, repetitions, leanings, pay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pasture.annotate.campaign.events import Voted
from pasture.annotate.campaign.export import PAUSE_SECONDS
from pasture.annotate.campaign.state import Campaign, Status, is_expected, label_of
from pasture.core.statistics import Estimate


@dataclass(frozen=True)
class Ratio:
    """So many of so many."""

    count: int
    of: int

    @property
    def share(self) -> float | None:
        """None of none is no share."""
        return self.count / self.of if self.of else None


@dataclass(frozen=True)
class Among:
    """How one annotator stands among the others; None where too little is known."""

    agreement: Estimate | None
    """With the majority of the others, on the pairs that they share."""
    kappa: Estimate | None
    """Cohen's, with the same majority."""


@dataclass(frozen=True)
class Agreement:
    """What annotators have in common."""

    pairwise: Estimate | None
    """Of two labels of one pair; None without pairs that have two."""
    alpha: Estimate | None
    """Krippendorff's, nominal."""
    by_annotator: Mapping[str, Among]


@dataclass(frozen=True)
class AnnotatorQuality:
    """One annotator's row."""

    name: str
    status: Status
    labels: int
    """Standing answers to pairs that are labelled, skips aside."""
    share: int
    """Pairs that are theirs, answered or not."""
    skipped: int
    undone: int
    taken_over: int
    median_seconds: float | None
    hours: float
    """Of all answers, gold and repeated ones included; what took longer than ten minutes counts as ten."""
    cost_usd: float | None
    qualification: float | None
    gold: Ratio
    """Answers to gold pairs that were the known ones."""
    repeated: Ratio
    """Pairs shown twice that were labelled alike both times: two bad answers are a tie, and a skip is no label."""
    prefers_first_shown: Ratio
    """Of pairs that were decided and whose order is known; an even hand gives a half."""


def annotator_quality(campaign: Campaign, name: str) -> AnnotatorQuality:
    """The row of one annotator."""
    one = campaign.annotators[name]
    votes = list(one.votes.values())
    work = [vote for vote in votes if vote.role == "work"]
    skipped = sum(vote.said == "skip" for vote in work)
    seconds = [vote.seconds for vote in votes if vote.seconds is not None]
    hours = sum(min(each, PAUSE_SECONDS) for each in seconds) / 3600
    wage = campaign.settings.wage_usd_per_hour
    return AnnotatorQuality(
        name=name,
        status=one.status,
        labels=len(work) - skipped,
        share=campaign.share_of(name),
        skipped=skipped,
        undone=one.undone,
        taken_over=one.taken_over,
        median_seconds=median(seconds) if seconds else None,
        hours=hours,
        cost_usd=None if wage is None else hours * wage,
        qualification=campaign.qualification_share(name),
        gold=_gold(campaign, votes),
        repeated=_repeated(votes),
        prefers_first_shown=_first_shown(work),
    )


def all_quality(campaign: Campaign) -> Sequence[AnnotatorQuality]:
    """A row for each annotator, dropped ones included."""
    return [annotator_quality(campaign, name) for name in campaign.annotators]


def _gold(campaign: Campaign, votes: Sequence[Voted]) -> Ratio:
    gold = [vote for vote in votes if vote.role == "gold"]
    return Ratio(sum(is_expected(vote, campaign.pairs[vote.comparison_id]) for vote in gold), len(gold))


def _repeated(votes: Sequence[Voted]) -> Ratio:
    labels = [vote for vote in votes if vote.said != "skip"]
    first = {vote.comparison_id: label_of(vote) for vote in labels if vote.role == "work"}
    again = [vote for vote in labels if vote.role == "repeat" and vote.comparison_id in first]
    return Ratio(sum(label_of(vote) == first[vote.comparison_id] for vote in again), len(again))


def _first_shown(work: Sequence[Voted]) -> Ratio:
    decided = [vote for vote in work if vote.said in ("first", "second") and vote.shown_first is not None]
    return Ratio(sum(vote.said == vote.shown_first for vote in decided), len(decided))
