"""Low-rank adapters in a model's own layers: put in, turned off, and written out with the model.

The adapters of peft replace the layers in place: whatever reads, samples or scores the model needs not know of them.
With the adapters off, the model is the one that training began with, and no second copy is held.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Embedding, Linear, LoraLayer
from peft.utils.other import transpose
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pasture.core.errors import ModelError
from pasture.core.files import atomic_file
from pasture.core.seeds import stream
from pasture.models.weights_config import Lora

LOG = logging.getLogger("pasture.models")

ADAPTER_FOLDER = "adapter"
"""Within a saved model's folder: the adapters alone, as `PeftModel.from_pretrained` reads them."""

MUCH_LOST = 0.5
"""Share of what adapters add, by norm, from which on its loss to rounding is told."""

_TOLD = 3
"""Layers that an error names, at most."""

_NAME = "default"
_TENSORS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def add_adapters(model: PreTrainedModel, lora: Lora, *, seed: int, base: str) -> None:
    """Put low-rank adapters into `model`, which are then all that is trained of it; they begin by changing nothing.

    A is drawn as peft draws it, uniformly within 1 / sqrt(its inputs), from a stream of its own; B is 0. Both are
    float32 whatever the model's type. `base` is what the saved adapters name as the model that they belong to.

    Raises:
        ModelError: if the model has no layer of a name that is asked for, or it is no linear layer.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=None if lora.target_modules == "all-linear" else list(lora.target_modules),
        # GPT-2 and its kin keep their matrices transposed.
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
        base_model_name_or_path=base,
    )
    try:
        if config.target_modules is None:
            config.target_modules = _linear_layers(model, config)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # see `config_of_merged`
            inject_adapter_in_model(config, model, _NAME)
    except ValueError as error:
        first_line = str(error).splitlines()[0]
        raise ModelError(f"adapters do not fit {base}: {first_line} Name other target_modules.") from error
    _check_layers(model, base)
    model.base_model.peft_config = model.peft_config
    for name, layer in adapted_layers(model):
        first, second = layer.lora_A[_NAME].float(), layer.lora_B[_NAME].float()
        bound = first.in_features**-0.5
        drawn = stream(seed, "lora", name).uniform(-bound, bound, size=tuple(first.weight.shape))
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(drawn))
            second.weight.zero_()


def _linear_layers(model: PreTrainedModel, config: LoraConfig) -> set[str]:
    """Names of the linear layers that get adapters where none are named: all but the output layer.

    transformers 5 keeps the experts of a mixture, linear layers once, in one tensor, which cannot be saved with an
    adapter added. peft still knows their old names, and takes any layer of such a name, a shared expert's among them,
    to mean all of the experts: with these left out, it reads what is saved as it is meant.
    """
    output = model.get_output_embeddings()
    parts = model.named_modules()
    linear = {name for name, part in parts if isinstance(part, nn.Linear | Conv1D) and part is not output}
    understood = copy.deepcopy(config)
    understood.target_modules = set(linear)
    convert_peft_config_for_transformers(understood, model, None)
    kept = linear & set(understood.target_modules)
    experts = {name for name, one in model.named_parameters() if one.ndim == 3 and ".experts." in name}
    without = sorted({name.rpartition(".")[2] for name in experts | (linear - kept)})
    if without:
        LOG.warning(
            "%s: its experts, which are no linear layers, get no adapters, nor does what peft takes for them by its "
            "name: %s",
            model.config.get_text_config().model_type,
            ", ".join(without),
        )
    return kept


def _check_layers(model: PreTrainedModel, base: str) -> None:
    """See that adapters sit in linear layers alone, which are all that can be saved with them added.

    Raises:
        ModelError: naming those that they sit in otherwise.
    """
    layers = dict(adapted_layers(model))
    others = [name for name, layer in layers.items() if not isinstance(layer, Linear)]
    if others:
        embeddings = all(isinstance(layers[name], Embedding) for name in others)
        more = f" and {len(others) - _TOLD} more" if len(others) > _TOLD else ""
        raise ModelError(
            f"adapters do not fit {base}: target_modules expected linear layers, found "
            f"{'embeddings' if embeddings else 'parts that are none'}: {', '.join(others[:_TOLD])}{more}. "
            "Name linear layers alone, such as q_proj, or set it to 'all-linear'."
        )


def adapted_layers(module: nn.Module) -> list[tuple[str, LoraLayer]]:
    """The layers with adapters, by name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, LoraLayer)]


@contextlib.contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """While it is open, the model computes as if it had no adapters; those that were off before stay off after it."""
    layers = [layer for _, layer in adapted_layers(model) if not layer.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextlib.contextmanager
def adapters_named(model: nn.Module, name: str) -> Iterator[None]:
    """While it is open, the model computes with its adapters of that name, and nothing of it takes gradients."""
    layers = [layer for _, layer in adapted_layers(model)]
    for layer in layers:
        layer.set_adapter(name, inference_mode=True)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_adapter(_NAME)


def add_saved_adapters(backbone: PreTrainedModel, folder: Path, *, name: str) -> None:
    """Put the adapters of `folder` beside those that `backbone` has; they are used where `adapters_named` says so.

    Raises:
        ModelError: if `folder` holds none, or they belong to layers that have none here.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        tensors = load_file(folder / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no adapters ({error}).") from error
    layers = dict(adapted_layers(backbone))
    places = {_place(key) for key in tensors}
    if not places <= layers.keys():
        raise ModelError(
            f"{folder}: its adapters belong to layers such as {min(places - layers.keys())!r}, which have none in this "
            "model. Train both with the same target_modules."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
        inject_adapter_in_model(config, backbone, name)
    for key, tensor in tensors.items():
        part = "lora_A" if ".lora_A." in key else "lora_B"
        linear = getattr(layers[_place(key)], part)[name].float()
        with torch.no_grad():
            linear.weight.copy_(tensor)
    for layer in layers.values():
        layer.set_adapter(_NAME)


def _place(key: str) -> str:
    """The layer that a saved tensor of an adapter belongs to."""
    return key.removeprefix(_PREFIX).partition(".lora_")[0]


@torch.no_grad()
def distance_to_merged(backbone: nn.Module, merged: Mapping[str, Tensor], *, name: str) -> float:
    """How far the backbone's weights with the adapters `name` are from those of a model that holds them merged.

    The largest, over weights, of the norm of the difference as a share of the norm.
    """
    farthest = 0.0
    for key, tensor in _merged(backbone, backbone.state_dict(), name, _Rounding()):
        other = merged[key].to(tensor.device).float()
        farthest = max(farthest, float((tensor.float() - other).norm() / other.norm().clamp(min=1e-30)))
    return farthest


def merged_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model without adapters that computes the same, under its own names.

    The same up to the rounding of each weight to the model's type: in bfloat16 a change of less than a 512th of a
    weight is lost, and where most of all that the adapters add is, the log says so.

    `weights` are the model's state, each tensor whole; it stays as it is. What is new is on the CPU: on a card there
    may be no room for all of it.
    """
    kept, rounding = {id(tensor) for tensor in weights.values()}, _Rounding()
    merged = _merged(model, weights, _NAME, rounding)
    found = {name: tensor if id(tensor) in kept else tensor.cpu() for name, tensor in merged}
    if rounding.share > MUCH_LOST:
        LOG.warning(
            "of what the adapters add to the weights, %.0f%% is lost where the sum is rounded to the model's type: "
            "what is saved answers like a model that learned less. %s/ beside it holds the adapters whole, for peft on "
            "the model that training began with; with weights.dtype = float32, model/ keeps it.",
            100 * min(rounding.share, 1.0),
            ADAPTER_FOLDER,
        )
    return found


@dataclass
class _Rounding:
    """What adapters add to weights of 16 bits, and what rounding takes of it, as sums of squares."""

    added: float = 0.0
    lost: float = 0.0

    @property
    def share(self) -> float:
        """The norm of what was lost over that of what was added; 0 where nothing was added."""
        return (self.lost / self.added) ** 0.5 if self.added else 0.0

    def note(self, added: Tensor, exact: Tensor, rounded: Tensor) -> None:
        """Count one weight in, unless it is not rounded."""
        if rounded.dtype != exact.dtype:
            self.added += float(added.norm()) ** 2
            self.lost += float((rounded.float() - exact).norm()) ** 2


@contextlib.contextmanager
def config_of_merged(model: PreTrainedModel) -> Iterator[None]:
    """While it is open, the config is that of the model that `merged_weights` are of.

    Adapters of an output layer make it another matrix than the embedding that it was tied to.
    """
    config = model.config.get_text_config()
    tied = config.tie_word_embeddings
    config.tie_word_embeddings = tied and not isinstance(model.get_output_embeddings(), LoraLayer)
    try:
        yield
    finally:
        config.tie_word_embeddings = tied


@torch.no_grad()
def _merged(
    model: nn.Module, weights: Mapping[str, Tensor], adapters: str, rounding: _Rounding
) -> Iterator[tuple[str, Tensor]]:
    """Each weight with the adapters of that name added to it, one by one; `rounding` counts what that loses."""
    layers = dict(adapted_layers(model))
    for name, tensor in weights.items():
        owner, _, last = name.rpartition(".")
        place = owner.removesuffix(".base_layer")
        layer = layers.get(place)
        if layer is None:
            if ".lora_" not in name:
                yield name, tensor
        elif last == "weight" and adapters in layer.lora_A:
            # Added in float32, so that it is rounded once, as a whole; what is then lost of it, `rounding` tells.
            first, second = (weights[f"{place}.{part}.{adapters}.weight"] for part in ("lora_A", "lora_B"))
            delta = transpose(second @ first, layer.fan_in_fan_out) * layer.scaling[adapters]
            exact = tensor.float() + delta
            rounded = exact.to(tensor.dtype)
            rounding.note(delta, exact, rounded)
            yield f"{place}.weight", rounded
        else:
            yield f"{place}.{last}", tensor


def save_adapters(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapters alone into `folder`, for `PeftModel.from_pretrained` on the model that they belong to.

    `model` is a language model or its backbone; what is written is for the same kind. `weights` are its state, whole.
    """
    layers = adapted_layers(model)
    config = copy.copy(model.peft_config[_NAME])
    config.target_modules = sorted(name for name, _ in layers)
    config.task_type = None if model.base_model is model else "CAUSAL_LM"
    tensors = {
        f"{_PREFIX}{name}.{part}.weight": weights[f"{name}.{part}.{_NAME}.weight"].cpu().contiguous()
        for name, _ in layers
        for part in ("lora_A", "lora_B")
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / _TENSORS) as draft:
        save_file(tensors, draft)
    config.save_pretrained(folder)
