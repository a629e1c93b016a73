"""The base model that ships in the package is the one that its recipe makes."""

from pathlib import Path

import pytest

from pasture import flow
from pasture.core.templates import PLAIN
from pasture.learn.sft import encode_demonstrations, mean_loss
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.response import ResponseModel
from pasture.recipe import BUILT_IN, start_folder
from pasture.world import meadow

REPOSITORY = Path(__file__).parents[2]


def loss_of(folder: Path) -> float:
    """Nats per answer token on found texts that no training has seen: another seed, and none of its instructions."""
    read = {instruction.id for instruction, _ in meadow.pretraining_texts(40_000)}
    fresh = [row for row in meadow.pretraining_texts(1_500, seed=1) if row[0].id not in read][:300]
    encoder = Encoder(load_tokenizer(folder), PLAIN, max_tokens=96)
    rows = encode_demonstrations(encoder, fresh)
    return mean_loss(ResponseModel(load_causal_lm(folder)), rows, encoder.pad_id, 4096)


def test_the_shipped_model_is_small_and_knows_every_word():
    folder = start_folder(BUILT_IN)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    tokenizer = load_tokenizer(folder)
    for word in meadow.vocabulary()[3:]:
        assert tokenizer(word)["input_ids"] != [tokenizer.unk_token_id]
        assert len(tokenizer(word)["input_ids"]) == 1


def test_the_shipped_model_has_learned_what_its_log_says():
    # docs/log.md: 0.910 on the rows that its own training held out. An untrained model is at log(300) = 5.7.
    assert loss_of(start_folder(BUILT_IN)) == pytest.approx(0.91, abs=0.06)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_recipe_remakes_the_shipped_model(tmp_path):
    run = flow.prepare(REPOSITORY / "recipes/meadow/base.toml", ["data.evaluation=5"], tmp_path / "run")
    flow.execute(run, flow.NoScreen())
    assert loss_of(tmp_path / "run/4-learn/sft/model") == pytest.approx(loss_of(start_folder(BUILT_IN)), abs=0.02)
