"""Text to tokens and back with tokenizers that are built like published ones: few special tokens, or none, by name."""

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from pasture.core.ports import silent
from pasture.core.records import Completion, Instruction
from pasture.core.templates import CHAT, PLAIN
from pasture.generate.completions import LocalSystem
from pasture.learn.rollouts import draw
from pasture.models.control_tokens import control_ids
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, stop_token_ids
from pasture.models.sample import SamplerConfig
from pasture.models.tiny import tiny_model, word_tokenizer

TEXT_END, TURN, TURN_END = "<|endoftext|>", "<|user|>", "<|end|>"
TURNS = (
    "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|user|>{% endif %}"
)


def bytes_tokenizer(*marked: str, **names: str) -> PreTrainedTokenizerFast:
    """Each byte is a token; `marked` are special in the vocabulary, and only those in `names` by name too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(marked))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def as_gpt2() -> PreTrainedTokenizerFast:
    """One token begins a text, ends it and stands for what is unknown; none pads."""
    return bytes_tokenizer(TEXT_END, bos_token=TEXT_END, eos_token=TEXT_END, unk_token=TEXT_END)


def as_chat() -> PreTrainedTokenizerFast:
    """The end of a turn is special by its mark in the vocabulary alone, and the end of a text pads."""
    tokenizer = bytes_tokenizer(TEXT_END, TURN, TURN_END, eos_token=TEXT_END, pad_token=TEXT_END)
    tokenizer.chat_template = TURNS
    return tokenizer


def written(tokenizer, place):
    """A model of random weights, as one is published: nothing that Pasture would set right is."""
    model = tiny_model("gpt2", len(tokenizer), seed=0)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def asked(count: int) -> list[Instruction]:
    return [Instruction(id=str(number), instruction="Hi", source="s", split="x") for number in range(count)]


@pytest.mark.parametrize(("make", "template"), [(as_gpt2, PLAIN), (as_chat, CHAT)])
def test_an_answer_does_not_spell_out_its_end(tmp_path, make, template):
    """Judges read the text, and a reward model is to read the tokens that were drawn, the end once."""
    folder = written(make(), tmp_path)
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(folder, tokenizer=tokenizer)
    encoder = Encoder(tokenizer, template, max_tokens=64)
    config = SamplerConfig(max_new_tokens=32)
    drawn = draw(model, encoder, asked(60), config, seed=0)
    ended = [at for at, answer in enumerate(drawn.completions) if answer.finish_reason == "stop"]
    assert len(ended) > 3
    ends = {token for at in ended for token in drawn.rows[at].response_ids[-1:]}
    assert ends <= set(stop_token_ids(model, tokenizer))
    answers = LocalSystem(folder, template, config).complete(asked(60), system="s", samples=1, seed=0, progress=silent)
    texts = [answer.text for answer in (*drawn.completions, *answers)]
    assert not any(end in text for text in texts for end in (TEXT_END, TURN_END))
    for at in ended:
        read = encoder.pair(drawn.instructions[at], drawn.completions[at]).response_ids
        # Bytes that are no text come back as others: those that are stay the same.
        if "\ufffd" not in drawn.completions[at].text:
            assert read == [*drawn.rows[at].response_ids[:-1], encoder.end_id]


@pytest.mark.parametrize(("make", "marked"), [(as_gpt2, [TEXT_END]), (as_chat, [TEXT_END, TURN, TURN_END])])
def test_what_the_vocabulary_marks_is_no_text(make, marked):
    tokenizer = make()
    assert sorted(control_ids(tokenizer)) == sorted(tokenizer.convert_tokens_to_ids(marked))
    # Unknown word, "a", line break, pad, end.
    assert control_ids(word_tokenizer(["a"])) == {3, 4}


def test_a_turn_ends_with_a_token_that_only_the_vocabulary_marks(tmp_path):
    tokenizer = load_tokenizer(written(as_chat(), tmp_path))
    encoder = Encoder(tokenizer, CHAT, max_tokens=64)
    [instruction] = asked(1)
    answer = Completion(instruction_id="0", text="ok", system="s", seed=0, finish_reason="stop")
    names = tokenizer.convert_ids_to_tokens(encoder.pair(instruction, answer).ids)
    assert names == [TURN, "H", "i", TURN_END, TURN, "o", "k", TURN_END]


@pytest.mark.parametrize(
    ("framing", "expected"), [("<|endoftext|> $A", [TEXT_END]), ("$A <|endoftext|>", []), ("$A", [])]
)
def test_a_prompt_begins_as_its_tokenizer_begins_a_text(framing, expected):
    """OPT's puts before a text what it ends one with; others put the end behind, where an answer is to follow."""
    tokenizer = as_gpt2()
    inner = tokenizer.backend_tokenizer
    ends = [(TEXT_END, inner.token_to_id(TEXT_END))]
    inner.post_processor = processors.TemplateProcessing(single=framing, special_tokens=ends)
    tokenizer.pad_token = "!"
    ids = Encoder(tokenizer, PLAIN, max_tokens=64).prompt(asked(1)[0])
    assert tokenizer.convert_ids_to_tokens(ids) == [*expected, "H", "i", "Ċ"]
