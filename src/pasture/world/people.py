"""The meadow's sixteen people: one hidden idea of a good answer, weighed by each in a personal way, chosen by chance.

What all of them value is `COMMON`; the table says why each weight is what it is, and docs/meadow.md how the table was
calibrated. No number here is used by the pool of `world.pool`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pasture.world.reading import Reading

COMMON: Mapping[str, float] = {
    "right": 1.0,  # the yardstick of the others: an answer that is wholly right
    "fact": 1.0,  # per true remark up to what is wanted: what a small model can learn to see must weigh enough
    "courtesy": 0.8,  # for the first one only, so that there is nothing to gain by more; less than one remark
    "falsehood": -0.3,  # a false remark costs a third of a true one's worth, and earns nothing
    "repeat": -0.15,  # saying it again is tiresome, and earns nothing
    "excess": -0.25,  # per true remark more than was wanted: helpful up to a point
    "stray": -0.02,  # per word: five words about something else cost a tenth
    "cut": -1.5,  # an answer without an end is worse than a wrong one with it
    "silence": -2.0,  # and no answer the worst
}
"""Points of utility, by feature. Calibrated together with the decisiveness of people; see docs/meadow.md."""


def features(reading: Reading) -> dict[str, float]:
    """What people weigh in an answer, by the names of `COMMON`."""
    return {
        "right": reading.right,
        "fact": min(reading.facts, reading.wanted_facts),
        "courtesy": min(reading.courtesies, 1),
        "falsehood": reading.falsehoods,
        "repeat": reading.repeats,
        "excess": max(0, reading.facts - reading.wanted_facts),
        "stray": reading.stray_words,
        "cut": not reading.ended,
        "silence": reading.words == 0,
    }


@dataclass(frozen=True)
class Person:
    """One of the sixteen."""

    name: str
    tastes: Mapping[str, float]
    """What a person weighs more or less than the others, as factors on `COMMON`."""
    decisiveness: float
    """Log-odds of a choice per point of utility."""

    def utility(self, reading: Reading) -> float:
        """How much this person likes an answer."""
        return sum(COMMON[name] * self.tastes.get(name, 1.0) * value for name, value in features(reading).items())

    def probability_first(self, first: Reading, second: Reading) -> float:
        """Chance that this person prefers the first answer to the second."""
        return logistic(self.decisiveness * (self.utility(first) - self.utility(second)))


def logistic(log_odds: float) -> float:
    """1 / (1 + exp(-log_odds)), without overflow."""
    return 0.5 + 0.5 * math.tanh(log_odds / 2)


PEOPLE: tuple[Person, ...] = (
    Person("person-01", {}, 1.26),
    Person("person-02", {"right": 2.0, "falsehood": 1.5, "courtesy": 0.0}, 1.17),
    Person("person-03", {"right": 0.5, "courtesy": 2.0}, 0.95),
    Person("person-04", {"fact": 1.6, "excess": 0.5}, 1.06),
    Person("person-05", {"fact": 0.6, "excess": 1.5, "stray": 1.5}, 1.06),
    Person("person-06", {"falsehood": 2.0, "stray": 0.5}, 1.06),
    Person("person-07", {"courtesy": 1.6, "repeat": 2.0}, 1.06),
    Person("person-08", {"right": 1.5, "fact": 0.7}, 1.38),
    Person("person-09", {"right": 0.7, "fact": 1.4, "courtesy": 1.4}, 0.75),
    Person("person-10", {"excess": 2.0, "courtesy": 0.5}, 0.85),
    Person("person-11", {"fact": 1.2, "falsehood": 0.5}, 1.17),
    Person("person-12", {"right": 1.3, "stray": 2.0, "cut": 0.5}, 0.95),
    Person("person-13", {"fact": 0.8, "repeat": 1.5, "falsehood": 1.3}, 1.26),
    Person("person-14", {"right": 0.4, "fact": 1.5}, 0.63),
    Person("person-15", {"courtesy": -0.5, "right": 1.2}, 0.95),
    Person("person-16", {"fact": 1.1, "courtesy": 1.2}, 1.48),
)


def common_utility(reading: Reading) -> float:
    """What an answer is worth by the weights that all people share: the meadow's truth, which no label shows."""
    return sum(COMMON[name] * value for name, value in features(reading).items())
