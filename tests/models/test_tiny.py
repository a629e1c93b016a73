"""The small models and the word tokenizer."""

import pytest
import torch
from transformers import AutoTokenizer

from pasture.models.tiny import new_meadow_model, tiny_model, word_tokenizer

WORDS = ["sort", ":", "b", "a", "thanks"]


def test_words_have_the_ids_of_their_order():
    # By hand: 0 unknown, words from 1, then the line break, pad and end.
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer("sort : b  a\nthanks")["input_ids"] == [1, 2, 3, 4, 6, 5]
    assert (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 7, 8)
    assert len(tokenizer) == 9


@pytest.mark.parametrize("text", ["a b", "a\nb", "\n", "\n\na", "a\n", ""])
def test_decoding_gives_known_text_back(text):
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_blanks_are_single_and_special_tokens_can_be_left_out():
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer.decode(tokenizer(" a \t b \n a")["input_ids"]) == "a b\na"
    assert tokenizer.decode([4, tokenizer.eos_token_id, tokenizer.pad_token_id], skip_special_tokens=True) == "a"


def test_text_cannot_spell_a_special_token(tmp_path):
    word_tokenizer(WORDS).save_pretrained(tmp_path)
    for tokenizer in (word_tokenizer(WORDS), AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)):
        assert tokenizer("a <eos> b <pad> a<eos>")["input_ids"] == [4, 0, 3, 0, 0]


@pytest.mark.parametrize("words", [["a", "a"], ["a b"], [""], ["<eos>"], ["<unk>"], ["\t"]])
def test_words_that_cannot_be_told_apart_are_refused(words):
    with pytest.raises(ValueError, match="word"):
        word_tokenizer(words)


@pytest.mark.parametrize("shape", ["llama", "qwen", "gpt2", "neox"])
def test_a_seed_is_a_model_and_leaves_the_global_generator_alone(shape):
    before = torch.get_rng_state()
    first, again, other = (tiny_model(shape, 20, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    ids_BT = torch.arange(10).reshape(1, 10)
    logits = [model(input_ids=ids_BT).logits for model in (first, again, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    assert logits[0].shape == (1, 10, 20)


def test_the_meadow_model_has_somewhat_less_than_a_million_parameters():
    model = new_meadow_model(300, seed=0)
    assert 0.6e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.0e6
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (128, 4)
