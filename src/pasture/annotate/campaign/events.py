"""What happens in a campaign: its journal holds these, one after the other, and nothing else.

An event is never changed and never removed. Everything that is known of a campaign follows from its events in order,
so that a kill, a second machine and a dropped annotator need no care of their own.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from pasture.core.records import Comparison, Fraction, NonEmpty, Record

Role = Literal["work", "gold", "qualification", "repeat"]
"""Why a pair is shown: for its label, to check against a known answer, to admit an annotator, to see whether the same
annotator says the same again."""
Said = Literal["first", "second", "tie", "both_bad", "skip"]
"""In the comparison's own naming of first and second, whichever was shown where."""

OWNER = "owner"
"""Who made the campaign; no annotator has this name."""
REASON_CHARACTERS = 500
LONGEST_NAME = 80
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME, pattern=r"\S")]


class Settings(Record):
    """What a campaign is held to from its first day to its last."""

    overlap: Annotated[int, Field(ge=1)] = 1
    """Labels wanted for each pair, by as many annotators."""
    repeat_share: Fraction = 0.0
    """Share of an annotator's pairs that are shown a second time, sides exchanged."""
    pass_share: Fraction = 0.7
    """Who agrees with no more than this share of the qualification round is not admitted."""
    strength: bool = False
    """Whether the strength of a preference is asked for."""
    markdown: bool = True
    """Whether texts are laid out as Markdown; as plain text where not."""
    guidelines: Annotated[str, StringConstraints(max_length=100_000)] = ""
    wage_usd_per_hour: Annotated[float, Field(ge=0.0)] | None = None


class Opened(Record):
    """The first event of every campaign."""

    kind: Literal["opened"] = "opened"
    name: Name
    identity: NonEmpty
    """Tells campaigns of the same name apart: random, or drawn from the place where a run made it."""
    secret: NonEmpty
    """Random; side orders and the numbers of items are drawn from it. Never leaves the store."""
    annotators: tuple[Name, ...]
    settings: Settings
    by_run: bool = False
    """Whether a run made it of what one of its steps asked, and others may ask more."""


class PairAdded(Record):
    """A comparison to be labelled."""

    kind: Literal["pair"] = "pair"
    comparison: Comparison
    role: Literal["work", "gold", "qualification"] = "work"
    expected: Literal["first", "second", "tie"] | None = None
    """The known answer of a gold or qualification pair."""


class Invited(Record):
    """A new link for an annotator or the owner; whatever link and sessions they had before are void."""

    kind: Literal["invited"] = "invited"
    who: Name
    token_hash: NonEmpty
    session_hash: NonEmpty


class Joined(Record):
    """An annotator who was not there at the beginning; takes an even share of what is left."""

    kind: Literal["joined"] = "joined"
    annotator: Name


class Served(Record):
    """The page was opened at this address; links that are made later lead there."""

    kind: Literal["served"] = "served"
    address: NonEmpty


class Voted(Record):
    """An answer to an item, in place of none."""

    kind: Literal["voted"] = "voted"
    annotator: Name
    item: NonEmpty
    comparison_id: NonEmpty
    role: Role
    said: Said
    shown_first: Literal["first", "second"] | None
    """None where the order is not known, as of labels that were given elsewhere."""
    strength: Annotated[int, Field(ge=1, le=3)] | None = None
    """1 slightly, 2 clearly, 3 much better."""
    reason: Annotated[str, StringConstraints(max_length=REASON_CHARACTERS)] = ""
    seconds: Annotated[float, Field(ge=0.0)] | None = None
    """From the showing of the pair to the answer; None where it is not known."""


class Undone(Record):
    """The annotator's last standing answer, taken back."""

    kind: Literal["undone"] = "undone"
    annotator: Name
    item: NonEmpty


class Left(Record):
    """An annotator goes for good: what was said stays, what was not is handed to the others."""

    kind: Literal["left"] = "left"
    annotator: Name


class Returned(Record):
    """An annotator who had left is back."""

    kind: Literal["returned"] = "returned"
    annotator: Name


class Took(Record):
    """An annotator who was done takes over pairs of those who have most before them."""

    kind: Literal["took"] = "took"
    annotator: Name


class Dropped(Record):
    """An annotator's answers count no more and the door is shut; others are asked in their place."""

    kind: Literal["dropped"] = "dropped"
    annotator: Name


class Settled(Record):
    """A run has taken the labels of these pairs: what was said of them stands."""

    kind: Literal["settled"] = "settled"
    pairs: tuple[NonEmpty, ...]


class Closed(Record):
    """No answer comes after this."""

    kind: Literal["closed"] = "closed"


Event = Annotated[
    Opened
    | PairAdded
    | Invited
    | Joined
    | Served
    | Voted
    | Undone
    | Left
    | Returned
    | Took
    | Dropped
    | Settled
    | Closed,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""Reads an event from its line of JSON."""
