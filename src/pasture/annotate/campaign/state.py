"""What is known of a campaign, from its events in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pasture.annotate.campaign import events as happened
from pasture.annotate.campaign.events import Event, Opened, PairAdded, Role, Said, Settings, Voted
from pasture.annotate.campaign.shares import Shares
from pasture.annotate.campaign.tokens import fraction, item_id
from pasture.core.errors import StoreError

Status = Literal["working", "left", "dropped", "unqualified"]


@dataclass(frozen=True)
class Item:
    """A pair as one annotator meets it once."""

    id: str
    pair: PairAdded
    role: Role
    shown_first: Literal["first", "second"]


@dataclass
class Annotator:
    """What one annotator has done."""

    name: str
    status: Status = "working"
    votes: dict[str, Voted] = field(default_factory=dict)
    """Standing answers by item, in the order in which they were given."""
    turn: int = 0
    """Counts answers and undoings; a form is good for one turn."""
    undone: int = 0
    taken_over: int = 0
    admitted: bool = False
    """Whether the qualification round lies behind; from then on its answers stand."""

    def last(self) -> Voted | None:
        """The last standing answer."""
        return next(reversed(self.votes.values()), None)


class Campaign:
    """The state of a campaign; changes by `apply` alone."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.pairs: dict[str, PairAdded] = {}
        self.annotators = {name: Annotator(name) for name in opened.annotators}
        self.closed = False
        self.version = 1
        """Counts events."""
        self.settled: set[str] = set()
        """Pairs whose labels a run has taken."""
        self.invited: dict[str, happened.Invited] = {}
        self.served_at: str | None = None
        """Where the page was opened last."""
        self._sessions: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._given: set[str] = set()
        """Digests of all tokens and sessions there ever were."""
        self._by_role: dict[str, list[str]] = {"work": [], "gold": [], "qualification": []}
        self._shares = Shares(opened.secret, opened.settings.overlap)
        self._planned = False
        self._rounds: dict[str, list[Item]] = {}
        """What each annotator meets, answered or not; drawn again when shares have changed."""

    @classmethod
    def replayed(cls, events: Iterable[Event]) -> "Campaign":
        """The state after `events`, the first of which opens the campaign.

        Raises:
            StoreError: if it does not.
        """
        iterator = iter(events)
        first = next(iterator, None)
        if not isinstance(first, Opened):
            raise StoreError("the journal does not begin with the opening of a campaign. Restore it from a backup.")
        campaign = cls(first)
        for event in iterator:
            campaign.apply(event)
        return campaign

    @property
    def settings(self) -> Settings:
        """What the campaign is held to."""
        return self.opened.settings

    def apply(self, event: Event) -> None:
        """Take an event in."""
        self.version += 1
        if isinstance(event, PairAdded):
            self.pairs[event.comparison.id] = event
            self._by_role[event.role].append(event.comparison.id)
            self._planned = False
            self._rounds.clear()
        elif isinstance(event, happened.Invited):
            self._invite(event)
        elif isinstance(event, Voted):
            self._vote(event)
        elif isinstance(event, happened.Undone):
            annotator = self.annotators[event.annotator]
            vote = annotator.votes.pop(event.item)
            annotator.turn += 1
            annotator.undone += 1
            self._mark(vote, done=False)
        elif isinstance(event, happened.Took):
            self._plan()
            taken = self._shares.take_over(event.annotator, self.active)
            self.annotators[event.annotator].taken_over += taken
            self._rounds.clear()
        elif isinstance(event, happened.Closed):
            self.closed = True
        elif isinstance(event, happened.Settled):
            self.settled.update(event.pairs)
        elif isinstance(event, happened.Served):
            self.served_at = event.address
        elif not isinstance(event, Opened):
            self._set_status(event)

    @property
    def active(self) -> Sequence[str]:
        """Annotators who are asked."""
        return [name for name, one in self.annotators.items() if one.status == "working"]

    def of_role(self, role: Literal["work", "gold", "qualification"]) -> Sequence[PairAdded]:
        """The pairs of a role, in the order in which they were added."""
        return [self.pairs[pair] for pair in self._by_role[role]]

    def who(self, *, token: str | None = None, session: str | None = None) -> str | None:
        """Who holds the secret of this digest; None for nobody, or nobody any more."""
        found = self._tokens.get(token or "") or self._sessions.get(session or "")
        if found is not None and found != happened.OWNER and self.annotators[found].status == "dropped":
            return None
        return found

    def was_given(self, secret_digest: str) -> bool:
        """Whether a token or a session of this digest is somebody's or was: whoever brings it does not guess."""
        return secret_digest in self._given

    def queue(self, name: str) -> Sequence[Item]:
        """What an annotator still has to answer, in order; empty for who is not asked."""
        votes = self.annotators[name].votes
        return [item for item in self._round(name) if item.id not in votes]

    def current(self, name: str) -> Item | None:
        """The item that an annotator is shown."""
        votes = self.annotators[name].votes
        return next((item for item in self._round(name) if item.id not in votes), None)

    def progress(self, name: str) -> tuple[int, int]:
        """How many items of an annotator's round are answered, and how many there are."""
        annotator = self.annotators[name]
        qualifying = self._is_qualifying(annotator)
        done = sum((vote.role == "qualification") == qualifying for vote in annotator.votes.values())
        return done, done + len(self.queue(name))

    def share_of(self, name: str) -> int:
        """How many pairs are an annotator's to label, answered or not."""
        self._plan()
        return len(self._shares.held_by(name))

    def can_take_over(self, name: str) -> bool:
        """Whether an annotator who is done could help the others."""
        self._plan()
        return not self.closed and self._shares.can_take_over(name, self.active)

    def stands(self, vote: Voted) -> bool:
        """Whether an answer can no more be taken back: something was built on it."""
        if vote.role == "qualification":
            return self.annotators[vote.annotator].admitted
        return vote.role == "work" and vote.comparison_id in self.settled

    def holders(self, comparison_id: str) -> Sequence[str]:
        """The annotators who have labelled a pair, or shall."""
        self._plan()
        return self._shares.holders(comparison_id)

    def answers(self) -> Mapping[str, Sequence[Voted]]:
        """Standing answers to the pairs that are labelled, skips among them, by comparison; not of the dropped."""
        found: dict[str, list[Voted]] = {pair: [] for pair in self._by_role["work"]}
        for annotator in self.annotators.values():
            if annotator.status == "dropped":
                continue
            for vote in annotator.votes.values():
                if vote.role == "work":
                    found[vote.comparison_id].append(vote)
        return found

    def labels(self) -> Mapping[str, Sequence[Voted]]:
        """The answers that are labels, by comparison: a skip is none."""
        return {pair: [vote for vote in votes if vote.said != "skip"] for pair, votes in self.answers().items()}

    def missing_labels(self) -> int:
        """How many labels are still wanted."""
        return sum(max(0, self.settings.overlap - len(votes)) for votes in self.labels().values())

    def unassigned_labels(self) -> int:
        """How many of the missing labels nobody is left to give: all who work have labelled or skipped the pair."""
        self._plan()
        return sum(
            max(0, self.settings.overlap - len(votes) - len(self._shares.waiting_for(pair)))
            for pair, votes in self.labels().items()
        )

    def qualification_share(self, name: str) -> float | None:
        """Share of the qualification round that an annotator answered as expected; None before its end."""
        wanted = self._by_role["qualification"]
        votes = [vote for vote in self.annotators[name].votes.values() if vote.role == "qualification"]
        if not wanted or len(votes) < len(wanted):
            return None
        return sum(is_expected(vote, self.pairs[vote.comparison_id]) for vote in votes) / len(wanted)

    def _plan(self) -> None:
        if not self._planned:
            self._replan()

    def _replan(self) -> None:
        dropped = {name for name, one in self.annotators.items() if one.status == "dropped"}
        self._shares.replan(self._by_role["work"], self.active, dropped)
        self._planned = True
        self._rounds.clear()

    def _round(self, name: str) -> Sequence[Item]:
        annotator = self.annotators[name]
        if annotator.status != "working":
            return []
        self._plan()
        if name not in self._rounds:
            qualifying = self._is_qualifying(annotator)
            wanted: list[tuple[str, Role]] = [(pair, "qualification") for pair in self._by_role["qualification"]]
            self._rounds[name] = self._ordered(name, wanted if qualifying else self._mixed(name))
        return self._rounds[name]

    def _is_qualifying(self, annotator: Annotator) -> bool:
        return bool(self._by_role["qualification"]) and not annotator.admitted

    def _invite(self, event: happened.Invited) -> None:
        before = self.invited.get(event.who)
        if before is not None:
            self._tokens.pop(before.token_hash, None)
            self._sessions.pop(before.session_hash, None)
        self.invited[event.who] = event
        self._given |= {event.token_hash, event.session_hash}
        self._tokens[event.token_hash] = event.who
        self._sessions[event.session_hash] = event.who

    def _vote(self, vote: Voted) -> None:
        self._plan()
        annotator = self.annotators[vote.annotator]
        annotator.votes[vote.item] = vote
        annotator.turn += 1
        self._mark(vote, done=True)
        share = None if annotator.admitted else self.qualification_share(vote.annotator)
        if share is not None:
            annotator.admitted = share > self.settings.pass_share
            self._rounds.clear()
            if not annotator.admitted:
                annotator.status = "unqualified"
                self._replan()

    def _mark(self, vote: Voted, *, done: bool) -> None:
        if vote.role != "work":
            return
        if done and vote.said == "skip":
            self._shares.skip(vote.annotator, vote.comparison_id, self.active)
        else:
            self._shares.mark(vote.annotator, vote.comparison_id, done=done)
        if vote.said == "skip":  # somebody else was given the pair, or gives it back
            self._rounds.clear()

    def _set_status(self, event: happened.Joined | happened.Left | happened.Returned | happened.Dropped) -> None:
        self._plan()
        status: Mapping[str, Status] = {
            "joined": "working", "left": "left", "returned": "working", "dropped": "dropped"
        }  # fmt: skip
        one = self.annotators.setdefault(event.annotator, Annotator(event.annotator))
        one.status = status[event.kind]
        self._replan()

    def _mixed(self, name: str) -> list[tuple[str, Role]]:
        """An annotator's work with gold pairs between, and the pairs that come a second time."""
        share, secret = self.settings.repeat_share, self.opened.secret
        mixed: list[tuple[str, Role]] = [(pair, "gold") for pair in self._by_role["gold"]]
        for pair in self._shares.held_by(name):
            mixed.append((pair, "work"))
            if fraction(secret, "repeat", name, pair) < share and not self._shares.is_late(name, pair):
                mixed.append((pair, "repeat"))
        return mixed

    def _ordered(self, name: str, wanted: Iterable[tuple[str, Role]]) -> list[Item]:
        placed = sorted((self._place(name, pair, role), pair, role) for pair, role in wanted)
        return [self._item(name, pair, role) for _, pair, role in placed]

    def _place(self, name: str, pair: str, role: Role) -> float:
        first = self._shares.place_of(name, pair)
        # A pair comes again half-way between its first showing and the end.
        return (1 + first) / 2 if role == "repeat" else first

    def _item(self, name: str, pair: str, role: Role) -> Item:
        secret = self.opened.secret
        second_first = fraction(secret, "side", name, pair) < 0.5
        exchanged = second_first != (role == "repeat")
        shown: Literal["first", "second"] = "second" if exchanged else "first"
        return Item(item_id(secret, name, role, pair), self.pairs[pair], role, shown)


def is_expected(vote: Voted, pair: PairAdded) -> bool:
    """Whether an answer is the known one."""
    return label_of(vote) == pair.expected


def label_of(vote: Voted) -> Said:
    """What an answer says of a pair; two bad answers are a tie."""
    return "tie" if vote.said == "both_bad" else vote.said
