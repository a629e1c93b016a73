"""What may be done in a campaign, and what happens then: each function decides events, or refuses."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from pasture.annotate.campaign.events import (
    LONGEST_NAME,
    OWNER,
    Closed,
    Dropped,
    Event,
    Invited,
    Joined,
    Left,
    PairAdded,
    Returned,
    Said,
    Served,
    Settled,
    Took,
    Undone,
    Voted,
)
from pasture.annotate.campaign.state import Annotator, Campaign, Item
from pasture.annotate.campaign.tokens import digest, session_of
from pasture.core.errors import DataError, PastureError
from pasture.core.records import Comparison


class RefusedError(PastureError):
    """What cannot be done now, in words for the annotator."""


@dataclass(frozen=True)
class Ballot:
    """An answer as it comes from the page: in the order in which the annotator saw the pair."""

    item: str
    turn: int
    said: Said
    """'first' is the answer that was shown first."""
    strength: int | None = None
    reason: str = ""
    seconds: float | None = None


def vote(campaign: Campaign, name: str, ballot: Ballot) -> Sequence[Event]:
    """The answer, if it is to the item before the annotator; nothing if it came twice.

    Raises:
        RefusedError: if it is to anything else, or comes too late.
    """
    annotator = _working(campaign, name)
    last = annotator.last()
    if last is not None and ballot.turn == annotator.turn - 1 and ballot.item == last.item:
        if _named(ballot.said, last.shown_first) == last.said:
            return ()
        raise RefusedError("This pair was answered already. Take the answer back first, to give another.")
    item = campaign.current(name)
    if item is None or item.id != ballot.item or ballot.turn != annotator.turn:
        raise RefusedError("This pair is not before you now: it was answered already, or went to somebody else.")
    if ballot.said == "skip" and not ballot.reason.strip():
        raise RefusedError("Say in a few words why you skip the pair.")
    return [_voted(campaign, name, item, ballot)]


def undo(campaign: Campaign, name: str, turn: int) -> Sequence[Event]:
    """The last answer, taken back.

    Raises:
        RefusedError: if there is none, or it is part of a qualification round that is over, or of a run's labels.
    """
    annotator = _working(campaign, name)
    last = annotator.last()
    if last is None:
        raise RefusedError("There is no answer to take back.")
    if turn != annotator.turn:
        raise RefusedError("This page is out of date; nothing was taken back.")
    if campaign.stands(last):
        over = "The qualification round is over" if last.role == "qualification" else "This answer was put to use"
        raise RefusedError(f"{over}; what you said stands.")
    return [Undone(annotator=name, item=last.item)]


def take_over(campaign: Campaign, name: str) -> Sequence[Event]:
    """More pairs, from those who have most before them.

    Raises:
        RefusedError: if the annotator is not done, or nobody has any to give.
    """
    _working(campaign, name)
    if campaign.current(name) is not None:
        raise RefusedError("There are pairs before you still.")
    if not campaign.can_take_over(name):
        raise RefusedError("Nothing is left that you could take over.")
    return [Took(annotator=name)]


def leave(campaign: Campaign, name: str) -> Sequence[Event]:
    """Hand the rest of the share to the others."""
    _working(campaign, name)
    return [Left(annotator=name)]


def come_back(campaign: Campaign, name: str) -> Sequence[Event]:
    """Take a share again after leaving."""
    if campaign.closed or campaign.annotators[name].status != "left":
        raise RefusedError("There is nothing to come back to.")
    return [Returned(annotator=name)]


def join(campaign: Campaign, name: str) -> Sequence[Event]:
    """One more annotator.

    Raises:
        DataError: if the campaign is closed, or the name cannot be theirs.
    """
    if campaign.closed:
        raise DataError("the campaign is closed: nobody can join it.")
    if name == OWNER or name in campaign.annotators:
        raise DataError(f"{name!r} is the owner or an annotator already. Give another name, or make them a new link.")
    try:
        return [Joined(annotator=name)]
    except ValidationError:
        raise DataError(f"expected a name of 1 to {LONGEST_NAME} characters, got {len(name)}.") from None


def serve(campaign: Campaign, address: str) -> Sequence[Event]:
    """The page's address, where it is another than before."""
    return () if campaign.served_at == address else [Served(address=address)]


def drop(campaign: Campaign, name: str) -> Sequence[Event]:
    """Count an annotator's answers no more.

    Raises:
        DataError: if there is no such annotator.
    """
    if _known(campaign, name).status == "dropped":
        return ()
    return [Dropped(annotator=name)]


def ask(campaign: Campaign, comparisons: Sequence[Comparison]) -> Sequence[Event]:
    """More pairs, where they are not there yet, in a campaign that a run made or has taken labels from.

    Raises:
        RefusedError: if they cannot be added; says why.
    """
    known = campaign.labels()
    new = {each.id: each for each in comparisons if each.id not in known}
    if not new:
        return ()
    lacks = f"campaign {campaign.opened.name!r} lacks {len(new)} of {len(comparisons)} pairs (first: {next(iter(new))})"
    otherwise = "Name another campaign, or make one of these pairs."
    if campaign.closed:
        raise RefusedError(f"{lacks}, and is closed. {otherwise}")
    if known and not campaign.settled and not campaign.opened.by_run:
        raise RefusedError(f"{lacks}, and has {len(known)} others that no run has taken the labels of. {otherwise}")
    elsewhere = next((campaign.pairs[each] for each in new if each in campaign.pairs), None)
    if elsewhere is not None:
        raise RefusedError(f"{lacks}: {elsewhere.comparison.id} is among its {elsewhere.role} pairs. {otherwise}")
    return [PairAdded(comparison=each) for each in new.values()]


def settle(campaign: Campaign, comparisons: Sequence[Comparison]) -> Sequence[Event]:
    """Have what was said of pairs stand, as their labels are taken."""
    pairs = tuple(dict.fromkeys(each.id for each in comparisons if each.id not in campaign.settled))
    return [Settled(pairs=pairs)] if pairs else ()


def close(campaign: Campaign) -> Sequence[Event]:
    """Take no further answer."""
    return () if campaign.closed else [Closed()]


def invite(campaign: Campaign, who: str, token: str) -> Sequence[Event]:
    """A new link for an annotator or the owner, in place of any before.

    Raises:
        DataError: if there is no such annotator, or they were dropped.
    """
    if who != OWNER and _known(campaign, who).status == "dropped":
        raise DataError(f"{who!r} was dropped and is not invited again.")
    return [Invited(who=who, token_hash=digest(token), session_hash=digest(session_of(token)))]


def _working(campaign: Campaign, name: str) -> Annotator:
    annotator = campaign.annotators[name]
    if campaign.closed:
        raise RefusedError("The campaign is closed. Thank you; nothing more is needed.")
    if annotator.status != "working":
        raise RefusedError("You are not taking part at the moment.")
    return annotator


def _known(campaign: Campaign, name: str) -> Annotator:
    if name not in campaign.annotators:
        raise DataError(
            f"no annotator {name!r}. Annotators: {', '.join(campaign.annotators)}. One more joins with "
            "'pasture people add CAMPAIGN NAME'."
        )
    return campaign.annotators[name]


def _voted(campaign: Campaign, name: str, item: Item, ballot: Ballot) -> Voted:
    decided = ballot.said in ("first", "second")
    return Voted(
        annotator=name,
        item=item.id,
        comparison_id=item.pair.comparison.id,
        role=item.role,
        said=_named(ballot.said, item.shown_first),
        shown_first=item.shown_first,
        strength=ballot.strength if decided and campaign.settings.strength else None,
        reason=ballot.reason.strip(),
        seconds=ballot.seconds,
    )


def _named(said: Said, shown_first: str | None) -> Said:
    """What was said of the places on the page, in the comparison's own naming; the same rule leads back."""
    if shown_first == "second" and said in ("first", "second"):
        return "second" if said == "first" else "first"
    return said
