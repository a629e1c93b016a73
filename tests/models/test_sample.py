"""The sampler, against transformers' generate, its logits processors, full forward passes and NumPy."""

import gc
import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    MistralConfig,
    OPTConfig,
    RwkvConfig,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from pasture.core.errors import ModelError
from pasture.core.seeds import stream
from pasture.models import decoder
from pasture.models.batches import pad_left
from pasture.models.decoder import Decoder
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from pasture.models.sample import SamplerConfig, sample
from pasture.models.slot_cache import SlotCache, SlotLayer
from pasture.models.tiny import tiny_model, word_tokenizer
from pasture.models.token_choice import choose_tokens

SHAPES = ["llama", "qwen", "gpt2", "neox"]
WORDS = [f"word{number}" for number in range(40)]
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 1, 4], [3, 5, 8, 9, 7, 9, 3, 2], [38, 4], [6, 2], [40, 11, 12]]
NEW = 16
UNREACHABLE = 10_000


@pytest.fixture(scope="module", params=SHAPES)
def saved(request, tmp_path_factory):
    """A model that was written to disk and loaded again, with its tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = word_tokenizer(WORDS)
    save_model(tiny_model(request.param, len(tokenizer), seed=1), tokenizer, folder)
    tokenizer = load_tokenizer(folder)
    return load_causal_lm(folder, tokenizer=tokenizer), tokenizer


def generate(model, prompts, stop_ids, pad_id, new_tokens=NEW):
    """transformers' greedy answers, each cut after its first stop token."""
    ids_BT, mask_BT = pad_left(prompts, pad_id)
    output_BT = model.generate(
        ids_BT,
        attention_mask=mask_BT.long(),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=stop_ids,
        pad_token_id=pad_id,
    )[:, ids_BT.shape[1] :]
    answers = []
    for row in output_BT.tolist():
        ends = [place + 1 for place, token in enumerate(row) if token in stop_ids]
        answers.append(row[: ends[0]] if ends else row)
    return answers


def greedy(model, prompts, stop_ids, **settings):
    config = SamplerConfig(temperature=0.0, max_new_tokens=NEW, **settings)
    return sample(model, stop_ids, prompts, [0] * len(prompts), config)


def test_greedy_answers_equal_generates(saved):
    model, tokenizer = saved
    answers = greedy(model, PROMPTS, tokenizer.eos_token_id)
    assert [answer.token_ids for answer in answers] == generate(
        model, PROMPTS, [tokenizer.eos_token_id], tokenizer.pad_token_id
    )
    assert len({tuple(answer.token_ids) for answer in answers}) > 3


def test_greedy_answers_equal_generates_where_rows_stop_at_different_times(saved):
    model, tokenizer = saved
    running = [answer.token_ids for answer in greedy(model, PROMPTS, UNREACHABLE)]
    # Of three answers, the token that is said latest for the first time becomes a stop token.
    stops = sorted({max(set(answer), key=answer.index) for answer in running[:2] + running[4:5]})
    answers = greedy(model, PROMPTS, stops)
    expected = generate(model, PROMPTS, stops, tokenizer.pad_token_id)
    assert [answer.token_ids for answer in answers] == expected
    assert len({len(answer.token_ids) for answer in answers}) > 2
    for answer in answers:
        stopped = answer.token_ids[-1] in stops
        assert answer.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(answer.token_ids) == NEW


def test_greedy_answers_equal_generates_in_small_batches(saved):
    model, tokenizer = saved
    expected = generate(model, PROMPTS, [tokenizer.eos_token_id], tokenizer.pad_token_id)
    for batch_tokens in (1, 50):
        answers = greedy(model, PROMPTS, tokenizer.eos_token_id, batch_tokens=batch_tokens)
        assert [answer.token_ids for answer in answers] == expected


@pytest.mark.parametrize("budget", [70, 150])
def test_greedy_answers_equal_generates_where_others_take_the_places_of_finished_ones(saved, budget, tight):
    model, tokenizer = saved
    # The long ones come last, and need more columns than those under way have filled.
    prompts = [[*prompt, first] for first in (3, 8, 13, 21, 33) for prompt in PROMPTS]
    prompts += [[*range(start, start + 20)] for start in (3, 9)]
    running = [answer.token_ids for answer in greedy(model, prompts, UNREACHABLE)]
    stops = sorted({max(set(answer), key=answer.index) for answer in running[::5]})
    expected = generate(model, prompts, stops, tokenizer.pad_token_id)
    assert len(set(map(len, expected))) > 4
    answers = greedy(model, prompts, stops, batch_tokens=budget)
    assert [answer.token_ids for answer in answers] == expected


def test_those_who_came_together_stay_together(monkeypatch):
    """So that attention can skip, for many rows at once, the columns that older ones need."""
    ages = []
    advance = Decoder._advance

    def watched(self, token_B):
        ages.append([part.tolist() for part in self.state.drawn_B[: self.slots.live].split(self.cohorts)])
        return advance(self, token_B)

    monkeypatch.setattr(Decoder, "_advance", watched)
    config = SamplerConfig(max_new_tokens=60, batch_tokens=16 * 64)
    sample(tiny_model("llama", 43, seed=0), range(4), [[5, 6, 7, row % 43] for row in range(160)], range(160), config)
    assert max(map(len, ages)) > 3
    for cohorts in ages:
        assert all(max(younger) <= min(older) for older, younger in pairwise(cohorts))


@pytest.fixture
def tight(monkeypatch):
    """Columns are laid out one at a time and skipped wherever they can be; memory that nobody wrote is no number."""
    monkeypatch.setattr(decoder, "SHORTEST_ROOM", 1)
    monkeypatch.setattr(decoder, "WORTH_A_PRODUCT", 0)
    new_empty = torch.Tensor.new_empty

    def poisoned(self, *shape, **more):
        found = new_empty(self, *shape, **more)
        return found.fill_(torch.nan) if found.is_floating_point() else found

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


def test_places_of_finished_answers_are_taken():
    model = tiny_model("llama", 43, seed=0)
    steps = []
    model.register_forward_pre_hook(lambda _, __, named: steps.append(named["input_ids"].shape), with_kwargs=True)
    # One token in ten ends an answer; 16 places, for 160 requests.
    config = SamplerConfig(max_new_tokens=60, batch_tokens=16 * 64)
    answers = sample(model, range(4), [[5, 6, 7, number % 43] for number in range(160)], range(160), config)
    fed = [len(answer.token_ids) - 1 for answer in answers]
    rows = [rows for rows, columns in steps if columns == 1]
    assert sum(rows) == sum(fed)
    assert max(rows) == 16
    # Batch after batch, each would take as many steps as its longest answer.
    batches = sum(max(fed[start : start + 16]) for start in range(0, 160, 16))
    assert len(rows) < 0.6 * batches


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_greedy_answers_equal_generates_with_a_sliding_window(attention):
    config = MistralConfig(
        vocab_size=43,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        initializer_range=0.3,
        attn_implementation=attention,
        pad_token_id=None,
    )
    _equals_generate(config)


def test_greedy_answers_equal_generates_where_positions_come_from_the_mask():
    # Bloom takes no position ids: it biases attention by distances that it counts from the mask.
    _equals_generate(BloomConfig(vocab_size=43, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3))


def test_greedy_answers_equal_generates_for_a_falcon_that_counts_from_the_mask():
    sizes = {"vocab_size": 43, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    _equals_generate(FalconConfig(**sizes, alibi=True, initializer_range=0.3))


def test_a_model_whose_weights_are_nan_is_told_apart_from_one_that_answers():
    model = tiny_model("llama", 43, seed=0)
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = torch.nan
    for temperature in (0.0, 0.7, 1.0):
        with pytest.raises(ModelError, match="NaN or infinite log-probabilities"):
            sample(model, UNREACHABLE, PROMPTS, range(len(PROMPTS)), SamplerConfig(temperature=temperature))


def test_a_model_that_remembers_otherwise_than_by_keys_and_values_is_refused():
    config = RwkvConfig(vocab_size=43, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)
    with pytest.raises(ModelError, match=r"rwkv keeps no keys and values.*Serve the model with vLLM"):
        greedy(AutoModelForCausalLM.from_config(config).eval(), PROMPTS, UNREACHABLE)


def test_greedy_answers_equal_generates_for_opt():
    _equals_generate(
        OPTConfig(
            vocab_size=43,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
            init_std=0.3,
        )
    )


def _equals_generate(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    answers = [answer.token_ids for answer in greedy(model, PROMPTS, UNREACHABLE)]
    assert answers == generate(model, PROMPTS, [UNREACHABLE], pad_id=0)
    assert len(set(map(tuple, answers))) > 3
    stops = sorted({answer[5] for answer in answers})
    expected = generate(model, PROMPTS, stops, pad_id=0)
    assert len(set(map(len, expected))) > 2
    assert [answer.token_ids for answer in greedy(model, PROMPTS, stops, batch_tokens=80)] == expected


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_is_sampled_like_the_model_it_makes():
    model = tiny_model("llama", 43, seed=0)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    answers = [answer.token_ids for answer in greedy(adapted, PROMPTS, UNREACHABLE)]
    assert answers == generate(adapted, PROMPTS, [UNREACHABLE], pad_id=0)
    with adapted.disable_adapter():
        assert answers != [answer.token_ids for answer in greedy(adapted, PROMPTS, UNREACHABLE)]


def test_equal_prompts_are_read_once():
    model = tiny_model("llama", 43, seed=0)
    read = []
    model.register_forward_pre_hook(lambda _, __, named: read.append(named["input_ids"].shape), with_kwargs=True)
    # Rows of a batch: 24 positions each, so 4 rows. Two prompts of one length, asked for in turn.
    sample(
        model,
        UNREACHABLE,
        [[1, 2, 3, 4], [5, 6, 7, 8]] * 4,
        range(8),
        SamplerConfig(max_new_tokens=20, batch_tokens=96),
    )
    assert [tuple(shape) for shape in read if shape[1] > 1] == [(1, 4), (1, 4)]


def logits_along(model, prompt, answer):
    """The logits before each token of the answer, from one pass over prompt and answer without a cache."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
    return logits_TV[len(prompt) - 1 : -1].double()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.5, 0.6)])
def test_logprobs_equal_a_full_forward_and_transformers_warpers(saved, temperature, top_p):
    model, tokenizer = saved
    config = SamplerConfig(temperature=temperature, top_p=top_p, max_new_tokens=NEW)
    for prompt, answer in zip(
        PROMPTS, sample(model, tokenizer.eos_token_id, PROMPTS, list(range(8)), config), strict=True
    ):
        logits_TV = logits_along(model, prompt, answer.token_ids)
        warped_TV = TemperatureLogitsWarper(temperature)(None, logits_TV) if temperature != 1.0 else logits_TV
        warped_TV = TopPLogitsWarper(top_p)(None, warped_TV) if top_p != 1.0 else warped_TV
        places = range(len(answer.token_ids)), answer.token_ids
        np.testing.assert_allclose(answer.logprobs, logits_TV.log_softmax(-1)[places], atol=1e-4)
        np.testing.assert_allclose(answer.sampling_logprobs, warped_TV.log_softmax(-1)[places], atol=1e-4)


def test_greedy_answers_are_certain_under_the_sampler_and_not_under_the_model(saved):
    model, tokenizer = saved
    answer = greedy(model, PROMPTS[:1], tokenizer.eos_token_id)[0]
    expected = logits_along(model, PROMPTS[0], answer.token_ids).log_softmax(-1).max(-1).values
    np.testing.assert_allclose(answer.logprobs, expected, atol=1e-4)
    assert set(answer.sampling_logprobs) == {0.0}


def test_tokens_invert_the_cumulative_distribution_at_the_requests_own_draws(saved):
    model, _ = saved
    config = SamplerConfig(temperature=0.8, max_new_tokens=NEW)
    for prompt, seed, answer in zip(
        PROMPTS, range(8), sample(model, UNREACHABLE, PROMPTS, range(8), config), strict=True
    ):
        # In NumPy and double precision, from a pass without a cache.
        cumulative_TV = (logits_along(model, prompt, answer.token_ids) / 0.8).softmax(-1).cumsum(-1).numpy()
        draws = stream(seed, "sample").random(NEW)
        expected = [
            int(np.searchsorted(row, draw, side="right")) for row, draw in zip(cumulative_TV, draws, strict=True)
        ]
        assert answer.token_ids == expected


def test_answers_do_not_depend_on_company_or_order(saved):
    model, tokenizer = saved
    config = SamplerConfig(temperature=0.9, top_p=0.95, max_new_tokens=NEW)
    seeds = list(range(100, 100 + len(PROMPTS)))
    together = sample(model, tokenizer.eos_token_id, PROMPTS, seeds, config)
    for prompt, seed, answer in zip(PROMPTS, seeds, together, strict=True):
        alone = sample(model, tokenizer.eos_token_id, [prompt], [seed], config)[0]
        assert alone.token_ids == answer.token_ids
        np.testing.assert_allclose(alone.logprobs, answer.logprobs, atol=1e-4)
    backwards = sample(model, tokenizer.eos_token_id, PROMPTS[::-1], seeds[::-1], config)
    assert [answer.token_ids for answer in backwards[::-1]] == [answer.token_ids for answer in together]


def test_a_longer_answer_begins_like_a_shorter_one(saved):
    model, _ = saved
    short, long = (
        sample(model, UNREACHABLE, PROMPTS, list(range(8)), SamplerConfig(max_new_tokens=new)) for new in (5, NEW)
    )
    assert [answer.token_ids for answer in short] == [answer.token_ids[:5] for answer in long]


def test_samples_of_one_prompt_differ_by_seed_and_repeat_with_it(saved):
    model, tokenizer = saved
    config = SamplerConfig(max_new_tokens=NEW)
    first, again = (sample(model, tokenizer.eos_token_id, [PROMPTS[0]] * 6, [0, 1, 2, 3, 4, 0], config) for _ in "12")
    assert first == again
    assert first[0].token_ids == first[5].token_ids
    assert len({tuple(answer.token_ids) for answer in first}) == 5


def test_frequencies_are_the_models_probabilities():
    model = tiny_model("llama", 12, seed=0)
    drawn = sample(model, UNREACHABLE, [[3, 1]] * 4000, range(4000), SamplerConfig(max_new_tokens=1))
    counts = np.bincount([answer.token_ids[0] for answer in drawn], minlength=12)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[3, 1]])).logits[0, -1].softmax(-1).numpy() * 4000
    # Pearson's statistic; its 99.9th percentile at 11 degrees of freedom is 31.3 (tables).
    assert ((counts - expected) ** 2 / expected).sum() < 31.3


def test_no_draw_falls_outside_the_nucleus():
    logits_BV = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(101, 1)
    draws = torch.linspace(0, 1, 101, dtype=torch.float64)
    draws[-1] = np.nextafter(1.0, 0.0)
    # By hand: 0.5 falls short of 0.7, 0.5 + 0.3 reaches it; renormalized, 0.625 and 0.375.
    token_B, logprob_B, sampling_B = choose_tokens(logits_BV, draws, SamplerConfig(top_p=0.7))
    assert token_B.tolist() == [0] * 63 + [1] * 38
    torch.testing.assert_close(sampling_B.exp(), torch.tensor([0.625] * 63 + [0.375] * 38))
    torch.testing.assert_close(logprob_B.exp(), torch.tensor([0.5] * 63 + [0.3] * 38))


def test_the_likeliest_token_survives_any_top_p():
    logits_BV = torch.tensor([[0.0, 3.0, 1.0]])
    token_B, _, sampling_B = choose_tokens(logits_BV, torch.tensor([0.999]), SamplerConfig(top_p=1e-6))
    assert token_B.tolist() == [1]
    assert sampling_B.tolist() == [0.0]


def test_a_token_without_probability_is_never_drawn():
    logits_BV = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(2, 1)
    draws = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert choose_tokens(logits_BV, draws, SamplerConfig())[0].tolist() == [1, 2]


def test_sampling_leaves_the_model_as_it_was(saved):
    model, tokenizer = saved
    model.train()
    before = model.config._attn_implementation
    weights = [parameter.clone() for parameter in model.parameters()]
    sample(model, tokenizer.eos_token_id, PROMPTS, range(8), SamplerConfig(max_new_tokens=4))
    assert model.training
    model.eval()
    assert model.config._attn_implementation == before == "sdpa"
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))
    loss = model(input_ids=torch.tensor([PROMPTS[1]]), labels=torch.tensor([PROMPTS[1]])).loss
    loss.backward()
    model.zero_grad()


def test_bfloat16_models_are_sampled(saved, tmp_path):
    model, tokenizer = saved
    model.save_pretrained(tmp_path)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    answers = sample(half, tokenizer.eos_token_id, PROMPTS, range(8), SamplerConfig(max_new_tokens=NEW))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        logits_TV = logits_along(half, prompt, answer.token_ids)
        places = range(len(answer.token_ids)), answer.token_ids
        # Eight bits of mantissa: about two digits.
        np.testing.assert_allclose(answer.logprobs, logits_TV.log_softmax(-1)[places], atol=0.15)


def test_progress_counts_answers():
    model = tiny_model("llama", 43, seed=0)
    seen = []

    def note(done: int, total: int, **figures: float) -> None:
        seen.append((done, total))

    config = SamplerConfig(max_new_tokens=4, batch_tokens=30)
    sample(model, UNREACHABLE, PROMPTS, range(8), config, progress=note)
    assert seen[-1] == (8, 8)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 2


def test_keys_and_values_go_when_the_answers_are_there(monkeypatch):
    """Not when the garbage collector comes by: it does not count how large a tensor is, and several would wait."""
    layers: list[weakref.ref[SlotLayer]] = []

    def watched(*arguments: Any, **more: Any) -> SlotCache:
        cache = SlotCache(*arguments, **more)
        layers.extend(weakref.ref(layer) for layer in cache.layers)
        return cache

    monkeypatch.setattr("pasture.models.decoder.SlotCache", watched)
    model = tiny_model("llama", 50, seed=1)
    gc.disable()
    try:
        greedy(model, PROMPTS, [UNREACHABLE])
        assert layers
        assert [layer() for layer in layers] == [None] * len(layers)
    finally:
        gc.enable()


def test_nothing_asked_is_nothing_answered():
    assert sample(tiny_model("llama", 43, seed=0), 1, [], [], SamplerConfig()) == []


def test_a_prompt_beyond_the_context_is_refused_before_any_work():
    model = tiny_model("gpt2", 43, seed=0)
    with pytest.raises(ModelError, match=r"250 tokens and max_new_tokens is 16, .* holds 256"):
        sample(model, 1, [[1] * 250], [0], SamplerConfig(max_new_tokens=16))


def test_prompts_need_tokens_and_seeds():
    model = tiny_model("llama", 43, seed=0)
    with pytest.raises(ValueError, match="nothing to continue"):
        sample(model, 1, [[1], []], [0, 1], SamplerConfig())
    with pytest.raises(ValueError, match="each of 2 prompts, got 1"):
        sample(model, 1, [[1], [2]], [0], SamplerConfig())


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}, {"top_k": 5}])
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        SamplerConfig(**wrong)
