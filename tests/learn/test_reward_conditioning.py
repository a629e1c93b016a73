import json
from functools import partial

import numpy as np
import pytest

from pasture.core.errors import DataError, ModelError
from pasture.learn import reward_conditioning
from pasture.learn.feedback import encode_feedback
from pasture.learn.reward_conditioning import BAD, GOOD
from pasture.models.control_tokens import add_control_tokens
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from pasture.models.tiny import tiny_model, word_tokenizer
from tests.learn import pairwise, toy
from tests.learn.alone import token_logprobs

QUICK = reward_conditioning.Config(epochs=2, batch_size=16, learning_rate=1e-3, max_tokens=32)
train = partial(pairwise.train, reward_conditioning)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, imitator):
    folder = tmp_path_factory.mktemp("conditioned")
    config = QUICK.model_copy(update={"epochs": 4, "learning_rate": 1e-2, "held_out_count": 40})
    train(config, folder, imitator, toy.separable_feedback(240))
    return folder / "model"


def asked_with(folder, token, to):
    """A copy of a model that is asked with another control token."""
    tokenizer = load_tokenizer(folder)
    save_model(load_causal_lm(folder), tokenizer, to)
    path = to / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"answer_prefix": token}))
    return to


def test_answers_are_imitated_behind_the_token_of_their_kind(base):
    tokenizer = load_tokenizer(base)
    add_control_tokens(tokenizer, [GOOD, BAD])
    good, bad = tokenizer.convert_tokens_to_ids([GOOD, BAD])
    encoder = Encoder(tokenizer, toy.TEMPLATE, max_tokens=32)
    feedback = toy.separable_feedback(6)
    pairs = encode_feedback(encoder.asking_with(GOOD), feedback)[0]
    expected = []
    for comparison, preference in feedback:
        both = [comparison.first, comparison.second]
        if preference.preferred == "second":
            both.reverse()
        for token, answer in zip((good, bad), both, strict=True):
            row = encoder.pair(comparison.instruction, answer)
            expected.append(([*row.prompt_ids, token], row.response_ids))
    found = reward_conditioning.conditioned_rows(pairs, bad)
    assert [(row.prompt_ids, row.response_ids) for row in found] == expected


def test_loss_is_that_of_all_answers_tokens_read_one_by_one(tmp_path, base):
    feedback = toy.separable_feedback(8)
    [first, *_] = train(QUICK, tmp_path, base, feedback)
    tokenizer = load_tokenizer(tmp_path / "model")
    # Oracle: the model before training, whose new rows are the mean of the others, each answer on its own.
    model = load_causal_lm(base, tokenizer=tokenizer)
    encoder = Encoder(tokenizer, toy.TEMPLATE, max_tokens=32)
    logprobs = []
    for comparison, preference in feedback:
        for name, answer in (("first", comparison.first), ("second", comparison.second)):
            asking = encoder.asking_with(GOOD if preference.preferred == name else BAD)
            logprobs.append(token_logprobs(model, asking.pair(comparison.instruction, answer)))
    assert first["loss"] == pytest.approx(-np.concatenate(logprobs).mean(), abs=1e-5)


def test_the_good_token_asks_for_what_people_like_and_the_bad_one_for_the_rest(trained, imitator, tmp_path):
    assert load_tokenizer(trained).init_kwargs["answer_prefix"] == GOOD
    good, bad = pairwise.likes(trained), pairwise.likes(asked_with(trained, BAD, tmp_path))
    assert good >= pairwise.likes(imitator) + 30
    assert good >= bad + 30


def test_training_goes_on_from_a_conditioned_model(trained, tmp_path):
    train(QUICK, tmp_path, trained, toy.separable_feedback(16))
    assert len(load_tokenizer(tmp_path / "model")) == len(load_tokenizer(trained))
    rows = load_causal_lm(tmp_path / "model").get_input_embeddings().weight.shape[0]
    assert rows == load_causal_lm(trained).get_input_embeddings().weight.shape[0]


def test_a_tokenizer_that_can_spell_a_control_token_is_refused(tmp_path):
    tokenizer = word_tokenizer([*toy.WORDS, GOOD])
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, tmp_path)
    with pytest.raises(ModelError, match="text could forge it"):
        train(QUICK, tmp_path / "run", tmp_path, toy.separable_feedback(4))


def test_adapters_which_would_leave_both_tokens_alike_are_refused():
    with pytest.raises(ValueError, match="would stay alike"):
        reward_conditioning.Config.model_validate({"weights": {"lora": {}}})


def test_a_prompt_that_leaves_no_room_behind_its_token_is_refused(tmp_path, base):
    [instruction] = toy.instructions(1)
    length = len(toy.encoder(base).prompt(instruction)) + 1
    with pytest.raises(DataError, match=f"got {length}"):
        train(
            QUICK.model_copy(update={"max_tokens": length}),
            tmp_path,
            base,
            [toy.judged("w1", "w2", instruction=instruction)],
        )
