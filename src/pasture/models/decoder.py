"""Answers on their way through a causal language model, a token of each at a time.

Requests wait in a queue, go into the places of a batch, and leave when their answer ends; others then take their
places, so that the model is kept at work until the queue is empty.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pasture.core.errors import ModelError
from pasture.core.seeds import stream
from pasture.models.batches import pad_left, positions, token_budget_batches
from pasture.models.decode_attention import NAME
from pasture.models.reach import beyond_plain_attention
from pasture.models.request_queue import Request, RequestQueue
from pasture.models.sampler_config import SamplerConfig
from pasture.models.slot_cache import SlotCache, Slots
from pasture.models.token_choice import choose_tokens
from pasture.models.trunk import NAME as PACKED

PREFILL_TOKENS = 4096
"""Prompt tokens read at once; bounds the memory for hidden states."""

SHORTEST_ROOM = 32
"""Columns that are laid out ahead, at least."""

WORTH_A_PRODUCT = 65_536
"""Numbers of a layer's keys and values whose leaving out pays for two products more."""


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


class _RowStates:
    """What belongs to each row beside its keys and values; moves as they do."""

    def __init__(self, rows: int, new_tokens: int, device: torch.device) -> None:
        self.request_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.length_B = torch.zeros(rows, dtype=torch.long, device=device)
        """Tokens in the cache."""
        self.drawn_B = torch.zeros(rows, dtype=torch.long, device=device)
        """Tokens of the answer."""
        self.uniform_BT = torch.zeros(rows, new_tokens, dtype=torch.float64, device=device)
        self.token_BT = torch.zeros(rows, new_tokens, dtype=torch.long, device=device)
        self.logprob_BT = torch.zeros(rows, new_tokens, device=device)
        self.sampling_BT = torch.zeros(rows, new_tokens, device=device)

    def move(self, source_K: Int[Tensor, " K"], target_K: Int[Tensor, " K"]) -> None:
        """Copy rows over others."""
        for tensor in vars(self).values():
            tensor[target_K] = tensor[source_K]


class Decoder:
    """A batch whose places are filled from a queue: row i of every tensor is the request in slot i of the cache."""

    def __init__(self, model: Any, stops: Sequence[int], requests: Sequence[Request], config: SamplerConfig) -> None:
        self.model = model
        self.config = config
        self.device = model.device
        self.stop_S = torch.tensor(stops, device=self.device)
        self.queue = RequestQueue(requests, new_tokens=config.max_new_tokens, budget=config.batch_tokens)
        settings = model.config.get_text_config()
        self.slots = Slots()
        self.cache = SlotCache(self.slots, layers=settings.num_hidden_layers)
        self.state = _RowStates(min(self.queue.places, len(self.queue)), config.max_new_tokens, self.device)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.takes_positions = "position_ids" in inspect.signature(base.forward).parameters
        self.prepared_masks = self.takes_positions and _takes_prepared_masks(settings)
        self.cohorts: list[int] = []
        """Sizes of the groups that live rows are in, in order: each of those that came at about the same time."""
        self.padded = False
        """Whether some live row has fewer tokens than another."""

    def run(self) -> Iterator[dict[int, Sample]]:
        """Answers by their request's number, as they end."""
        logits_BV: Tensor | None = None
        while self.queue or self.slots.live:
            newcomers = self.queue.enter(self.slots.live)
            if newcomers:
                read_BV = self._enter(newcomers)
                logits_BV = read_BV if logits_BV is None else torch.cat([logits_BV, read_BV])
            assert logits_BV is not None  # noqa: S101 -- who is live has logits
            token_B = self._choose(logits_BV)
            stopped_B = torch.isin(token_B, self.stop_S)
            done_B = stopped_B | (self.state.drawn_B[: self.slots.live] == self.config.max_new_tokens)
            logits_BV = None
            if bool(done_B.any()):
                yield self._finished(done_B, stopped_B)
                token_B = self._leave(done_B, token_B)
            if self.slots.live:
                logits_BV = self._advance(token_B)

    def _enter(self, newcomers: list[Request]) -> Float[Tensor, "N V"]:
        """Give newcomers the rows behind the live ones, and read their prompts; the logits after each come back."""
        slots, live, number = self.slots, self.slots.live, len(newcomers)
        widest = max(len(request.prompt) for request in newcomers)
        if live + number > slots.rows or widest > slots.used:
            self._lay_out(coming=number, widest=widest)
        new = slice(live, live + number)
        self.state.request_B[new] = torch.tensor([request.number for request in newcomers])
        self.state.length_B[new] = torch.tensor([len(request.prompt) for request in newcomers])
        self.state.drawn_B[new] = 0
        if self.config.temperature != 0.0:
            self.state.uniform_BT[new] = torch.from_numpy(self._uniforms(newcomers))
        logits_NV = self._read_prompts([request.prompt for request in newcomers])
        slots.live += number
        self._join_cohorts(number)
        self._note_columns()
        return logits_NV

    def _join_cohorts(self, number: int) -> None:
        """Count newcomers as a cohort, and those before them who became few as one."""
        cohorts: list[int] = []
        for size in self.cohorts:
            if cohorts and cohorts[-1] + size <= self.slots.rows // 4:
                cohorts[-1] += size
            else:
                cohorts.append(size)
        self.cohorts = [*cohorts, number]

    def _uniforms(self, newcomers: list[Request]) -> np.ndarray:
        """Draws from [0, 1) by request and step; a request's first draws are the same however many follow."""
        return np.stack([stream(request.seed, "sample").random(self.config.max_new_tokens) for request in newcomers])

    def _choose(self, logits_BV: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
        """Draw and note a token of each live row."""
        state = self.state
        row_B = torch.arange(self.slots.live, device=self.device)
        drawn_B = state.drawn_B[: self.slots.live]
        token_B, logprob_B, sampling_B = choose_tokens(logits_BV.float(), state.uniform_BT[row_B, drawn_B], self.config)
        if not bool(logprob_B.isfinite().all()):
            raise ModelError(
                "the model gives NaN or infinite log-probabilities: its weights are broken. If it is being trained, "
                "lower the learning rate; if it was loaded in 16 bits, try float32."
            )
        state.token_BT[row_B, drawn_B] = token_B
        state.logprob_BT[row_B, drawn_B] = logprob_B
        state.sampling_BT[row_B, drawn_B] = sampling_B
        drawn_B += 1
        return token_B

    def _finished(self, done_B: Bool[Tensor, " B"], stopped_B: Bool[Tensor, " B"]) -> dict[int, Sample]:
        state = self.state
        done_D = done_B.nonzero().squeeze(-1)
        of_rows = (state.request_B, state.drawn_B, stopped_B, state.token_BT, state.logprob_BT, state.sampling_BT)
        samples: dict[int, Sample] = {}
        for request, drawn, stopped, *columns in zip(*(one[done_D].tolist() for one in of_rows), strict=True):
            tokens, logprobs, sampling = (column[:drawn] for column in columns)
            samples[request] = Sample(tokens, logprobs, sampling, "stop" if stopped else "length")
        return samples

    def _leave(self, done_B: Bool[Tensor, " B"], token_B: Int[Tensor, " B"]) -> Int[Tensor, " R"]:
        """Drop finished rows; the tokens of the rows that stay come back, in their new order.

        Those that came together stay together: their last rows move into their holes, and rows of those who came next
        into the places that this leaves.
        """
        stay_R = (~done_B).nonzero().squeeze(-1)
        live = len(stay_R)
        cohort_R = torch.arange(len(self.cohorts)).repeat_interleave(torch.tensor(self.cohorts)).to(self.device)[stay_R]
        slot_R = torch.arange(live, device=self.device)
        # Slot i goes to the cohort of the i-th row that stays.
        kept_R = stay_R < live
        kept_R &= cohort_R[stay_R.clamp(max=live - 1)] == cohort_R
        free_R = torch.ones_like(kept_R)
        free_R[stay_R[kept_R]] = False
        source_K, target_K = stay_R[~kept_R], slot_R[free_R]
        self.cache.move_rows(source_K, target_K)
        self.state.move(source_K, target_K)
        token_B[target_K] = token_B[source_K]
        self.cohorts = [count for count in cohort_R.bincount().tolist() if count]
        self.slots.live = live
        self._note_columns()
        return token_B[:live]

    def _note_columns(self) -> None:
        """Note which columns the live rows need, after they changed."""
        length_B = self.state.length_B[: self.slots.live]
        lengths = [int(part_S.max()) for part_S in torch.split(length_B, self.cohorts)] if self.cohorts else [0]
        longest = max(lengths)
        self.slots.first = self.slots.used - longest
        worth = WORTH_A_PRODUCT // self.cache.width
        self.slots.spans = _spans(self.cohorts, [longest - length for length in lengths], worth)
        self.padded = bool((length_B < longest).any())

    def _lay_out(self, *, coming: int = 0, widest: int = 0) -> None:
        """Make place for the columns and rows to come."""
        slots, new_tokens = self.slots, self.config.max_new_tokens
        lead = max(0, widest - slots.window)
        filled = lead + slots.window
        rows = slots.live + coming
        if self.queue:
            rows = max(rows, min(self.queue.places, rows + len(self.queue)))
        fed = 0 if coming else int(self.state.drawn_B[: slots.live].min()) - 1
        room = min(new_tokens - 1 - fed, max(SHORTEST_ROOM, filled // 8))
        self.cache.lay_out(rows, filled + room, lead)

    def _read_prompts(self, prompts: list[tuple[int, ...]]) -> Float[Tensor, "N V"]:
        """Fill the rows behind the live ones with prompts, equal ones read once; the logits after each come back."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(prompt, []).append(row)
        distinct = list(rows_of)
        logits_NV: Tensor | None = None
        for batch in token_budget_batches(list(map(len, distinct)), PREFILL_TOKENS):
            targets = [rows_of[distinct[number]] for number in batch]
            rows_N = torch.tensor([row for rows in targets for row in rows], device=self.device)
            source_N = torch.tensor([place for place, rows in enumerate(targets) for _ in rows], device=self.device)
            self.slots.prefill = (self.slots.live + rows_N, source_N)
            last_BV = self._read([distinct[number] for number in batch])
            if logits_NV is None:
                logits_NV = last_BV.new_empty(len(prompts), last_BV.shape[-1])
            logits_NV[rows_N] = last_BV[source_N]
        self.slots.prefill = None
        assert logits_NV is not None  # noqa: S101 -- there is at least one prompt
        return logits_NV

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
        slots = self.slots
        if slots.used == slots.columns:
            self._lay_out()
        length_B = self.state.length_B[: slots.live]
        mask: Tensor | None = None
        if self.padded:
            own_BT = torch.arange(slots.window + 1, device=self.device) >= (slots.window - length_B)[:, None]
            mask = _additive(own_BT[:, None, None, :], self.model.dtype) if self.prepared_masks else own_BT.long()
        logits_BV = self._forward(token_B[:, None], mask, length_B[:, None])
        length_B += 1
        slots.used += 1
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


def _spans(cohorts: Sequence[int], skips: Sequence[int], worth: int) -> list[tuple[slice, int]]:
    """Live rows with the columns that attention skips for them; where two would save under `worth` states, one."""
    spans: list[tuple[slice, int]] = []
    end = 0
    for size, skip in zip(cohorts, skips, strict=False):
        start, end = end, end + size
        if spans and (skip - spans[-1][1]) * size < worth:
            before, least = spans.pop()
            start, skip = before.start, min(skip, least)  # noqa: PLW2901 -- the two become one
        spans.append((slice(start, end), skip))
    return spans


def _additive(allowed: Bool[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    # Not minus infinity: rows of pads alone would become NaN, and NaN survives a mask.
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def _takes_prepared_masks(settings: Any) -> bool:
    """Whether one mask, made ready here, serves every layer, which spares transformers' building it at every step."""
    known = settings._attn_implementation in ("sdpa", "eager", NAME, PACKED)
    return known and beyond_plain_attention(settings) is None
