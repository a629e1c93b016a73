"""Models in training: adapters change nothing at first, are all that learns, and are saved with what they add up to."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM, DeepseekV3Config, MixtralConfig

from pasture.core.errors import ModelError
from pasture.models.adapters import adapted_layers, adapters_off, merged_weights
from pasture.models.encode import EncodedPair
from pasture.models.heads import ScalarModel
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig, sample
from pasture.models.shared_prompt import AnswerLayout
from pasture.models.tiny import tiny_model, word_tokenizer
from pasture.models.trainable import load_trainable, reference_of
from pasture.models.weights_config import Lora, Weights

# peft asks transformers by a name of old.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SHAPES = ("llama", "qwen", "gpt2", "neox")
IDS = torch.tensor([[1, 2, 3, 4, 5, 6]])
LORA = Weights(lora=Lora(rank=2, alpha=8))


@pytest.fixture(params=SHAPES)
def start(request, tmp_path: Path) -> Path:
    tokenizer = word_tokenizer([f"w{n}" for n in range(20)])
    save_model(tiny_model(request.param, len(tokenizer), seed=0), tokenizer, tmp_path / "start")
    return tmp_path / "start"


def trainable(start: Path, weights: Weights = LORA, seed: int = 0):
    return load_trainable(start, weights, tokenizer=load_tokenizer(start), seed=seed)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def move_adapters(model) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            weight = layer.lora_B["default"].weight
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)


def test_adapters_change_nothing_at_first_and_are_all_that_learns(start: Path):
    model, plain = trainable(start), load_causal_lm(start)
    assert torch.equal(logits(model), logits(plain))
    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    assert learning
    assert all(".lora_" in name for name in learning)
    # The output layer has none: rewards and divergences read it as it is.
    assert not any(name.startswith(("lm_head", "embed_out")) for name in learning)


def test_adapters_name_their_model_so_that_it_is_found_from_any_folder(start: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(start.parent)
    assert trainable(Path("start")).peft_config["default"].base_model_name_or_path == str(start.resolve())


def test_adapters_compute_as_the_paper_has_it(start: Path):
    model, plain = trainable(start), load_causal_lm(start)
    move_adapters(model)
    # The oracle: W + (alpha / r) B A by hand, put into a plain model. GPT-2 keeps its matrices transposed.
    weights = dict(plain.named_modules())
    with torch.no_grad():
        for name, layer in adapted_layers(model):
            delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * (8 / 2)
            matrix = weights[name].weight
            matrix += delta if matrix.shape == delta.shape and type(weights[name]).__name__ != "Conv1D" else delta.T
    assert not torch.allclose(logits(model), logits(load_causal_lm(start)), atol=1e-2)
    torch.testing.assert_close(logits(model), logits(plain), atol=1e-4, rtol=1e-4)


def test_with_adapters_off_the_model_is_what_it_began_as_and_no_second_copy_is_held(start: Path):
    model, tokenizer = trainable(start), load_tokenizer(start)
    reference = reference_of(model, start, LORA, tokenizer=tokenizer)
    assert reference.model is model
    move_adapters(model)
    at = torch.ones_like(IDS, dtype=torch.bool)
    plain = ResponseModel(load_causal_lm(start))
    assert torch.equal(reference.head(reference.hidden(IDS, at)), plain.head(plain.hidden(IDS, at)))
    assert not reference.hidden(IDS, at).requires_grad
    rows = AnswerLayout(model.base_model, 0).rows([(EncodedPair([1, 2], [3, 4]), EncodedPair([1, 2], [5]))])
    assert torch.equal(reference.answer_logprobs(rows), plain.answer_logprobs(rows))
    with adapters_off(model):
        off = logits(model)
    assert torch.equal(off, logits(load_causal_lm(start)))
    assert all(one.requires_grad == (".lora_" in name) for name, one in model.named_parameters())
    assert not torch.equal(logits(model), off)


def output_layer(start: Path) -> str:
    plain = load_causal_lm(start)
    [name] = [name for name, part in plain.named_modules() if part is plain.get_output_embeddings()]
    return str(name)


# Told of GPT-2's transposed matrices, peft finds out by itself that the output layer is not.
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True:UserWarning")
def test_adapters_on_the_output_layer_are_off_in_the_reference_too(start: Path):
    weights = Weights(lora=Lora(rank=2, target_modules=(output_layer(start),)))
    model, tokenizer = trainable(start, weights), load_tokenizer(start)
    reference = reference_of(model, start, weights, tokenizer=tokenizer)
    move_adapters(model)
    at = torch.ones_like(IDS, dtype=torch.bool)
    # The oracle: the model that was saved, which never had adapters.
    plain = ResponseModel(load_causal_lm(start))
    assert torch.equal(reference.head(reference.hidden(IDS, at)), plain.head(plain.hidden(IDS, at)))
    assert not reference.head(reference.hidden(IDS, at)).requires_grad
    rows = AnswerLayout(model.base_model, 0).rows([(EncodedPair([1, 2], [3, 4]), EncodedPair([1, 2], [5]))])
    assert torch.equal(reference.answer_logprobs(rows), plain.answer_logprobs(rows))
    # The policy goes on with its adapters, and they learn.
    policy = ResponseModel(model)
    assert not torch.allclose(policy.head(policy.hidden(IDS, at)), plain.head(plain.hidden(IDS, at)), atol=1e-2)
    assert policy.head(policy.hidden(IDS, at)).requires_grad


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True:UserWarning")
def test_adapters_on_the_output_layer_untie_it_in_what_is_saved(start: Path, tmp_path: Path):
    """GPT-2's output layer is its embedding; a program that believed a config that says so would leave them out."""
    begun = load_causal_lm(start).config.tie_word_embeddings
    model = trainable(start, Weights(lora=Lora(rank=2, alpha=8, target_modules=(output_layer(start),))))
    move_adapters(model)
    save_model(model, load_tokenizer(start), tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert not saved.config.tie_word_embeddings
    torch.testing.assert_close(logits(saved), logits(model))
    assert model.config.tie_word_embeddings == begun
    # Adapters elsewhere leave it tied.
    save_model(trainable(start), load_tokenizer(start), tmp_path / "elsewhere")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere").config.tie_word_embeddings == begun


def test_adapters_turned_off_within_stay_off_until_the_outer_end(start: Path):
    model = trainable(start)
    move_adapters(model)
    on, plain = logits(model), logits(load_causal_lm(start))
    with adapters_off(model):
        with adapters_off(model):
            assert torch.equal(logits(model), plain)
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), on)


def test_without_adapters_the_reference_is_a_copy_that_training_does_not_move(start: Path):
    weights = Weights()
    model = trainable(start, weights)
    reference = reference_of(model, start, weights, tokenizer=load_tokenizer(start))
    with torch.no_grad():
        for one in model.parameters():
            one.add_(1.0)
    assert torch.equal(logits(reference.model), logits(load_causal_lm(start)))


def test_a_saved_model_is_a_plain_folder_that_answers_alike_and_its_adapters_load_with_peft(
    start: Path, tmp_path: Path
):
    model, tokenizer = trainable(start), load_tokenizer(start)
    move_adapters(model)
    before = copy.deepcopy(model.state_dict())
    save_model(model, tokenizer, tmp_path / "out")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert not adapted_layers(plain)
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=1e-5)
    # Another library's reading: peft's own, on the model that the adapters belong to.
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), tmp_path / "out" / "adapter").eval()
    torch.testing.assert_close(logits(again), logits(model), atol=1e-6, rtol=1e-6)


def test_a_reward_models_adapters_are_saved_with_it(start: Path, tmp_path: Path):
    model = trainable(start)
    scalar = ScalarModel.from_causal_lm(model)
    move_adapters(model)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    scalar.save(tmp_path / "reward")
    loaded = ScalarModel.load(tmp_path / "reward")
    torch.testing.assert_close(loaded(IDS, mask), scalar(IDS, mask), atol=1e-5, rtol=1e-5)
    again = PeftModel.from_pretrained(AutoModel.from_pretrained(start), tmp_path / "reward" / "adapter").eval()
    with torch.no_grad():
        hidden = again(input_ids=IDS).last_hidden_state
        expected = scalar.backbone(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(hidden, expected, atol=1e-6, rtol=1e-6)


def test_adapters_begin_the_same_for_the_same_seed_alone(start: Path):
    def first(seed: int) -> torch.Tensor:
        weight: torch.Tensor = adapted_layers(trainable(start, seed=seed))[0][1].lora_A["default"].weight
        return weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert float(first(1).detach().abs().max()) <= first(1).shape[1] ** -0.5


def test_layers_computed_again_give_the_same_gradients_and_leave_the_samplers_cache_alone(start: Path):
    gradients = []
    for again in (False, True):
        model = trainable(start, Weights(gradient_checkpointing=again))
        recomputed: list[int] = []
        linear = next(
            part for name, part in model.named_modules() if name.endswith(("q_proj", "c_attn", "query_key_value"))
        )
        linear.register_forward_hook(lambda *_, seen=recomputed: seen.append(1))
        loss = model(input_ids=IDS, use_cache=False).logits.float().logsumexp(-1).sum()
        torch.autograd.backward(loss)
        assert len(recomputed) == (2 if again else 1)
        gradients.append({name: one.grad for name, one in model.named_parameters()})
        drawn = sample(model, 0, [[1, 2, 3]], [0], SamplerConfig(max_new_tokens=4))
        plain = sample(load_causal_lm(start), 0, [[1, 2, 3]], [0], SamplerConfig(max_new_tokens=4))
        assert drawn == plain
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_layer_that_is_not_there_is_one_clear_error(start: Path):
    with pytest.raises(ModelError, match=r"Target modules.*nowhere.*Name other target_modules"):
        trainable(start, Weights(lora=Lora(target_modules=("nowhere",))))


def test_embeddings_are_no_place_for_adapters_and_are_named(start: Path):
    plain = load_causal_lm(start)
    embeddings = next(name for name, part in plain.named_modules() if part is plain.get_input_embeddings())
    with pytest.raises(ModelError, match=rf"expected linear layers, found embeddings: {embeddings}\. Name"):
        trainable(start, Weights(lora=Lora(target_modules=(embeddings.rpartition(".")[2],))))


MIXTURE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4} | {
    "initializer_range": 0.2, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
MIXTRAL = MixtralConfig(**MIXTURE, num_key_value_heads=2, num_local_experts=4)
# The first layer has no experts, the second four and one that all tokens share.
DEEPSEEK = DeepseekV3Config(
    **MIXTURE, num_key_value_heads=4, n_routed_experts=4, n_shared_experts=1, moe_intermediate_size=16, n_group=2,
    num_experts_per_tok=2, topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8,
    v_head_dim=8, first_k_dense_replace=1,
)  # fmt: skip


def saved_mixture(config, folder: Path) -> Path:
    tokenizer = word_tokenizer([f"w{n}" for n in range(20)])
    config = copy.deepcopy(config)
    config.vocab_size = len(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(AutoModelForCausalLM.from_config(config).eval(), tokenizer, folder)
    return folder


@pytest.mark.parametrize(
    ("config", "without"),
    [(MIXTRAL, "down_proj, gate_up_proj"), (DEEPSEEK, "down_proj, gate_proj, gate_up_proj, up_proj")],
)
def test_experts_of_a_mixture_get_no_adapters_and_what_is_trained_is_saved_whole(config, without, tmp_path, caplog):
    start = saved_mixture(config, tmp_path / "start")
    model = trainable(start)
    assert f"no adapters, nor does what peft takes for them by its name: {without}" in caplog.text
    adapted = {name.rpartition(".")[2] for name, _ in adapted_layers(model)}
    assert {"q_proj", "o_proj"} & adapted
    assert not any("expert" in name for name, _ in adapted_layers(model))
    move_adapters(model)
    assert not torch.allclose(logits(model), logits(load_causal_lm(start)), atol=1e-2)
    save_model(model, load_tokenizer(start), tmp_path / "out")
    # The readings of other libraries: of the whole, and of the adapters over what they were trained on.
    for read in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval(),
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), tmp_path / "out" / "adapter").eval(),
        load_causal_lm(tmp_path / "out"),
    ):
        torch.testing.assert_close(logits(read), logits(model), atol=1e-4, rtol=1e-4)


# peft tells of a rank that it set for the experts itself.
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize("names", [("q_proj", "w1", "w2", "w3"), ("gate",)])
def test_adapters_on_experts_are_refused_before_they_learn_what_could_not_be_saved(names, tmp_path):
    start = saved_mixture(MIXTRAL, tmp_path / "start")
    with pytest.raises(ModelError, match=r"expected linear layers, found parts that are none: model\.layers\.0\.mlp"):
        trainable(start, Weights(lora=Lora(target_modules=names)))


@pytest.mark.parametrize(
    ("dtype", "size", "told"), [("bfloat16", 1e-4, True), ("bfloat16", 1.0, False), ("float32", 1e-4, False)]
)
def test_a_change_that_is_lost_to_rounding_when_saved_is_told(start: Path, tmp_path, caplog, dtype, size, told):
    model = trainable(start, Weights(dtype=dtype, lora=Lora(rank=2)))
    move_adapters(model)
    before = {name: layer.base_layer.weight.float() for name, layer in adapted_layers(model)}
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.lora_B["default"].weight.mul_(size)
    save_model(model, load_tokenizer(start), tmp_path / "out")
    # The oracle: peft's own change of each layer, against how the weights of the folder differ from those before.
    saved = load_causal_lm(tmp_path / "out").state_dict()
    added = {name: layer.get_delta_weight("default").detach() for name, layer in adapted_layers(model)}
    lost = sum(float((saved[f"{name}.weight"] - before[name] - one).square().sum()) for name, one in added.items())
    share = (lost / sum(float(one.square().sum()) for one in added.values())) ** 0.5
    assert (share > 0.5) == told
    assert (f"{100 * share:.0f}% is lost where the sum is rounded" in caplog.text) == told
    assert ("adapter/ beside it holds the adapters whole" in caplog.text) == told


def test_adapters_that_have_not_moved_lose_nothing(start: Path, tmp_path, caplog):
    save_model(trainable(start, Weights(dtype="bfloat16", lora=Lora(rank=2))), load_tokenizer(start), tmp_path / "out")
    assert "lost" not in caplog.text


def test_adapters_of_a_coarse_model_are_kept_and_merged_in_float32(start: Path):
    model = trainable(start, Weights(dtype="bfloat16", lora=Lora(rank=2)))
    assert {one.dtype for name, one in model.named_parameters() if ".lora_" in name} == {torch.float32}
    assert {one.dtype for name, one in model.named_parameters() if ".lora_" not in name} == {torch.bfloat16}
    move_adapters(model)
    name, layer = adapted_layers(model)[0]
    delta = layer.get_delta_weight("default")
    expected = (layer.base_layer.weight.float() + delta).bfloat16()
    assert torch.equal(merged_weights(model, model.state_dict())[f"{name}.weight"], expected)
