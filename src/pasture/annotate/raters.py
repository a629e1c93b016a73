"""The meadow's people and its pool as annotators: free, instant, and the same in every process."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from pasture.annotate.draws import annotator_for, noise_label, pair_uniform, shows_second_first
from pasture.core.errors import DataError
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Completion, Instruction, Preference, Verdict
from pasture.world.people import COMMON, PEOPLE
from pasture.world.pool import DECISIVENESS, POOL, Rater, Seen
from pasture.world.reading import Reading, read

WORLD_VERSION = 2
"""Counts up when a change of the meadow moves verdicts."""


class MeadowPeople:
    """The sixteen people; each comparison is judged by one of them, or by the majority of several."""

    def __init__(self, *, seed: int = 0, votes: int = 1, noiseless: bool = False) -> None:
        """`votes` different people judge each comparison; noiseless ones always take the answer they like better.

        Raises:
            DataError: if `votes` is not from 1 to 16.
        """
        self._seed, self._votes, self._noiseless = seed, _checked_votes(votes, len(PEOPLE)), noiseless
        self._people = {person.name: person for person in PEOPLE}

    @property
    def identity(self) -> Mapping[str, object]:
        """What the verdicts depend on."""
        return {
            "annotator": "meadow-people",
            "world": WORLD_VERSION,
            "seed": self._seed,
            "votes": self._votes,
            "noiseless": self._noiseless,
            "common": dict(COMMON),
            "people": [{**asdict(person), "tastes": dict(person.tastes)} for person in PEOPLE],
        }

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """One preference for each comparison; what is no comparison of the meadow comes back unjudged."""
        return [self._judge(comparison) for comparison in comparisons]

    def _judge(self, comparison: Comparison) -> Preference:
        try:
            first, second = _readings(comparison)
        except DataError as error:
            return _unjudged(comparison, "meadow-people", error)
        names = _drawn(comparison.instruction, self._seed, self._votes, list(self._people))
        people = [self._people[name] for name in names]
        chances = [person.probability_first(first, second) for person in people]
        if self._noiseless:
            votes = [_sided(person.utility(first) - person.utility(second)) for person in people]
        else:
            votes = _votes(comparison, dict(zip(names, chances, strict=True)), self._seed)
        return _preference(comparison, names, votes, fmean(chances), self._seed)


class MeadowPool:
    """The thirteen simulated raters, with label flips on top; each comparison is judged by one of them."""

    def __init__(
        self,
        *,
        seed: int = 0,
        label_flip_probability: float = 0.25,
        votes: int = 1,
        raters: Sequence[Rater] | None = None,
    ) -> None:
        """`votes` different raters judge each comparison; flips fall on the verdict, not on the votes.

        Without `raters` all thirteen take part.

        Raises:
            DataError: if `votes` is not from 1 to the number of raters, or the probability is not from 0 to 0.5.
        """
        if not 0 <= label_flip_probability <= 0.5:
            raise DataError(f"expected a label_flip_probability from 0 to 0.5, got {label_flip_probability}.")
        self._raters = {rater.name: rater for rater in (POOL if raters is None else raters)}
        self._seed, self._votes, self._flips = seed, _checked_votes(votes, len(self._raters)), label_flip_probability

    @property
    def identity(self) -> Mapping[str, object]:
        """What the verdicts depend on."""
        return {
            "annotator": "meadow-pool",
            "world": WORLD_VERSION,
            "seed": self._seed,
            "votes": self._votes,
            "label_flip_probability": self._flips,
            "decisiveness": DECISIVENESS,
            "raters": [{"name": rater.name, "first_bias": rater.first_bias} for rater in self._raters.values()],
        }

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """One preference for each comparison; what is no comparison of the meadow comes back unjudged."""
        return [self._judge(comparison) for comparison in comparisons]

    def _judge(self, comparison: Comparison) -> Preference:
        try:
            seen = _seen(comparison)
        except DataError as error:
            return _unjudged(comparison, "meadow-pool", error)
        second_first = shows_second_first(comparison, self._seed)
        names = _drawn(comparison.instruction, self._seed, self._votes, list(self._raters))
        chances = {name: _chance_first(self._raters[name], seen, second_first) for name in names}
        noise = noise_label(comparison, self._seed, self._flips)
        if noise and comparison.first.text != comparison.second.text:
            drawn = _preference(comparison, names, [noise], None, self._seed)
            return drawn.model_copy(update={"flipped_by_noise": True})
        votes = _votes(comparison, chances, self._seed)
        return _preference(comparison, names, votes, fmean(chances.values()), self._seed)


class MeadowGreedy:
    """One judge without chance: what most of the pool's thirteen raters hold better, always the same.

    The paper's single GPT-4 annotator in small: low variance, and all of the bias that the pool's raters share.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    @property
    def identity(self) -> Mapping[str, object]:
        """What the verdicts depend on."""
        return {
            "annotator": "meadow-greedy",
            "world": WORLD_VERSION,
            "seed": self._seed,
            "raters": [{"name": rater.name, "first_bias": rater.first_bias} for rater in POOL],
        }

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """One preference for each comparison; what is no comparison of the meadow comes back unjudged."""
        return [self._judge(comparison) for comparison in comparisons]

    def _judge(self, comparison: Comparison) -> Preference:
        try:
            seen = _seen(comparison)
        except DataError as error:
            return _unjudged(comparison, "meadow-greedy", error)
        second_first = shows_second_first(comparison, self._seed)
        held = [_sided(_chance_first(rater, seen, second_first) - 0.5) for rater in POOL]
        return _preference(comparison, ["greedy"], held, None, self._seed)


def meadow_annotator(name: str, *, seed: int, label_flip_probability: float = 0.0, people_votes: int = 1) -> Annotator:
    """The annotator that recipes call `name`: one of `MEADOW_ANNOTATORS`.

    Flips are the pool's alone, several votes a comparison the people's alone.

    Raises:
        DataError: if the meadow has no such annotator.
    """
    if name == "people":
        return MeadowPeople(seed=seed, votes=people_votes)
    if name == "greedy":
        return MeadowGreedy(seed=seed)
    if name in _POOL_SIZES:
        raters = POOL[: _POOL_SIZES[name]]
        return MeadowPool(seed=seed, label_flip_probability=label_flip_probability, raters=raters)
    raise DataError(f"the meadow has no annotator {name!r}; expected people, pool, pool-1 to pool-13, or greedy.")


_POOL_SIZES = {"pool": len(POOL), **{f"pool-{count}": count for count in range(1, len(POOL) + 1)}}
MEADOW_ANNOTATORS = ("people", "greedy", *_POOL_SIZES)
"""People, who bring their own noise; one judge without chance; the pool, or the first so many of its thirteen."""


def _seen(comparison: Comparison) -> tuple[Seen, Seen]:
    first, second = _readings(comparison)
    asked = f"{comparison.instruction.instruction} {comparison.instruction.input}"
    return Seen(asked, comparison.first.text, first), Seen(asked, comparison.second.text, second)


def _chance_first(rater: Rater, seen: tuple[Seen, Seen], second_first: bool) -> float:
    if second_first:
        return 1 - rater.probability_shown_first(seen[1], seen[0])
    return rater.probability_shown_first(*seen)


def _checked_votes(votes: int, most: int) -> int:
    if not 1 <= votes <= most:
        raise DataError(f"expected votes from 1 to {most}, got {votes}.")
    return votes


def _readings(comparison: Comparison) -> tuple[Reading, Reading]:
    return _reading(comparison.instruction, comparison.first), _reading(comparison.instruction, comparison.second)


def _reading(instruction: Instruction, completion: Completion) -> Reading:
    return read(instruction.instruction, instruction.input, completion.text, completion.finish_reason)


def _drawn(instruction: Instruction, seed: int, count: int, names: list[str]) -> list[str]:
    """`count` different names, drawn by the instruction alone; the first is the one that judges with one vote."""
    left = dict.fromkeys(names, 1.0)
    drawn: list[str] = []
    for _ in range(count):
        drawn.append(annotator_for(instruction.instruction, instruction.input, seed, left))
        del left[drawn[-1]]
    return drawn


def _votes(comparison: Comparison, chances: Mapping[str, float], seed: int) -> list[Verdict]:
    """What each rater says, who holds the first better with the chance beside the name; the same for B and A."""
    first_is_earlier = comparison.first.text <= comparison.second.text
    votes: list[Verdict] = []
    for name, chance in chances.items():
        draw = pair_uniform(comparison, seed, f"vote-{name}")
        votes.append("first" if (draw < chance if first_is_earlier else draw >= 1 - chance) else "second")
    return votes


def _sided(difference: float) -> Verdict:
    return "tie" if difference == 0 else "first" if difference > 0 else "second"


def _preference(
    comparison: Comparison, names: list[str], votes: list[Verdict], probability_first: float | None, seed: int
) -> Preference:
    """The majority of the votes; equal votes, and equal texts, are a tie."""
    same = comparison.first.text == comparison.second.text
    return Preference(
        comparison_id=comparison.id,
        annotator="+".join(names),
        preferred="tie" if same else _sided(votes.count("first") - votes.count("second")),
        probability_first=0.5 if same else probability_first,
        shown_first="second" if shows_second_first(comparison, seed) else "first",
        cost_usd=0.0,
    )


def _unjudged(comparison: Comparison, annotator: str, error: DataError) -> Preference:
    return Preference(
        comparison_id=comparison.id, annotator=annotator, preferred="unjudged", cost_usd=0.0, error=str(error)
    )
