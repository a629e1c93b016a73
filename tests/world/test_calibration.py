"""The meadow is calibrated to the paper, on answers with the errors of a fine-tuned model.

Of four people who label a pair, one agrees with the majority of the other three in 66% of the comparisons, and the pool
with the majority of the four in 65% (Dubois et al. 2023, section 4.1); docs/meadow.md has the same figures on the
answers of a trained model.
"""

from statistics import fmean

import numpy as np
import numpy.typing as npt
import pytest

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.records import Comparison
from pasture.world import meadow
from pasture.world.writing import MODEL_LIKE, write


@pytest.fixture(scope="module")
def pairs() -> list[Comparison]:
    rows = meadow.instructions("preference", 2100, seed=11)
    made = [Comparison.of(row, *(write(row, MODEL_LIKE, "imitation", 11, sample) for sample in (0, 1))) for row in rows]
    return [pair for pair in made if pair.first.text != pair.second.text][:2000]


def first_preferred(annotator: MeadowPeople | MeadowPool, pairs: list[Comparison]) -> npt.NDArray[np.float64]:
    return np.array([label.preferred == "first" for label in annotator.annotate(pairs)], dtype=float)


@pytest.fixture(scope="module")
def people_PA(pairs: list[Comparison]) -> npt.NDArray[np.float64]:
    """Four labels of each pair by people, as in the paper's cross-annotations (section 4.1)."""
    return np.stack([first_preferred(MeadowPeople(seed=seed), pairs) for seed in range(4)], axis=1)


def test_a_held_out_person_agrees_with_the_majority_of_the_others_as_in_the_paper(
    people_PA: npt.NDArray[np.float64],
) -> None:
    others = people_PA.sum(axis=1, keepdims=True) - people_PA
    majority = others > 1.5  # three others, so never a tie
    assert np.mean(majority == people_PA) == pytest.approx(0.66, abs=0.02)


def test_the_pool_without_flips_agrees_with_the_majority_of_people_as_in_the_paper(
    pairs: list[Comparison], people_PA: npt.NDArray[np.float64]
) -> None:
    share = people_PA.mean(axis=1)
    agreements = []
    for seed in range(4):  # four raters' verdicts a pair, to halve the standard error of .011
        label = first_preferred(MeadowPool(seed=seed, label_flip_probability=0.0), pairs)
        # Of an even split either side is a majority, as in AlpacaEval's analysis: half an agreement.
        agreements.append(np.where(share == 0.5, 0.5, (share > 0.5) == label).mean())
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
