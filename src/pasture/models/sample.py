"""Answers drawn from a causal language model, many at a time, each from a random stream of its own.

Against `transformers`' generate: prompts that occur several times are read once, prompts are read in batches of like
length, the cache is written in place, finished rows leave the batch, and the log-probabilities of the sampled tokens
come back instead of being computed again. A request's tokens depend on its prompt and seed, not on its company (but
for float rounding at the boundary between two tokens).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pasture.core.errors import ModelError
from pasture.core.ports import Progress, silent
from pasture.core.seeds import stream
from pasture.models.batches import pad_left, positions, token_budget_batches
from pasture.models.decode_attention import NAME, fast_decoding
from pasture.models.sampler_config import SamplerConfig
from pasture.models.slot_cache import SlotCache, Slots
from pasture.models.trunk import NAME as PACKED

__all__ = ["Sample", "SamplerConfig", "sample"]

PREFILL_TOKENS = 4096
"""Prompt tokens read at once; bounds the memory for hidden states."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, token by token."""

    token_ids: list[int]
    """The stop token included, where one was drawn."""
    logprobs: list[float]
    """Log-probability of each token under the model itself (temperature 1, no truncation): the policy's."""
    sampling_logprobs: list[float]
    """Log-probability of each token under what was drawn from: after temperature and top-p; 0 where greedy."""
    finish_reason: Literal["stop", "length"]

    @property
    def said_ids(self) -> list[int]:
        """The tokens without the one that ended the answer, whatever its tokenizer takes that for."""
        return self.token_ids[:-1] if self.finish_reason == "stop" else self.token_ids


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
    samples: dict[int, Sample] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), fast_decoding(model):
            # Equal prompts stand side by side, so that they share a batch and are read once.
            order = sorted(range(len(prompts)), key=lambda row: tuple(prompts[row]))
            totals = [len(prompts[row]) + config.max_new_tokens for row in order]
            for places in token_budget_batches(totals, config.batch_tokens):
                batch = [order[place] for place in places]
                decoder = _Decoder(model, stops, [prompts[row] for row in batch], config)
                answers = decoder.run([seeds[row] for row in batch])
                samples |= dict(zip(batch, answers, strict=True))
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
    context = getattr(settings, "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if context is not None and longest + config.max_new_tokens > context:
        raise ModelError(
            f"the longest prompt has {longest} tokens and max_new_tokens is {config.max_new_tokens}, but the model's "
            f"context holds {context}. Lower max_new_tokens, or leave out prompts over "
            f"{context - config.max_new_tokens} tokens."
        )


class _Decoder:
    """One batch on its way: row i of every live tensor is the request `request_B[i]`."""

    def __init__(self, model: Any, stops: list[int], prompts: list[Sequence[int]], config: SamplerConfig) -> None:
        self.model = model
        self.config = config
        self.prompts = prompts
        self.device = model.device
        self.stop_S = torch.tensor(stops, device=self.device)
        self.width = max(map(len, prompts))
        self.length_B = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        rows, columns = len(prompts), self.width + config.max_new_tokens - 1
        self.slots = Slots(rows, columns, live=rows, used=self.width)
        self.cache = SlotCache(self.slots, layers=model.config.get_text_config().num_hidden_layers)
        self.request_B = torch.arange(len(prompts), device=self.device)
        self.start_B = self.width - self.length_B
        """First column of each live row's prompt."""
        self.padded = bool((self.start_B > 0).any())
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.takes_positions = "position_ids" in inspect.signature(base.forward).parameters
        self.prepared_masks = self.takes_positions and _takes_prepared_masks(model)
        columns_T = torch.arange(columns, device=self.device)
        own_BT = columns_T >= self.start_B[:, None]
        self.mask_BT = _additive(own_BT, model.dtype) if self.prepared_masks else own_BT.long()

    def run(self, seeds: list[int]) -> list[Sample]:
        """Read the prompts and draw until every row has stopped or is full."""
        requests, new_tokens = len(self.prompts), self.config.max_new_tokens
        uniform_BT = self._uniforms(seeds)
        token_BT = torch.zeros(requests, new_tokens, dtype=torch.long, device=self.device)
        logprob_BT = torch.zeros(requests, new_tokens, device=self.device)
        sampling_BT = torch.zeros(requests, new_tokens, device=self.device)
        length_B = torch.full((requests,), new_tokens, device=self.device)
        stopped_B = torch.zeros(requests, dtype=torch.bool, device=self.device)
        logits_BV = self._read_prompts()
        for step in range(new_tokens):
            rows = self.request_B
            token_B, logprob_B, sampling_B = _draw(logits_BV.float(), uniform_BT[rows, step], self.config)
            token_BT[rows, step], logprob_BT[rows, step], sampling_BT[rows, step] = token_B, logprob_B, sampling_B
            done_B = torch.isin(token_B, self.stop_S)
            length_B[rows[done_B]] = step + 1
            stopped_B[rows[done_B]] = True
            token_B = self._leave(done_B, token_B)
            if step + 1 == new_tokens or not len(token_B):
                break
            logits_BV = self._advance(token_B)
        columns = zip(token_BT.tolist(), logprob_BT.tolist(), sampling_BT.tolist(), strict=True)
        return [
            Sample(tokens[:length], logprobs[:length], sampling[:length], "stop" if stopped else "length")
            for (tokens, logprobs, sampling), length, stopped in zip(
                columns, length_B.tolist(), stopped_B.tolist(), strict=True
            )
        ]

    def _uniforms(self, seeds: list[int]) -> Float[Tensor, "B T"]:
        """Draws from [0, 1) by request and step; a request's first draws are the same however many follow."""
        if self.config.temperature == 0.0:
            return torch.zeros(len(seeds), self.config.max_new_tokens, device=self.device)
        draws = [stream(seed, "sample").random(self.config.max_new_tokens) for seed in seeds]
        return torch.from_numpy(np.stack(draws)).to(self.device)

    def _read_prompts(self) -> Float[Tensor, "B V"]:
        """Fill the cache with the prompts; the logits after each come back."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(self.prompts):
            rows_of.setdefault(tuple(prompt), []).append(row)
        distinct = list(rows_of)
        logits_BV: Tensor | None = None
        for batch in token_budget_batches(list(map(len, distinct)), PREFILL_TOKENS):
            targets = [rows_of[distinct[number]] for number in batch]
            rows_B = torch.tensor([row for rows in targets for row in rows], device=self.device)
            source_B = torch.tensor([place for place, rows in enumerate(targets) for _ in rows], device=self.device)
            self.slots.prefill = (rows_B, source_B)
            last_BV = self._read([distinct[number] for number in batch])
            if logits_BV is None:
                logits_BV = last_BV.new_empty(len(self.prompts), last_BV.shape[-1])
            logits_BV[rows_B] = last_BV[source_B]
        self.slots.prefill = None
        assert logits_BV is not None  # noqa: S101 -- a batch has at least one prompt
        return logits_BV

    def _read(self, prompts: list[tuple[int, ...]]) -> Float[Tensor, "B V"]:
        ids_BT, own_BT = (tensor.to(self.device) for tensor in pad_left(prompts, 0))
        mask: Tensor | None = None
        if not bool(own_BT.all()):
            mask = own_BT.long()
            if self.prepared_masks:
                causal_TT = torch.ones(ids_BT.shape[1], ids_BT.shape[1], dtype=torch.bool, device=self.device).tril()
                mask = _additive(own_BT[:, None, None, :] & causal_TT, self.model.dtype)
        return self._forward(ids_BT, mask, positions(own_BT))

    def _advance(self, token_B: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """The logits after one more token in each live row."""
        mask: Tensor | None = None
        if self.padded:
            mask = self.mask_BT[: self.slots.live, : self.slots.used + 1]
            mask = mask[:, None, None, :] if self.prepared_masks else mask
        position_B = self.slots.used - self.start_B
        logits_BV = self._forward(token_B[:, None], mask, position_B[:, None])
        self.slots.used += 1
        return logits_BV

    def _forward(
        self, ids_BT: Int[Tensor, "B T"], mask: Tensor | None, position_BT: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B V"]:
        more = {"position_ids": position_BT} if self.takes_positions else {}
        output = self.model(
            input_ids=ids_BT,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **more,
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV

    def _leave(self, done_B: Bool[Tensor, " B"], token_B: Int[Tensor, " B"]) -> Int[Tensor, " R"]:
        """Drop finished rows: the last live rows take their slots. The tokens of the rows that stay come back."""
        leaving = int(done_B.sum())
        if not leaving:
            return token_B
        live = self.slots.live - leaving
        target_K = done_B[:live].nonzero().squeeze(-1)
        source_K = live + (~done_B[live:]).nonzero().squeeze(-1)
        self.cache.move_rows(source_K, target_K)
        self.slots.live = live
        for tensor in (token_B, self.request_B, self.start_B, self.mask_BT):
            tensor[target_K] = tensor[source_K]
        self.request_B, self.start_B = self.request_B[:live], self.start_B[:live]
        return token_B[:live]


def _additive(allowed: Bool[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    # Not minus infinity: rows of pads alone would become NaN, and NaN survives a mask.
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def _takes_prepared_masks(model: Any) -> bool:
    """Whether one mask, made ready here, serves every layer, which spares transformers' building it at every step."""
    settings = model.config.get_text_config()
    slides = "sliding_attention" in (getattr(settings, "layer_types", None) or ())
    windowed = getattr(settings, "sliding_window", None) is not None
    return settings._attn_implementation in ("sdpa", "eager", NAME, PACKED) and not slides and not windowed


def _draw(
    logits_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"], config: SamplerConfig
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """A token a row, its log-probability under the model, and under what was drawn from."""
    logprob_BV = logits_BV.log_softmax(dim=-1)
    if config.temperature == 0.0:
        token_B = logits_BV.argmax(dim=-1)
        chosen_B = logprob_BV.gather(-1, token_B[:, None]).squeeze(-1)
        return token_B, chosen_B, torch.zeros_like(chosen_B)
    as_is = config.temperature == 1.0 and config.top_p == 1.0
    sampling_BV = logprob_BV if as_is else _truncate((logits_BV / config.temperature).log_softmax(-1), config.top_p)
    token_B = _invert_cumulative(sampling_BV.exp(), uniform_B)
    logprob_B, sampling_B = (x_BV.gather(-1, token_B[:, None]).squeeze(-1) for x_BV in (logprob_BV, sampling_BV))
    return token_B, logprob_B, sampling_B


def _truncate(logprob_BV: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """Log-probabilities over the fewest likeliest tokens whose probabilities reach `top_p`; minus infinity elsewhere.

    Source: Holtzman et al. 2020, Section 3.1, https://arxiv.org/abs/1904.09751
    """
    if top_p == 1.0:
        return logprob_BV
    sorted_BV, order_BV = logprob_BV.sort(dim=-1, descending=True, stable=True)
    probability_BV = sorted_BV.exp()
    before_BV = probability_BV.cumsum(dim=-1) - probability_BV
    beyond_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(-1, order_BV, before_BV >= top_p)
    return logprob_BV.masked_fill(beyond_BV, -torch.inf).log_softmax(dim=-1)


def _invert_cumulative(probability_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The first token, in vocabulary order, whose cumulative probability exceeds the row's uniform draw."""
    cumulative_BV = probability_BV.cumsum(dim=-1)
    total_B = cumulative_BV[:, -1]
    # Rounding may lift a draw to the total; kept below it, a token of probability 0 is never drawn.
    target_B = torch.minimum(uniform_B.to(total_B.dtype) * total_B, total_B.nextafter(torch.zeros_like(total_B)))
    return torch.searchsorted(cumulative_BV, target_B[:, None], right=True).squeeze(-1)
