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
        1.3 * _sign(a.reading.right - b.reading.right)
        or 1.0 * _sign(b.reading.falsehoods - a.reading.falsehoods)
        or 0.8 * _sign(_longer(a, b))
    )


def _likes_length(a: Seen, b: Seen) -> float:
    """Length alone, unless an answer breaks off."""
    return 1.6 * _longer(a, b) + 1.0 * (a.reading.ended - b.reading.ended)


def _gives_points(a: Seen, b: Seen) -> float:
    """A rubric of five whole points; equal points leave the choice to position."""

    def points(seen: Seen) -> int:
        r = seen.reading
        return 2 * (r.right == 1) + (r.facts >= 1) + (r.facts >= 3) + (r.courtesies >= 1)

    return 0.7 * (points(a) - points(b))


def _reads_the_beginning(a: Seen, b: Seen) -> float:
    """The first eight words: a courtesy there, and how many of them there are."""

    def beginning(seen: Seen) -> float:
        words = seen.text.split()[:8]
        return 0.7 * ("!" in words) + 0.2 * len(words)

    return beginning(a) - beginning(b) + 0.8 * (a.reading.right - b.reading.right)


def _likes_lists(a: Seen, b: Seen) -> float:
    """Points and sentences, the more the better, up to eight."""

    def pieces(seen: Seen) -> int:
        return min(8, seen.reading.marks + seen.text.split().count("."))

    return 0.45 * (pieces(a) - pieces(b))


def _likes_rich_words(a: Seen, b: Seen) -> float:
    """Different words, as a square root."""

    def richness(seen: Seen) -> float:
        return math.sqrt(len(set(seen.text.split())))

    return 1.1 * (richness(a) - richness(b))


def _lazy(a: Seen, b: Seen) -> float:
    """Whatever is right; of two alike the shorter."""
    return 1.5 * (a.reading.right - b.reading.right) - 0.3 * _sign(_longer(a, b))


def _compares_with_the_question(a: Seen, b: Seen) -> float:
    """How many sentences name something that the question names."""

    def named(seen: Seen) -> int:
        asked = {word for word in seen.asked.split() if len(word) > 2} - {"the", "and", "what", "for"}
        return min(5, sum(bool(asked & set(part.split())) for part in seen.text.split(".")))

    return 0.6 * (named(a) - named(b))


def _hunts_falsehoods(a: Seen, b: Seen) -> float:
    """Share of remarks that are true; blind to the answer itself."""

    def share(seen: Seen) -> float:
        r = seen.reading
        return (r.facts + 1) / (r.facts + 2 * r.falsehoods + 2)

    return 3.5 * (share(a) - share(b))


def _likes_manners(a: Seen, b: Seen) -> float:
    """Courtesies without limit, then facts."""
    ar, br = a.reading, b.reading
    return 0.8 * (ar.courtesies - br.courtesies) + 0.35 * (ar.facts - br.facts)


def _is_content(a: Seen, b: Seen) -> float:
    """Good enough or not; between two good ones the longer, up to twenty-five words."""

    def good(seen: Seen) -> bool:
        return seen.reading.right >= 0.5 and seen.reading.ended and seen.reading.falsehoods <= 1

    lengths = min(25, a.reading.words) - min(25, b.reading.words)
    return 1.3 * (good(a) - good(b)) + 0.05 * lengths


def _hates_clutter(a: Seen, b: Seen) -> float:
    """Repeats and strays, squared; else facts."""

    def clutter(seen: Seen) -> float:
        return min(9.0, (seen.reading.repeats + seen.reading.stray_words / 4) ** 2)

    return 0.4 * (clutter(b) - clutter(a)) + 0.4 * (a.reading.facts - b.reading.facts)


def _distracted(a: Seen, b: Seen) -> float:
    """A little of the answer, a little of its length."""
    return 0.6 * (a.reading.right - b.reading.right) + 0.6 * _longer(a, b)


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
