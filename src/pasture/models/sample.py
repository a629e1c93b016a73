"""Answers drawn from a causal language model, many at a time, each from a random stream of its own.

Against `transformers`' generate: prompts that occur several times are read once, prompts are read in batches of like
length, the cache is written in place, finished answers leave the batch and others take their places, and the
log-probabilities of the sampled tokens come back instead of being computed again. A request's tokens depend on its
prompt and seed, not on its company (but for float rounding at the boundary between two tokens).
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from pasture.core.errors import ModelError
from pasture.core.ports import Progress, silent
from pasture.models.decode_attention import fast_decoding
from pasture.models.decoder import Decoder, Sample
from pasture.models.output_layer import output_in_blocks
from pasture.models.reach import context, unstretched_context
from pasture.models.request_queue import Request
from pasture.models.sampler_config import SamplerConfig

__all__ = ["Sample", "SamplerConfig", "check_room", "sample"]


def sample(
    model: nn.Module,
    stop_ids: int | Sequence[int],
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    config: SamplerConfig,
    *,
    progress: Progress = silent,
) -> list[Sample]:
    """One answer for each prompt and seed, in order; equal prompts are read once.

    `model` is a causal language model of transformers, bare or under peft adapters.

    Raises:
        ModelError: if a prompt and its answer do not fit the model's context, or its layers are not attention.
        ValueError: if a prompt is empty, or there are not as many seeds as prompts.
    """
    _check(model, prompts, seeds, config)
    stops = [stop_ids] if isinstance(stop_ids, int) else list(stop_ids)
    requests = [Request(row, tuple(prompts[row]), seeds[row]) for row in range(len(prompts))]
    decoder = Decoder(model, stops, requests, config)
    samples: dict[int, Sample] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), fast_decoding(model, decoder.slots), output_in_blocks(model):
            for finished in decoder.run():
                samples |= finished
                progress(len(samples), len(prompts))
    finally:
        model.train(was_training)
    return [samples[row] for row in range(len(prompts))]


def _check(model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], config: SamplerConfig) -> None:
    if len(seeds) != len(prompts):
        raise ValueError(f"expected a seed for each of {len(prompts)} prompts, got {len(seeds)}")
    if not all(prompts):
        raise ValueError("a prompt without tokens has nothing to continue")
    settings = model.config.get_text_config()
    kinds = set(getattr(settings, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"{settings.model_type} has layers of kind {', '.join(sorted(kinds))}; this sampler knows attention only. "
            "Serve the model with vLLM and sample from there."
        )
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "past_key_values" not in inspect.signature(type(base).forward).parameters:
        raise ModelError(
            f"{settings.model_type} keeps no keys and values of what it has read; this sampler knows attention only. "
            "Serve the model with vLLM and sample from there."
        )
    check_room(model.config, max(map(len, prompts), default=0), config.max_new_tokens)


def check_room(model_config: PreTrainedConfig, longest_prompt: int, max_new_tokens: int) -> None:
    """See that a model's context holds its longest prompt and an answer.

    Raises:
        ModelError: if it does not.
    """
    most = context(model_config)
    if most is not None and longest_prompt + max_new_tokens > most:
        longrope = ", up to where LongRoPE leaves the positions of short rows as they are," * (
            unstretched_context(model_config) == most
        )
        raise ModelError(
            f"the longest prompt has {longest_prompt} tokens and max_new_tokens is {max_new_tokens}, but the model's "
            f"context{longrope} holds {most}. Lower max_new_tokens, or leave out prompts over {most - max_new_tokens} "
            "tokens."
        )
