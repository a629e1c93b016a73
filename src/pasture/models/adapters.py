"""Low-rank adapters in a model's own layers: put in, turned off, and written out with the model.

The adapters of peft replace the layers in place: whatever reads, samples or scores the model needs not know of them.
With the adapters off, the model is the one that training began with, and no second copy is held.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import transpose
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pasture.core.errors import ModelError
from pasture.core.files import atomic_file
from pasture.core.seeds import stream
from pasture.models.weights_config import Lora

ADAPTER_FOLDER = "adapter"
"""Within a saved model's folder: the adapters alone, as `PeftModel.from_pretrained` reads them."""

_NAME = "default"


def add_adapters(model: PreTrainedModel, lora: Lora, *, seed: int, base: str) -> None:
    """Put low-rank adapters into `model`, which are then all that is trained of it; they begin by changing nothing.

    A is drawn as peft draws it, uniformly within 1 / sqrt(its inputs), from a stream of its own; B is 0. Both are
    float32 whatever the model's type. `base` is what the saved adapters name as the model that they belong to.

    Raises:
        ModelError: if the model has no layer of a name that is asked for.
    """
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        # GPT-2 and its kin keep their matrices transposed.
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
        base_model_name_or_path=base,
    )
    try:
        inject_adapter_in_model(config, model, _NAME)
    except ValueError as error:
        first_line = str(error).splitlines()[0]
        raise ModelError(f"adapters do not fit {base}: {first_line} Name other target_modules.") from error
    model.base_model.peft_config = model.peft_config
    for name, layer in adapted_layers(model):
        first, second = layer.lora_A[_NAME].float(), layer.lora_B[_NAME].float()
        bound = first.in_features**-0.5
        drawn = stream(seed, "lora", name).uniform(-bound, bound, size=tuple(first.weight.shape))
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(drawn))
            second.weight.zero_()


def adapted_layers(module: nn.Module) -> list[tuple[str, LoraLayer]]:
    """The layers with adapters, by name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, LoraLayer)]


@contextlib.contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """While it is open, the model computes as if it had no adapters."""
    layers = [layer for _, layer in adapted_layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def merged_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model without adapters that computes the same, under its own names.

    `weights` are the model's state, each tensor whole; it stays as it is.
    """
    layers = dict(adapted_layers(model))
    merged = {}
    for name, tensor in weights.items():
        owner, _, last = name.rpartition(".")
        place = owner.removesuffix(".base_layer")
        layer = layers.get(place)
        if layer is None:
            if ".lora_" not in name:
                merged[name] = tensor
        elif last == "weight":
            # Added in float32: in bfloat16 a small change would be lost.
            first, second = (weights[f"{place}.{part}.{_NAME}.weight"] for part in ("lora_A", "lora_B"))
            delta = transpose(second @ first, layer.fan_in_fan_out) * layer.scaling[_NAME]
            merged[f"{place}.weight"] = (tensor.float() + delta).to(tensor.dtype)
        else:
            merged[f"{place}.{last}"] = tensor
    return merged


def save_adapters(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapters alone into `folder`, for `PeftModel.from_pretrained` on the model that they belong to.

    `model` is a language model or its backbone; what is written is for the same kind. `weights` are its state, whole.
    """
    layers = adapted_layers(model)
    config = copy.copy(model.peft_config[_NAME])
    config.target_modules = sorted(name for name, _ in layers)
    config.task_type = None if model.base_model is model else "CAUSAL_LM"
    tensors = {
        f"base_model.model.{name}.{part}.weight": weights[f"{name}.{part}.{_NAME}.weight"].cpu().contiguous()
        for name, _ in layers
        for part in ("lora_A", "lora_B")
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "adapter_model.safetensors") as draft:
        save_file(tensors, draft)
    config.save_pretrained(folder)
