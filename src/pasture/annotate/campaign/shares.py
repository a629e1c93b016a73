"""Who labels which pair: as many annotators a pair as wanted, shares even, and again so after someone has left.

A plan says for each pair who holds it. It follows from the pairs, the annotators and what happened, never from chance
outside the campaign's secret.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

from pasture.annotate.campaign.tokens import fraction
from pasture.core.errors import DataError

TAKE_PAIRS = 5
"""How many pairs an annotator who is done takes over at once."""


class Shares:
    """The plan of a campaign's pairs."""

    def __init__(self, secret: str, overlap: int) -> None:
        self._secret = secret
        self._overlap = overlap
        self._held: dict[str, dict[str, None]] = {}
        """Pairs by annotator, in no order that matters."""
        self._holders: dict[str, dict[str, None]] = {}
        self._done: dict[str, set[str]] = {}
        """Of those, the ones that have a standing answer, by annotator."""
        self._skipped: dict[str, set[str]] = {}
        """Of those, the ones whose answer is a skip: they hold no place of a label."""
        self._late: dict[str, dict[str, int]] = {}
        """Pairs that came to an annotator when somebody skipped them, with the number of the skip."""
        self._skips = 0

    def held_by(self, annotator: str) -> Sequence[str]:
        """The pairs of an annotator, answered or not."""
        return list(self._held.get(annotator, ()))

    def holders(self, pair: str) -> Sequence[str]:
        """The annotators who have labelled a pair, or shall; who skipped it is none of them."""
        return [name for name in self._holders.get(pair, ()) if pair not in self._skipped.get(name, set())]

    def waiting_for(self, pair: str) -> Sequence[str]:
        """The annotators who still have to answer a pair."""
        return [name for name in self._holders.get(pair, ()) if pair not in self._done.get(name, set())]

    def waiting_of(self, annotator: str) -> Sequence[str]:
        """The pairs that an annotator still has to answer."""
        done = self._done.get(annotator, set())
        return [pair for pair in self._held.get(annotator, ()) if pair not in done]

    def mark(self, annotator: str, pair: str, *, done: bool) -> None:
        """Note that a pair was answered, or is open again.

        An answer by someone who does not hold the pair takes the place of a holder who has not answered.
        """
        answered = self._done.setdefault(annotator, set())
        if not done:
            answered.discard(pair)
            self._take_skip_back(annotator, pair)
            return
        if pair not in self._held.get(annotator, {}):
            waiting = self.waiting_for(pair)
            if waiting:
                self._release(waiting[-1], pair)
            self._hold(annotator, pair)
        answered.add(pair)

    def skip(self, annotator: str, pair: str, active: Sequence[str]) -> None:
        """Note that a pair was skipped, and give it to somebody active who has not met it, where there is anybody."""
        if pair not in self._held.get(annotator, {}):
            self._hold(annotator, pair)
        self._done.setdefault(annotator, set()).add(pair)
        self._skipped.setdefault(annotator, set()).add(pair)
        self._skips += 1
        for name in self._fill(pair, active):
            self._late.setdefault(name, {})[pair] = self._skips

    def is_late(self, annotator: str, pair: str) -> bool:
        """Whether a pair came to an annotator when somebody skipped it."""
        return pair in self._late.get(annotator, {})

    def place_of(self, annotator: str, pair: str) -> float:
        """Where a pair stands in an annotator's order; what came by a skip is at the end, behind the pair in hand."""
        return self._late.get(annotator, {}).get(pair) or place(self._secret, annotator, pair)

    def replan(self, pairs: Iterable[str], active: Sequence[str], erased: Set[str] = frozenset()) -> None:
        """Give each pair its number of holders among who is active, and even out the shares.

        Who is not active keeps the pairs that they have answered; those in `erased` keep none.
        """
        for annotator in list(self._held):
            if annotator not in active:
                self._take_from(annotator, erased)
        everyone = list(pairs)
        for pair in sorted(everyone, key=lambda pair: fraction(self._secret, "order", pair)):
            self._holders.setdefault(pair, {})
            self._fill(pair, active)
        self._even_out(active)

    def take_over(self, annotator: str, active: Sequence[str]) -> int:
        """Move up to `TAKE_PAIRS` unanswered pairs to `annotator` from those who have most before them."""
        moved = 0
        while moved < TAKE_PAIRS and self._move_one(annotator, [name for name in active if name != annotator]):
            moved += 1
        return moved

    def can_take_over(self, annotator: str, active: Sequence[str]) -> bool:
        """Whether anyone holds an unanswered pair that `annotator` does not."""
        mine = self._held.get(annotator, {})
        return any(pair not in mine for name in active if name != annotator for pair in self.waiting_of(name))

    def _take_from(self, annotator: str, erased: Set[str]) -> None:
        gone = annotator in erased
        kept = set() if gone else self._done.get(annotator, set())
        for pair in [pair for pair in self._held[annotator] if pair not in kept]:
            self._release(annotator, pair)
        if gone:
            self._done.pop(annotator, None)
            self._skipped.pop(annotator, None)

    def _take_skip_back(self, annotator: str, pair: str) -> None:
        skipped = self._skipped.get(annotator, set())
        if pair not in skipped:
            return
        skipped.discard(pair)
        instead = [name for name in self.waiting_for(pair) if name != annotator]
        if instead and len(self.holders(pair)) > self._overlap:
            self._release(instead[-1], pair)

    def _fill(self, pair: str, active: Sequence[str]) -> Sequence[str]:
        """Have a pair held by as many as it wants, if there are as many; who is new to it."""
        missing = self._overlap - len(self.holders(pair))
        if missing <= 0:
            return []
        free = [name for name in active if name not in self._holders[pair]]
        free.sort(key=lambda name: (len(self._held.get(name, ())), fraction(self._secret, "holder", pair, name)))
        for name in free[:missing]:
            self._hold(name, pair)
        return free[:missing]

    def _even_out(self, active: Sequence[str]) -> None:
        for _ in range(sum(map(len, self._held.values()))):  # a bound that is never reached
            load = {name: len(self._held.get(name, ())) for name in active}
            if not load or max(load.values()) - min(load.values()) <= 1:
                return
            fewest = min(load, key=lambda name: (load[name], name))
            fuller = [name for name in active if load[name] > load[fewest] + 1]
            if not self._move_one(fewest, fuller, load):
                return

    def _move_one(self, to: str, givers: Sequence[str], load: Mapping[str, int] | None = None) -> bool:
        """Move the pair that comes last to the fullest giver who has one to give; whether there was one."""
        mine = self._held.get(to, {})
        size = {name: len(self.waiting_of(name)) if load is None else load[name] for name in givers}
        for giver in sorted(givers, key=lambda name: (-size[name], name)):
            spare = [pair for pair in self.waiting_of(giver) if pair not in mine]
            if spare:
                pair = max(spare, key=lambda pair: self.place_of(giver, pair))
                self._release(giver, pair)
                self._hold(to, pair)
                return True
        return False

    def _hold(self, annotator: str, pair: str) -> None:
        self._held.setdefault(annotator, {})[pair] = None
        self._holders[pair][annotator] = None

    def _release(self, annotator: str, pair: str) -> None:
        self._late.get(annotator, {}).pop(pair, None)
        self._held[annotator].pop(pair, None)
        self._holders[pair].pop(annotator, None)


def place(secret: str, annotator: str, pair: str) -> float:
    """Where a pair stands in the order in which an annotator meets pairs, from 0 to 1."""
    return fraction(secret, "place", annotator, pair)


def check_overlap(overlap: int, annotators: Sequence[str]) -> None:
    """See that there are annotators enough.

    Raises:
        DataError: if a pair would need one annotator twice.
    """
    if overlap > len(annotators):
        raise DataError(
            f"expected at least {overlap} annotators for {overlap} labels a pair, got {len(annotators)}: "
            "nobody labels a pair twice. Raise --annotators or lower --overlap."
        )
