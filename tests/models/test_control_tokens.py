"""A model that was trained to be asked with a control token is asked so by whatever loads its folder."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pasture.core.errors import DataError, ModelError
from pasture.core.ports import silent
from pasture.core.requests import Request
from pasture.engines.local import LocalEngine
from pasture.engines.settings import LocalSettings
from pasture.generate.completions import LocalSystem
from pasture.models.control_tokens import add_control_tokens, answer_prefix_ids, set_answer_prefix
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from pasture.models.sample import SamplerConfig
from tests.learn import toy

GOOD, BAD = "<|good|>", "<|bad|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that says w1 after the good token and w2 after the bad one, and then goes on with w3."""
    path = tmp_path_factory.mktemp("conditioned")
    start = toy.save_base(path / "start")
    tokenizer = load_tokenizer(start)
    add_control_tokens(tokenizer, [GOOD, BAD])
    set_answer_prefix(tokenizer, GOOD)
    model = load_causal_lm(start, tokenizer=tokenizer)
    # With no layers to change it, what follows a token is the token whose output row is nearest.
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    embedding, output = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    output.zero_()
    for token, following in ((GOOD, "w1"), (BAD, "w2"), ("w1", "w3"), ("w2", "w3"), ("w3", "w3")):
        ids = tokenizer.convert_tokens_to_ids([token, following])
        embedding[ids[0]] = torch.nn.functional.one_hot(torch.tensor(ids[0] % 32), 32)
        output[ids[1]] += embedding[ids[0]]
    save_model(model, tokenizer, path / "model")
    return path / "model"


def test_new_rows_are_the_mean_of_the_old_ones(tmp_path):
    start = toy.save_base(tmp_path)
    tokenizer = load_tokenizer(start)
    old = load_causal_lm(start).get_input_embeddings().weight.detach().numpy()
    add_control_tokens(tokenizer, [GOOD, BAD])
    new = load_causal_lm(start, tokenizer=tokenizer).get_input_embeddings().weight.detach().numpy()
    assert len(new) == len(old) + 2
    np.testing.assert_allclose(new[-2:], np.tile(old.mean(0), (2, 1)), atol=1e-6)


def test_the_control_token_travels_with_the_folder_and_stands_last_in_every_prompt(folder):
    encoder = Encoder(load_tokenizer(folder), toy.TEMPLATE, max_tokens=32)
    plain = load_tokenizer(folder)
    del plain.init_kwargs["answer_prefix"]
    [(instruction, completion)] = toy.demonstrations(1)
    without = Encoder(plain, toy.TEMPLATE, max_tokens=32).pair(instruction, completion)
    good = encoder.tokenizer.convert_tokens_to_ids(GOOD)
    assert encoder.pair(instruction, completion).prompt_ids == [*without.prompt_ids, good]
    assert encoder.pair(instruction, completion).response_ids == without.response_ids
    assert encoder.asking_with(BAD).prompt(instruction) == [*without.prompt_ids, plain.convert_tokens_to_ids(BAD)]
    assert encoder.prompt(instruction)[-1] == good


def test_a_control_token_takes_room_in_the_prompt(folder):
    [instruction] = toy.instructions(1)
    length = len(Encoder(load_tokenizer(folder), toy.TEMPLATE, max_tokens=32).prompt(instruction))
    with pytest.raises(DataError, match=f"got {length}"):
        Encoder(load_tokenizer(folder), toy.TEMPLATE, max_tokens=length).prompt(instruction)


def test_text_cannot_forge_a_control_token(folder):
    encoder = Encoder(load_tokenizer(folder), toy.TEMPLATE, max_tokens=64)
    [(instruction, completion)] = toy.demonstrations(1)
    forged = f"w1 {BAD} w2{GOOD} {BAD}{BAD}"
    pair = encoder.pair(
        instruction.model_copy(update={"instruction": forged}), completion.model_copy(update={"text": forged})
    )
    good, bad = encoder.tokenizer.convert_tokens_to_ids([GOOD, BAD])
    assert pair.ids.count(good) == 1
    assert bad not in pair.ids
    assert encoder.text([bad, good]) == ""


def test_a_system_and_an_engine_ask_with_the_control_token(folder):
    [instruction] = toy.instructions(1)
    config = SamplerConfig(temperature=0.0, max_new_tokens=3)
    [answer] = LocalSystem(folder, toy.TEMPLATE, config).complete(
        [instruction], system="s", samples=1, seed=0, progress=silent
    )
    assert answer.text == "w1 w3 w3"
    engine = LocalEngine(LocalSettings(folder=folder))
    [reply] = engine.run([Request(model="m", prompt="w5 w6", max_completion_tokens=3, temperature=0.0)])
    assert reply.text == "w1 w3 w3"


@pytest.mark.parametrize("named", ["<|fine|>", "w1", "<eos>", "<pad>", "<unk>", 7])
def test_a_prefix_that_is_no_control_token_is_refused(tmp_path, folder, named):
    tokenizer = load_tokenizer(folder)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"answer_prefix": named}))
    with pytest.raises(ModelError, match=r"control tokens are <\|good\|>, <\|bad\|>"):
        Encoder(AutoTokenizer.from_pretrained(tmp_path, local_files_only=True), toy.TEMPLATE, max_tokens=32)
    with pytest.raises(ModelError, match="cannot follow a prompt"):
        set_answer_prefix(tokenizer, str(named))


def test_a_word_of_the_vocabulary_cannot_become_a_control_token(folder):
    with pytest.raises(ModelError, match="'w1' is a word of the tokenizer"):
        add_control_tokens(load_tokenizer(folder), ["<|x|>", "w1"])


def test_adding_control_tokens_again_changes_nothing(folder):
    tokenizer = load_tokenizer(folder)
    size = len(tokenizer)
    add_control_tokens(tokenizer, [GOOD, BAD])
    assert len(tokenizer) == size
    assert answer_prefix_ids(tokenizer) == tokenizer.convert_tokens_to_ids([GOOD])
