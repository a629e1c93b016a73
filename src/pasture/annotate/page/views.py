"""What the templates are told: of an annotator's own round, and nothing that would tell one system from the other."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pasture.annotate.campaign.state import Campaign, Item
from pasture.annotate.campaign.tokens import is_sealed, seal

Stage = Literal["start", "pair", "done", "left", "unqualified", "closed"]
_RECENT = 20


@dataclass(frozen=True)
class Round:
    """Where an annotator stands."""

    campaign: str
    name: str
    stage: Stage
    qualifying: bool
    done: int
    total: int
    turn: int
    can_undo: bool
    can_take_over: bool
    guidelines: str
    markdown: bool
    pass_share: float
    seconds_a_pair: float | None
    """Median of the last twenty answers."""
    missing: int
    """Labels that the campaign still wants of anyone."""

    @property
    def minutes_left(self) -> int | None:
        """None before there is anything to reckon by."""
        if self.seconds_a_pair is None:
            return None
        return max(1, round(self.seconds_a_pair * (self.total - self.done) / 60))


@dataclass(frozen=True)
class Shown:
    """A pair as it is laid before an annotator."""

    round: Round
    item: str
    stamp: str
    """When it was shown, sealed."""
    instruction: str
    material: str
    first: str
    """The answer that is shown first, whichever it is."""
    second: str
    strength: bool


def round_of(campaign: Campaign, name: str) -> Round:
    """Where `name` stands."""
    annotator = campaign.annotators[name]
    done, total = campaign.progress(name)
    last = annotator.last()
    qualifying = bool(campaign.of_role("qualification")) and not annotator.admitted
    recent = [vote.seconds for vote in list(annotator.votes.values())[-_RECENT:] if vote.seconds is not None]
    working = annotator.status == "working" and not campaign.closed
    stage = _stage(campaign, name)
    return Round(
        campaign=campaign.opened.name,
        name=name,
        stage=stage,
        qualifying=qualifying,
        done=done,
        total=total,
        turn=annotator.turn,
        can_undo=working and last is not None and not campaign.stands(last),
        can_take_over=stage == "done" and campaign.can_take_over(name),
        guidelines=campaign.settings.guidelines,
        markdown=campaign.settings.markdown,
        pass_share=campaign.settings.pass_share,
        seconds_a_pair=median(recent) if recent else None,
        missing=campaign.missing_labels() if stage == "done" else 0,
    )


def shown(campaign: Campaign, name: str) -> Shown | Round:
    """The pair before `name`; where they stand, if there is none."""
    here = round_of(campaign, name)
    item = campaign.current(name)
    if item is None or here.stage not in ("start", "pair"):
        return here
    comparison = item.pair.comparison
    sides = (comparison.first.text, comparison.second.text)
    first, second = sides if item.shown_first == "first" else reversed(sides)
    return Shown(
        round=here,
        item=item.id,
        stamp=_stamp(campaign, name, item, here.turn),
        instruction=comparison.instruction.instruction,
        material=comparison.instruction.input,
        first=first,
        second=second,
        strength=campaign.settings.strength,
    )


def seconds_since(campaign: Campaign, name: str, item: str, turn: int, stamp: str) -> float | None:
    """Time since a pair was shown; None where the stamp is not the campaign's own on this item and turn."""
    milliseconds, _, mark = stamp.partition("-")
    parts = ("shown", name, item, str(turn), milliseconds)
    if not milliseconds.isdigit() or not is_sealed(mark, campaign.opened.secret, *parts):
        return None
    return max(0.0, round(time.time() - int(milliseconds) / 1000, 1))


def _stamp(campaign: Campaign, name: str, item: Item, turn: int) -> str:
    milliseconds = str(int(time.time() * 1000))
    return f"{milliseconds}-{seal(campaign.opened.secret, 'shown', name, item.id, str(turn), milliseconds)}"


def _stage(campaign: Campaign, name: str) -> Stage:
    annotator = campaign.annotators[name]
    if campaign.closed:
        return "closed"
    if annotator.status == "unqualified":
        return "unqualified"
    if annotator.status != "working":
        return "left"
    if campaign.current(name) is None:
        return "done"
    return "pair" if annotator.turn else "start"
