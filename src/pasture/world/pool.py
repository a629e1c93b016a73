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
        return logistic(self.rule(first, second) + self.first_bias)


def _sign(difference: float) -> float:
    return float((difference > 0) - (difference < 0))


def _longer(a: Seen, b: Seen) -> float:
    """How much longer the first is, as a log-ratio of words."""
    return math.log((a.reading.words + 3) / (b.reading.words + 3))


def _checks(a: Seen, b: Seen) -> float:
    """In stages: the right answer, else fewer falsehoods, else the longer one."""
    return (
        2.2 * _sign(a.reading.right - b.reading.right)
        or 1.6 * _sign(b.reading.falsehoods - a.reading.falsehoods)
        or 1.2 * _sign(_longer(a, b))
    )


def _likes_length(a: Seen, b: Seen) -> float:
    """Length, as long as each word is a new one, unless an answer breaks off."""
    return (
        1.8 * _longer(a, b) + 2.0 * (a.reading.ended - b.reading.ended) + 0.7 * (b.reading.repeats - a.reading.repeats)
    )


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
    """Points and sentences that hold, up to eight."""

    def pieces(seen: Seen) -> float:
        r = seen.reading
        return min(8.0, r.marks / 2 + r.facts + r.courtesies + 2 * r.right)

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
    """How many sentences name something that the question names, and nothing else."""

    def named(seen: Seen) -> int:
        asked = {word for word in seen.asked.split() if len(word) > 2} - {"the", "and", "what", "for"}
        parts = [set(part.split()) for part in seen.text.split(".") if part.strip()]
        return max(-2, min(5, sum(1 if asked & part else -1 for part in parts if "!" not in part)))

    return 0.9 * (named(a) - named(b))


def _hunts_falsehoods(a: Seen, b: Seen) -> float:
    """Share of remarks that are true; blind to the answer itself."""

    def share(seen: Seen) -> float:
        r = seen.reading
        return (r.facts + 1) / (r.facts + 2 * r.falsehoods + 2)

    return 7.0 * (share(a) - share(b))


def _likes_manners(a: Seen, b: Seen) -> float:
    """Courtesies without limit, then facts."""
    ar, br = a.reading, b.reading
    return 1.6 * (ar.courtesies - br.courtesies) + 0.9 * (ar.facts - br.facts)


def _is_content(a: Seen, b: Seen) -> float:
    """Good enough or not; between two alike the longer, up to twenty-five words."""

    def good(seen: Seen) -> bool:
        return seen.reading.right >= 0.5 and seen.reading.ended and seen.reading.falsehoods <= 1

    lengths = min(25, a.reading.words) - min(25, b.reading.words)
    return 2.2 * (good(a) - good(b)) + 0.08 * lengths


def _hates_clutter(a: Seen, b: Seen) -> float:
    """Repeats and strays, squared; else facts."""

    def clutter(seen: Seen) -> float:
        return min(6.0, (seen.reading.repeats + seen.reading.stray_words / 8) ** 2)

    return 0.5 * (clutter(b) - clutter(a)) + 1.4 * (a.reading.facts - b.reading.facts)


def _distracted(a: Seen, b: Seen) -> float:
    """A little of the answer, a little of its length."""
    return 1.4 * (a.reading.right - b.reading.right) + 0.8 * _longer(a, b)


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
