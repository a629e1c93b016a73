"""The pool: thirteen simulated raters of another make than the people, each with a rule, a leaning and a blind spot.

They look at the same answers and share none of the people's weights: they count, cap, compare lengths, read only the
beginning or decide in stages. Each returns log-odds for the answer it was shown first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pasture.world.people import logistic
from pasture.world.reading import Reading


@dataclass(frozen=True)
class Seen:
    """An answer as a rater meets it."""

    asked: str
    text: str
    reading: Reading


DECISIVENESS = 1.3
"""What every rule's log-odds are multiplied by, so that the pool agrees with people as often as the paper's does."""

Rule = Callable[[Seen, Seen], float]


@dataclass(frozen=True)
class Rater:
    """One of the thirteen."""

    name: str
    rule: Rule
    first_bias: float = 0.0
    """Log-odds added for the answer shown first."""

    def probability_shown_first(self, first: Seen, second: Seen) -> float:
        """Chance that this rater prefers the answer shown first."""
        return logistic(DECISIVENESS * self.rule(first, second) + self.first_bias)


def _sign(difference: float) -> float:
    return float((difference > 0) - (difference < 0))


def _longer(a: Seen, b: Seen) -> float:
    """How much longer the first is, as a log-ratio of words."""
    return math.log((a.reading.words + 3) / (b.reading.words + 3))


def _welcome(seen: Seen) -> int:
    """True remarks, of which one more than was asked for is still welcome."""
    return min(seen.reading.facts, seen.reading.wanted_facts + 1)


def _checks(a: Seen, b: Seen) -> float:
    """In stages: the right answer, else fewer falsehoods, else the longer one."""
    return (
        2.2 * _sign(a.reading.right - b.reading.right)
        or 1.6 * _sign(b.reading.falsehoods - a.reading.falsehoods)
        or 1.2 * _sign(_longer(a, b))
    )


def _likes_length(a: Seen, b: Seen) -> float:
    """Length, less what is plainly wasted; blind to whether the question is answered."""

    def waste(seen: Seen) -> float:
        r = seen.reading
        return 0.8 * r.repeats + 0.25 * r.stray_words + 0.8 * r.falsehoods + 2.0 * (not r.ended)

    return 2.8 * _longer(a, b) + waste(b) - waste(a)


def _gives_points(a: Seen, b: Seen) -> float:
    """A rubric of six whole points; equal points leave the choice to position."""

    def points(seen: Seen) -> int:
        r = seen.reading
        return 2 * (r.right == 1) + (r.facts >= 1) + (r.facts >= 2) + (r.courtesies >= 1) + (r.falsehoods == 0)

    return 1.1 * (points(a) - points(b))


def _reads_the_beginning(a: Seen, b: Seen) -> float:
    """The first eight words: a courtesy there, how many of them there are, and whether they answer."""

    def beginning(seen: Seen) -> float:
        words = seen.text.split()[:8]
        return 1.8 * ("!" in words) + 0.12 * len(words) + 1.6 * seen.reading.right

    return beginning(a) - beginning(b)


def _likes_lists(a: Seen, b: Seen) -> float:
    """Points and sentences that hold, up to seven."""

    def pieces(seen: Seen) -> float:
        r = seen.reading
        return min(7.0, r.marks / 2 + _welcome(seen) + r.courtesies + 2 * r.right)

    return 1.0 * (pieces(a) - pieces(b))


def _likes_rich_words(a: Seen, b: Seen) -> float:
    """Different words, as a square root; an answer that is off the point counts half."""

    def richness(seen: Seen) -> float:
        return math.sqrt(len(set(seen.text.split()))) * (0.5 + seen.reading.right / 2)

    return 1.6 * (richness(a) - richness(b))


def _lazy(a: Seen, b: Seen) -> float:
    """Whatever is right and polite; of two alike the shorter."""
    right, polite = a.reading.right - b.reading.right, _sign(a.reading.courtesies - b.reading.courtesies)
    return 2.4 * right + 1.2 * polite - 0.3 * _sign(_longer(a, b))


def _compares_with_the_question(a: Seen, b: Seen) -> float:
    """Sentences that name something that the question names, less those that do not; a greeting is worth one."""

    def named(seen: Seen) -> int:
        asked = {word for word in seen.asked.split() if len(word) > 2} - {"the", "and", "what", "for"}
        parts = [set(part.split()) for part in seen.text.split(".") if part.strip()]
        return max(-2, min(4, sum(1 if asked & part or "!" in part else -1 for part in parts)))

    return 1.3 * (named(a) - named(b))


def _hunts_falsehoods(a: Seen, b: Seen) -> float:
    """Share of remarks that are true, and a friendly word; blind to the answer itself."""

    def share(seen: Seen) -> float:
        r = seen.reading
        return (r.facts + 1) / (r.facts + 2 * r.falsehoods + 2)

    return 8.0 * (share(a) - share(b)) + 0.9 * _sign(a.reading.courtesies - b.reading.courtesies)


def _likes_manners(a: Seen, b: Seen) -> float:
    """Courtesies without limit, then welcome remarks."""
    return 1.6 * (a.reading.courtesies - b.reading.courtesies) + 0.9 * (_welcome(a) - _welcome(b))


def _is_content(a: Seen, b: Seen) -> float:
    """Good enough or not; between two alike the one nearer to eighteen words to the point."""

    def good(seen: Seen) -> bool:
        return seen.reading.right >= 0.5 and seen.reading.ended and seen.reading.falsehoods <= 1

    def length(seen: Seen) -> int:
        return 18 - abs(18 - (seen.reading.words - seen.reading.stray_words))

    return 2.2 * (good(a) - good(b)) + 0.12 * (length(a) - length(b))


def _hates_clutter(a: Seen, b: Seen) -> float:
    """Repeats, strays and remarks too many, squared; else welcome remarks."""

    def clutter(seen: Seen) -> float:
        unwelcome = seen.reading.facts - _welcome(seen)
        return min(6.0, (unwelcome + seen.reading.repeats + seen.reading.stray_words / 8) ** 2)

    return 0.5 * (clutter(b) - clutter(a)) + 1.6 * (_welcome(a) - _welcome(b))


def _distracted(a: Seen, b: Seen) -> float:
    """A little of the answer, of its manners and of its length, until that is more than a glance takes in."""
    ar, br = a.reading, b.reading
    glance = min(20, ar.words) - min(20, br.words) - 2 * (max(26, ar.words) - max(26, br.words))
    return 1.4 * (ar.right - br.right) + 0.06 * glance + 0.7 * (ar.courtesies - br.courtesies)


POOL: tuple[Rater, ...] = (
    Rater("alder", _checks),
    Rater("ash", _likes_length),
    Rater("beech", _gives_points, first_bias=0.3),
    Rater("birch", _reads_the_beginning),
    Rater("cedar", _likes_lists),
    Rater("elm", _likes_rich_words, first_bias=-0.2),
    Rater("fir", _lazy, first_bias=0.5),
    Rater("hazel", _compares_with_the_question),
    Rater("larch", _hunts_falsehoods),
    Rater("maple", _likes_manners, first_bias=0.2),
    Rater("oak", _is_content),
    Rater("pine", _hates_clutter, first_bias=-0.4),
    Rater("yew", _distracted, first_bias=0.2),
)
