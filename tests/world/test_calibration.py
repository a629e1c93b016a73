"""The meadow is calibrated to the paper, on answers with the errors of a fine-tuned model.

A held-out person agrees with the majority of the others in 66% of the comparisons and the pool in 65% (Dubois et al.
2023); docs/meadow.md has the same figures on the answers of a trained model.
"""

from statistics import fmean

import numpy as np
import numpy.typing as npt
import pytest

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.records import Comparison
from pasture.core.seeds import stream
from pasture.world import meadow
from pasture.world.people import PEOPLE
from pasture.world.reading import read
from pasture.world.writing import MODEL_LIKE, write


@pytest.fixture(scope="module")
def pairs() -> list[Comparison]:
    rows = meadow.instructions("preference", 2100, seed=11)
    made = [Comparison.of(row, *(write(row, MODEL_LIKE, "imitation", 11, sample) for sample in (0, 1))) for row in rows]
    return [pair for pair in made if pair.first.text != pair.second.text][:2000]


@pytest.fixture(scope="module")
def votes_for_first(pairs: list[Comparison]) -> npt.NDArray[np.bool_]:
    """One vote of each person on each pair, by a coin of the test's own."""
    chances = []
    for pair in pairs:
        asked = pair.instruction
        first, second = (
            read(asked.instruction, asked.input, side.text, side.finish_reason) for side in (pair.first, pair.second)
        )
        chances.append([person.probability_first(first, second) for person in PEOPLE])
    coin = stream(0, "votes").random((len(pairs), len(PEOPLE)))
    return coin < np.array(chances)


def test_a_held_out_person_agrees_with_the_majority_of_the_others_as_in_the_paper(
    votes_for_first: npt.NDArray[np.bool_],
) -> None:
    others = votes_for_first.sum(axis=1, keepdims=True) - votes_for_first
    majority = others > 7.5  # fifteen others, so never a tie
    assert fmean((majority == votes_for_first).ravel()) == pytest.approx(0.66, abs=0.02)


def test_the_pool_without_flips_agrees_with_the_majority_of_people_as_in_the_paper(
    pairs: list[Comparison], votes_for_first: npt.NDArray[np.bool_]
) -> None:
    majority = votes_for_first[:, 1:].sum(axis=1) > 7.5  # fifteen of them
    agreements = []
    for seed in range(5):  # five raters' verdicts a pair, to halve the standard error of .011
        labels = MeadowPool(seed=seed, label_flip_probability=0.0).annotate(pairs)
        agreements += [(label.preferred == "first") == said for label, said in zip(labels, majority, strict=True)]
    assert fmean(agreements) == pytest.approx(0.65, abs=0.02)


@pytest.mark.parametrize(
    "annotators",
    [
        [MeadowPeople(seed=seed) for seed in range(4)],
        [MeadowPool(seed=seed, label_flip_probability=0.0) for seed in range(4)],
    ],
    ids=["people", "pool"],
)
def test_the_longer_answer_is_preferred_about_as_often_as_in_the_paper(
    pairs: list[Comparison], annotators: list[MeadowPeople | MeadowPool]
) -> None:
    chosen = []
    for annotator in annotators:
        for pair, label in zip(pairs, annotator.annotate(pairs), strict=True):
            lengths = len(pair.first.text.split()), len(pair.second.text.split())
            if lengths[0] != lengths[1]:
                chosen.append((label.preferred == "first") == (lengths[0] > lengths[1]))
    assert 0.58 <= fmean(chosen) <= 0.66
