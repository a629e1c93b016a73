"""What counts as too long is what a method's training would refuse."""

from pathlib import Path

import pytest

from pasture.core.errors import DataError
from pasture.core.records import Instruction
from pasture.learn import quark, reward_conditioning, sft
from pasture.steps.fit import fitting_ids
from tests.learn import toy

CONDITIONING = reward_conditioning.Config(epochs=1, batch_size=8, max_tokens=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(toy.save_base(tmp_path_factory.mktemp("base") / "model"))


def of_words(count: int) -> Instruction:
    return Instruction(id=str(count), instruction=" ".join(["w3"] * count), source="toy", split="toy")


def conditioned(start: Path, folder: Path, words: int) -> Path:
    feedback = [toy.judged("w1", "w2", instruction=of_words(words))]
    reward_conditioning.train(
        CONDITIONING,
        start=start,
        feedback=feedback,
        template=toy.TEMPLATE,
        folder=folder,
        seed=0,
        progress=toy.quiet,
    )
    return folder / "model"


@pytest.mark.parametrize(
    ("config", "most"),
    [
        # By hand: of 8 tokens one is for an answer and one a line break; a control token takes one more.
        (sft.Config(max_tokens=8), 6),
        (CONDITIONING, 5),
        # Quark's limit is of a prompt without its token.
        (quark.Config(max_prompt_tokens=8, train_on="all"), 7),
    ],
    ids=["sft", "reward_conditioning", "quark"],
)
def test_a_prompt_fits_that_leaves_room_for_a_token_and_for_the_control_token(base: Path, config: object, most: int):
    fits = fitting_ids([of_words(count) for count in range(1, 12)], config, base, "plain")
    assert fits == {str(count) for count in range(1, most + 1)}


def test_a_method_of_ones_own_without_a_limit_takes_what_the_context_holds(base: Path):
    # By hand: of a context of 256, one token is for an answer and one a line break.
    fits = fitting_ids([of_words(count) for count in (253, 254, 255)], object(), base, "plain")
    assert fits == {"253", "254"}


def test_reward_conditioning_learns_from_the_longest_prompt_that_fits_and_refuses_the_next(base: Path, tmp_path: Path):
    once = conditioned(base, tmp_path / "once", 5)
    with pytest.raises(DataError, match="expected a prompt of 1 to 7 tokens, got 8"):
        conditioned(base, tmp_path / "long", 6)
    # A model that has its token already is asked with one, not with two.
    assert fitting_ids(map(of_words, range(1, 12)), CONDITIONING, once, "plain") == {"1", "2", "3", "4", "5"}
    conditioned(once, tmp_path / "twice", 5)
