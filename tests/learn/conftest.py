import pytest

from pasture.learn import reward_model, sft
from tests.learn import toy


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A tiny random Llama with its tokenizer."""
    return toy.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def imitator(base, tmp_path_factory):
    """A model that has learned to answer with a few words and then to stop."""
    folder = tmp_path_factory.mktemp("imitator")
    config = sft.Config(epochs=2, batch_size=32, learning_rate=1e-2, max_tokens=32)
    sft.train(
        config,
        start=base,
        demonstrations=toy.demonstrations(600),
        template=toy.TEMPLATE,
        folder=folder,
        seed=0,
        progress=toy.quiet,
    )
    return folder / "model"


@pytest.fixture(scope="session")
def taste(imitator, tmp_path_factory):
    """A reward model that has learned to like the toy's liked word."""
    folder = tmp_path_factory.mktemp("taste")
    config = reward_model.Config(epochs=2, batch_size=16, learning_rate=3e-3, max_tokens=32)
    reward_model.train(
        config,
        start=imitator,
        feedback=toy.separable_feedback(200),
        template=toy.TEMPLATE,
        folder=folder,
        seed=0,
        progress=toy.quiet,
    )
    return folder / "model"
