"""Language models and tokenizers from and to plain `from_pretrained` folders.

Padding is never the end token. Where a tokenizer has no pad, or pads with its end token as many published ones do, a
loss mask or a stop test built on "is it pad?" would swallow the end of every answer, and models trained so never learn
to stop. `load_tokenizer` therefore picks a distinct pad, or adds one, and `load_causal_lm` makes room for it.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pasture.core.errors import ModelError
from pasture.core.files import unwritable
from pasture.machine.distributed import is_main, wait
from pasture.machine.sharded import whole_state
from pasture.models.adapters import ADAPTER_FOLDER, adapted_layers, config_of_merged, merged_weights, save_adapters
from pasture.models.hub_names import how_to_fetch, is_hub_name
from pasture.models.reach import context, unstretched_context

LOG = logging.getLogger("pasture.models")

Source: TypeAlias = Path | str
"""A folder, or a name such as "org/name" on the hub; a `Path` is always a folder."""

KNOWN_PADS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|padding|>", "<|endoftext|>")
"""Tokens that families reserve for padding, tried in order where a tokenizer names no usable pad."""

NEW_PAD = "[PAD]"
"""Added where none of them is in the vocabulary; AlpacaFarm's choice."""

HEAD_FILE = "scalar_head.safetensors"
"""Marks a folder as a reward or value model's: its output layer, beside weights that look like a language model's."""

_TOKENIZER_FILES = ("*token*", "*vocab*", "*.model")
"""What the files of every kind of tokenizer are called: tokenizer.json, vocab.txt, spiece.model, tekken.json."""


def load_tokenizer(folder: Source) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with an end token, and a pad token that is another.

    A pad token that had to be added has the id that follows the vocabulary's last.

    Raises:
        ModelError: if there is no tokenizer, or it has no end token.
    """
    source = _resolve(folder)
    if isinstance(source, Path) and not any(any(source.glob(files)) for files in _TOKENIZER_FILES):
        raise ModelError(
            f"{source} holds no tokenizer. Copy tokenizer.json and tokenizer_config.json there from the model that "
            "it was trained from."
        )
    with quiet_loading(source):
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=isinstance(source, Path), trust_remote_code=False
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {source} has no end token, so no answer could ever end. "
            "Set 'eos_token' in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        taken = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
        known = [pad for pad in KNOWN_PADS if pad in vocabulary and pad not in taken]
        tokenizer.add_special_tokens({"pad_token": known[0] if known else NEW_PAD})
    return tokenizer


def load_config(folder: Source) -> PreTrainedConfig:
    """What the model of a folder is made of.

    Raises:
        ModelError: if there is no config, or it cannot be read.
    """
    source = _resolve(folder)
    with quiet_loading(source):
        return AutoConfig.from_pretrained(source, local_files_only=isinstance(source, Path), trust_remote_code=False)


def within_context(folder: Source, wanted: int) -> int:
    """`wanted` tokens, or as many as the context of the folder's model holds, if that is fewer.

    Raises:
        ModelError: if there is no config, or it cannot be read.
    """
    config = load_config(folder)
    most = context(config)
    if most is None or wanted <= most:
        return wanted
    if most == unstretched_context(config):
        LOG.warning(
            "%s: prompt and answer are held to %d tokens; beyond them LongRoPE takes other positions for all rows of a "
            "batch, short ones too.",
            folder,
            most,
        )
    return most


def resting_dtype(folder: Source, device: str | torch.device) -> torch.dtype:
    """What a model that is not trained computes in: float32 on a CPU, on a card the type that it was saved in.

    Raises:
        ModelError: if there is no config, or it cannot be read.
    """
    if torch.device(device).type == "cpu":
        return torch.float32
    found = load_config(folder).dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def load_causal_lm(
    folder: Source,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    tokenizer: PreTrainedTokenizerBase | None = None,
    row_for_pad: bool = True,
) -> PreTrainedModel:
    """The language model of a folder, in evaluation mode, with a row for every token of its tokenizer.

    `tokenizer` is what `load_tokenizer` gave for the folder; left out, it is loaded again to count its tokens. Without
    `row_for_pad`, a pad that `load_tokenizer` had to add gets no row: enough for `sample`, which reads no pad and so
    can draw none, and the embeddings stay where the file is mapped, in place of a copy with one row more.

    Raises:
        ModelError: if the folder does not exist, or holds no causal language model with all its weights.
    """
    source = _resolve(folder)
    if isinstance(source, Path) and (source / HEAD_FILE).is_file():
        raise ModelError(
            f"{source} holds {HEAD_FILE}, so it is a reward or value model: it scores answers and gives none. "
            "Name the folder of a language model."
        )
    model = load_weights(AutoModelForCausalLM, source, dtype)
    fit_to_tokenizer(model, tokenizer if tokenizer is not None else load_tokenizer(folder), row_for_pad=row_for_pad)
    return model.to(device).eval()


def load_weights(auto_class: Any, source: Source, dtype: torch.dtype) -> PreTrainedModel:
    """What `auto_class` makes of a folder, from safetensors only, each weight found in the file.

    Raises:
        ModelError: if weights are missing (transformers would draw them at random and go on) or cannot be read.
    """
    with quiet_loading(source), _without_reports():
        model, report = auto_class.from_pretrained(
            source,
            dtype=dtype,
            local_files_only=isinstance(source, Path),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, in place of a table
        )
    _check_weights(source, report)
    return model


def _check_weights(source: Source, report: Mapping[str, Any]) -> None:
    """See that every weight was found, in the size that the config gives it."""
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, held, expected = mismatched[0]
        raise ModelError(
            f"{source}: {len(mismatched)} weights have other sizes than its config.json says (first: {name}, "
            f"{list(held)} in the file, {list(expected)} by the config). Put the config.json there that they were "
            "saved with."
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{source} lacks {len(missing)} weights that its config.json asks for (first: {missing[0]}). "
            "Name a folder of a whole language model."
        )


def fit_to_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, row_for_pad: bool = True) -> None:
    """Give `model` a row for each token and the tokenizer's end and pad ids.

    New rows of the input and output embeddings are the mean of the old ones. Rows that no token has stay.
    Without `row_for_pad`, a pad that follows all other tokens and has no row yet is left out.

    Source: AlpacaFarm, src/alpaca_farm/utils.py, stable_resize_token_embeddings
    """
    old_size = model.get_input_embeddings().weight.shape[0]
    needed = row_count(tokenizer)
    wanted = needed - (tokenizer.pad_token_id == needed - 1 and not row_for_pad)
    if wanted > old_size:
        model.resize_token_embeddings(wanted, mean_resizing=False)
        matrices = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), _output_layer(model))}
        with torch.no_grad():
            for weight in matrices.values():
                weight[old_size:] = weight[:old_size].mean(dim=0)
    if tokenizer.pad_token_id < max(old_size, wanted):
        for config in (model.config, model.generation_config):
            config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    # A published generation config may list several end tokens (end of turn, end of text): all of them stay.
    ends = stop_token_ids(model, tokenizer)
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]


def row_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that the tokens need: more than there are tokens where their ids have gaps."""
    return int(max(tokenizer.get_vocab().values())) + 1


def _output_layer(model: PreTrainedModel) -> Any:
    return model.get_output_embeddings() or model.get_input_embeddings()


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends an answer: the tokenizer's end token and those that the model's generation config lists."""
    listed = model.generation_config.eos_token_id
    more = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return sorted({tokenizer.eos_token_id, *more})


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a plain `from_pretrained` folder: config, weights as safetensors, tokenizer.

    Raises:
        RunFolderError: if the disk is full or the folder cannot be written.
    """
    fit_to_tokenizer(model, tokenizer)
    save_pretrained(model, folder)
    save_pretrained(tokenizer, folder)


def save_pretrained(part: PreTrainedModel | PreTrainedTokenizerBase, folder: Path) -> None:
    """`part.save_pretrained(folder)` with errors that say what to do.

    A model with adapters is written as the model without them that answers the same, to rounding to its type (see
    `merged_weights`), and the adapters once more on their own and whole, in `adapter/`. Of several processes, which
    must all call it, the main one writes.

    Raises:
        RunFolderError: if the disk is full or the folder cannot be written.
    """
    weights = whole_state(part) if isinstance(part, PreTrainedModel) else {}
    if is_main():
        write_pretrained(part, weights, folder)
    wait()


def write_pretrained(
    part: PreTrainedModel | PreTrainedTokenizerBase, weights: Mapping[str, Tensor], folder: Path
) -> None:
    """What `save_pretrained` does in the main process, with `weights` as those of a model.

    Raises:
        RunFolderError: if the disk is full or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _without_progress_bars():
            if not isinstance(part, PreTrainedModel):
                part.save_pretrained(folder)
            elif adapted_layers(part):
                with config_of_merged(part):
                    part.save_pretrained(folder, state_dict=merged_weights(part, weights))
                save_adapters(part, weights, folder / ADAPTER_FOLDER)
            else:
                part.save_pretrained(folder, state_dict=dict(weights))
    except SafetensorError as error:
        raise unwritable(folder, OSError(str(error))) from error
    except OSError as error:
        raise unwritable(folder, error) from error


def local_folder(folder: Source) -> Path:
    """`folder` as a path.

    Raises:
        ModelError: if there is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(
            f"{path}: no such model folder. Check the path, or run the step that trains the model."
            f"{how_to_fetch(str(path))}"
        )
    return path


def inner_folder(folder: Path, file: str) -> str:
    """The question, after a space, whether `folder`/model is meant, where that holds `file`; empty where it does not.

    `pasture train` and the steps of a run leave a model below their own folder.
    """
    inner = folder / "model"
    return f" Did you mean {inner}?" if (inner / file).is_file() else ""


def _resolve(folder: Source) -> Path | str:
    """The folder as a path that holds a config, or the hub name as it is."""
    if isinstance(folder, str) and is_hub_name(folder):
        return folder
    path = local_folder(folder)
    if not (path / "config.json").is_file():
        hint = inner_folder(path, "config.json") or " Name the folder that holds it."
        if (path / "adapter_config.json").is_file():
            hint = (
                " It holds adapters alone: name the folder above it where a training of Pasture left them, which holds "
                "the whole model, or merge them into their base model first (peft: merge_and_unload, save_pretrained)."
            )
        raise ModelError(f"{path} has no config.json, so it is no model folder.{hint}")
    return path


@contextlib.contextmanager
def quiet_loading(source: Source) -> Iterator[None]:
    """Keep transformers' bars off the screen, and turn what it raises for a bad folder into a `ModelError`."""
    try:
        with _without_progress_bars():
            yield
    except StrictDataclassError as error:
        said = _said(error.__cause__ or error)
        raise ModelError(f"{source}: its config.json cannot be used. {said} Put it right, or copy it again.") from error
    except SafetensorError as error:
        raise ModelError(
            f"{source} cannot be loaded: a file of its weights is damaged or cut short. {_said(error)} Copy or "
            "download it again."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"{source} cannot be loaded: {_said(error)} Expected a folder (or hub name) with config.json, tokenizer "
            "files and *.safetensors of a causal language model; pickled weights and remote code are not loaded."
        ) from error


def _said(error: BaseException) -> str:
    """What an error says, ended by a full stop: its first line, or all of it where that only announces the rest."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    said = " ".join(lines) if lines[0].endswith(":") else lines[0]
    return said if said.endswith((".", "!", "?")) else f"{said}."


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Keep transformers' table of weights that it did not find as it expected off the screen."""
    shown = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(shown)


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
