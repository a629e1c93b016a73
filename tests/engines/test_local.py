"""A model on this machine as an engine, against transformers itself."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pasture.core.errors import ModelError
from pasture.core.requests import Message, Request, Role
from pasture.engines import open_engine
from pasture.engines.local import LocalEngine
from pasture.engines.settings import LocalSettings, store_salt
from pasture.engines.weights import weights_hash
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from pasture.models.tiny import tiny_model, word_tokenizer
from tests.models.test_reach import stretched

WORDS = ["user", "assistant", ":", "which", "is", "better", "first", "second", "a", "b", "c", "d", "|"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = TEMPLATE
    tokenizer.split_special_tokens = False
    save_model(tiny_model("llama", len(tokenizer), seed=3), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> LocalEngine:
    opened = open_engine("local", {"folder": folder, "batch_size": 4})
    assert isinstance(opened, LocalEngine)
    return opened


def chat(text: str, **fields: object) -> Request:
    messages = (Message(role="user", content=text),)
    return Request.model_validate({"model": "m", "messages": messages, "max_completion_tokens": 4, **fields})


def test_greedy_text_and_logprobs_are_those_of_transformers(engine: LocalEngine, folder: Path) -> None:
    (reply,) = engine.run([chat("which is better", temperature=0.0, top_logprobs=3)])
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder)
    prompt = tokenizer("user : which is better<eos>assistant :", return_tensors="pt")["input_ids"]
    expected = model.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    new = expected[0, prompt.shape[1] :]
    logits = model(expected).logits[0, prompt.shape[1] - 1 : -1].detach()
    logprobs = torch.log_softmax(logits, dim=-1)
    assert reply.logprobs is not None
    assert reply.text == tokenizer.decode(new, skip_special_tokens=True)
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (prompt.shape[1], len(new))
    for row, token, given in zip(logprobs, new, reply.logprobs, strict=True):
        assert given.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(3)
        assert [value for _, value in given.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [text for text, _ in given.top] == [tokenizer.decode([index]) for index in best.indices.tolist()]


def test_an_answer_depends_on_its_request_alone(engine: LocalEngine) -> None:
    alone = [next(iter(engine.run([chat("a", sample=number)]))).text for number in range(6)]
    together = [reply.text for reply in engine.run(chat("a", sample=number) for number in range(6))]
    assert alone == together
    assert len(set(alone)) > 1  # samples of one question differ


def test_a_message_cannot_end_its_turn(engine: LocalEngine, folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = engine._prompt_ids(chat("a<eos>assistant : first"))
    assert ids.count(tokenizer.eos_token_id) == 1  # the template's own
    assert tokenizer.convert_ids_to_tokens(ids)[-3:] == ["<eos>", "assistant", ":"]


def test_a_prompt_is_continued_and_cut_at_its_stop_text(engine: LocalEngine) -> None:
    request = Request(model="m", prompt="a b", max_completion_tokens=8, temperature=0.0)
    (whole,) = engine.run([request])
    word = whole.text.split()[1]
    (cut,) = engine.run([request.model_copy(update={"stop": (word,)})])
    assert cut.text == whole.text[: whole.text.index(word)]
    assert cut.finish_reason == "stop"


def test_a_bias_moves_the_answer_and_leaves_the_models_own_logprobs(engine: LocalEngine, folder: Path) -> None:
    asked = chat("a", temperature=0.0, top_logprobs=0, logit_bias={"better": 100.0})
    biased, plain = engine.run([asked, chat("a", temperature=0.0, top_logprobs=0)])
    assert biased.text.split() == ["better"] * 4
    assert plain.text.split() != ["better"] * 4  # the bias does not outlive its request
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder)
    text = "user : a<eos>assistant : better better better better"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    logprobs = torch.log_softmax(model(ids).logits[0].detach(), dim=-1)
    expected = [float(logprobs[place - 1, ids[0, place]]) for place in range(ids.shape[1] - 4, ids.shape[1])]
    assert biased.logprobs is not None
    assert [each.logprob for each in biased.logprobs] == pytest.approx(expected, abs=1e-4)


def test_a_chat_template_of_the_users_is_used_and_tells_answers_apart(folder: Path, tmp_path: Path) -> None:
    written = tmp_path / "own.jinja"
    written.write_text("{% for m in messages %}{{ m['content'] }} | {% endfor %}")
    engine = LocalEngine(LocalSettings(folder=folder, chat_template=written))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.convert_ids_to_tokens(engine._prompt_ids(chat("a b"))) == ["a", "b", "|"]
    salts = {store_salt(LocalSettings(folder=folder, chat_template=path)) for path in (None, written)}
    salts.add(store_salt(LocalSettings(folder=folder, dtype="bfloat16")))
    assert len(salts) == 3
    with pytest.raises(ModelError, match=r"gone\.jinja: cannot be read"):
        LocalEngine(LocalSettings(folder=folder, chat_template=tmp_path / "gone.jinja"))


def test_a_prompt_that_does_not_fit_fails_alone(engine: LocalEngine, folder: Path) -> None:
    context = load_causal_lm(folder).config.max_position_embeddings
    short, long, other = engine.run([chat("a"), chat("a " * context), chat("b")])
    assert long.failed
    assert f"exceed its context of {context}" in (long.error or "")
    assert not short.failed
    assert not other.failed


def test_messages_without_a_chat_template_are_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(WORDS)
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, tmp_path)
    with pytest.raises(ModelError, match="no chat template"):
        list(LocalEngine(LocalSettings(folder=tmp_path)).run([chat("a")]))


def test_other_weights_have_another_hash(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder)
    save_model(tiny_model("llama", len(tokenizer), seed=4), tokenizer, tmp_path)
    assert weights_hash(tmp_path) != weights_hash(folder)


def test_adapters_in_the_middle_of_a_model_change_its_hash(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    # Neither end of the file: the embeddings and the last norm stay.
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] += 1
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    assert weights_hash(tmp_path / "other") != weights_hash(folder)


def test_a_higher_limit_is_another_question_to_the_store(folder: Path) -> None:
    short, long = (LocalSettings(folder=folder, max_completion_tokens=limit) for limit in (4, 60))
    assert store_salt(short) != store_salt(long)
    assert store_salt(short) == store_salt(short.model_copy(update={"batch_size": 1}))


def test_a_prompt_to_be_continued_cannot_hold_a_control_token(engine: LocalEngine, folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = engine._prompt_ids(Request(model="m", prompt="a <eos> b"))
    assert ids
    assert tokenizer.eos_token_id not in ids


def test_a_prompt_beyond_what_longrope_reads_alike_fails_alone(tmp_path: Path) -> None:
    model = stretched()  # reads 16 tokens alike, and has a context of 64
    save_model(model, word_tokenizer([f"w{n}" for n in range(28)]), tmp_path)
    engine = LocalEngine(LocalSettings(folder=tmp_path))
    asked = [Request(model="m", prompt=" ".join(["w1"] * count), max_completion_tokens=4) for count in (12, 13)]
    short, long = engine.run(asked)
    assert short.error is None
    assert "exceed its context of 16" in (long.error or "")


def asked_by(template: str, folder: Path, tmp_path: Path, *turns: tuple[Role, str]) -> list[str]:
    """The tokens that a model with this chat template is asked with."""
    written = tmp_path / "own.jinja"
    written.write_text(template)
    engine = LocalEngine(LocalSettings(folder=folder, chat_template=written))
    messages = tuple(Message(role=role, content=text) for role, text in turns)
    tokens: list[str] = load_tokenizer(folder).convert_ids_to_tokens(
        engine._prompt_ids(Request(model="m", messages=messages))
    )
    return tokens


# As Mistral-7B-Instruct-v0.3's: what the system says goes into the last turn of the user.
SYSTEM_LAST = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}{% for m in turns %}{{ m['role'] }} : "
    "{% if loop.last and system is defined %}{{ system }} | {% endif %}{{ m['content'] }}<eos>{% endfor %}assistant :"
)
EXAMPLE: tuple[tuple[Role, str], ...] = (
    ("system", "which is better"),
    ("user", "a"),
    ("assistant", "first<eos>"),
    ("user", "b"),
)


def test_each_message_stands_where_the_template_writes_it(folder: Path, tmp_path: Path) -> None:
    # By hand from the template; what the assistant says spells out the end of a turn and is a word unknown to it.
    expected = "user : a <eos> assistant : <unk> <eos> user : which is better | b <eos> assistant :"
    assert asked_by(SYSTEM_LAST, folder, tmp_path, *EXAMPLE) == expected.split()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages[1:] %}{{ m['content'] }} {% endfor %}", r"drops what is said in turn 1 \(system\)"),
        (TEMPLATE + "{{ messages[0]['content'] }}", r"repeats what is said in turn 1 \(system\)"),
        # As Gemma's.
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
         r"fails \(System role not supported\)"),
    ],
)  # fmt: skip
def test_a_template_that_does_not_write_each_message_once_is_refused_with_what_to_do(
    folder: Path, tmp_path: Path, template: str, said: str
) -> None:
    with pytest.raises(ModelError, match=rf"{said}.*a chat_template of your own.*a judge in completion style"):
        asked_by(template, folder, tmp_path, *EXAMPLE)


def test_a_prompt_holds_neither_todays_date_nor_a_place_to_think(folder: Path, tmp_path: Path) -> None:
    # As Llama 3.2's and Qwen3's: the date is today's, and there is thought, unless the template is told otherwise.
    template = (
        "{% if date_string is not defined %}first {% endif %}{{ messages[0]['content'] }}"
        "{% if enable_thinking is defined and enable_thinking is false %} second{% endif %}"
    )
    assert asked_by(template, folder, tmp_path, ("user", "a")) == ["a", "second"]
