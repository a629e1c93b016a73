"""Models to be trained: all of their weights or adapters alone, in float32 or bfloat16, and what they began as."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from pasture.core.errors import ModelError
from pasture.machine import sharded
from pasture.models.adapters import adapters_off, add_adapters
from pasture.models.heads import ScalarModel
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from pasture.models.shared_prompt import AnswerRows
from pasture.models.weights_config import Weights

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_trainable(
    start: Path,
    weights: Weights,
    *,
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> PreTrainedModel:
    """The language model of `start`, ready to be trained as `weights` says, in evaluation mode: dropout stays off.

    `seed` draws the adapters' first values; with them the model answers as it did without.

    Raises:
        ModelError: if it cannot be loaded, has no linear layers of the names that adapters are asked for, or cannot
            compute layers again.
    """
    model = _load(start, weights, tokenizer=tokenizer, device=device, seed=seed)
    sharded.share_out(model)
    return model


def begin_trainable_scalar(
    start: Path,
    weights: Weights,
    *,
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device,
    seed: int,
    head_seed: int,
) -> ScalarModel:
    """The language model of `start` under a new head, ready to be trained as `weights` says.

    Raises:
        ModelError: as `load_trainable` does.
    """
    language_model = _load(start, weights, tokenizer=tokenizer, device=device, seed=seed)
    return _share_out_scalar(ScalarModel.from_causal_lm(language_model, seed=head_seed), device)


def _load(
    start: Path,
    weights: Weights,
    *,
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device,
    seed: int,
) -> PreTrainedModel:
    model = load_causal_lm(start, dtype=_DTYPES[weights.dtype], device=_loads_to(device), tokenizer=tokenizer)
    if weights.lora is not None:
        add_adapters(model, weights.lora, seed=seed, base=_named(start))
    if weights.gradient_checkpointing:
        compute_layers_again(model)
    return model


def _named(base: Path) -> str:
    """What adapters call the model that they belong to: where it is, from whatever folder they are loaded."""
    return str(base.resolve()) if base.exists() else str(base)


def _loads_to(device: str | torch.device) -> str | torch.device:
    """Where a model is loaded to: weights that are shared out go to their device layer by layer."""
    return "cpu" if sharded.is_asked_for() else device


def _share_out_scalar(model: ScalarModel, device: str | torch.device) -> ScalarModel:
    sharded.share_out(model.backbone)
    model.head.to(device)
    model.offset = model.offset.to(device)
    sharded.share_out_head(model.head)
    return model


def load_trainable_scalar(
    folder: Path, weights: Weights, *, device: str | torch.device = "cpu", seed: int = 0
) -> ScalarModel:
    """The reward or value model of `folder`, ready to be trained as `weights` says; its head is always trained.

    Raises:
        ModelError: as `load_trainable` does.
    """
    model = ScalarModel.load(folder, dtype=_DTYPES[weights.dtype], device=_loads_to(device))
    if weights.lora is not None:
        add_adapters(model.backbone, weights.lora, seed=seed, base=_named(folder))
    if weights.gradient_checkpointing:
        compute_layers_again(model.backbone)
    return _share_out_scalar(model, device)


def reference_of(
    policy: PreTrainedModel,
    start: Path,
    weights: Weights,
    *,
    tokenizer: PreTrainedTokenizerBase,
) -> ResponseModel:
    """What `policy` began as: itself with its adapters off, or a copy of `start` where all weights are trained."""
    if weights.lora is not None:
        return WithoutAdapters(policy)
    copy = load_causal_lm(start, dtype=policy.dtype, device=_loads_to(policy.device), tokenizer=tokenizer)
    sharded.share_out(copy)
    return ResponseModel(copy)


class WithoutAdapters(ResponseModel):
    """A model as it is without its adapters; it takes no gradients."""

    @torch.no_grad()
    def hidden(self, ids_BT: Int[Tensor, "B T"], at_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "N H"]:
        """What `head` turns into logits, at the chosen positions, row by row."""
        with adapters_off(self.model):
            return super().hidden(ids_BT, at_BT)

    @torch.no_grad()
    def answer_logprobs(self, rows: AnswerRows) -> Float[Tensor, " N"]:
        """Log-probability of every answer token, answer after answer, in nats."""
        with adapters_off(self.model):
            return super().answer_logprobs(rows)

    @torch.no_grad()
    def head(self, hidden_NH: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
        """Next-token logits; the output layer may have adapters too."""
        with adapters_off(self.model.get_output_embeddings()):
            return super().head(hidden_NH)


def compute_layers_again(model: PreTrainedModel) -> None:
    """Let the backward pass compute each layer anew from its input, in place of remembering what is in it.

    transformers ties this to training mode, which would turn dropout on and caches off. Here the layers alone are put
    into that mode, only for passes that take gradients, so that sampling keeps its cache, and only until they compute:
    some, OPT's among them, drop out by it. What holds the layers is left as it is, since XGLM drops out there, too.

    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174

    Raises:
        ModelError: if the model's layers cannot do so.
    """
    try:
        # Renamed within transformers 5.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ModelError(f"gradient_checkpointing: {error} Set it to false for this model.") from error
    layers: list[Any] = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"gradient_checkpointing: {type(model).__name__} has no layers that transformers computes again. Set it to "
            "false for this model."
        )
    for layer in layers:
        layer._gradient_checkpointing_func = partial(_compute_at_rest, layer, layer._gradient_checkpointing_func)

    def choose(*_: object) -> None:
        for layer in layers:
            layer.training = torch.is_grad_enabled()

    model.base_model.register_forward_pre_hook(choose)


def _compute_at_rest(
    layer: nn.Module, compute_again: Callable[..., Any], forward: Callable[..., Any], *inputs: Any
) -> Any:
    """What a layer gives for its inputs, out of training mode the first time and again."""

    def at_rest(*given: Any) -> Any:
        layer.training = False
        return forward(*given)

    return compute_again(at_rest, *inputs)
