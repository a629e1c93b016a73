"""A transformers model on this machine, answering in batches and giving log-probabilities; needs the extra [train]."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from pasture.core.errors import EngineError, ModelError
from pasture.core.requests import Reply, Request, TokenLogprob, Usage
from pasture.core.seeds import derived_seed
from pasture.engines.gather import Gatherer
from pasture.engines.loop import in_order, on_engine_loop
from pasture.models.control_tokens import answer_prefix_ids
from pasture.models.load import load_causal_lm, load_tokenizer, stop_token_ids
from pasture.models.sample import Sample, SamplerConfig, sample

LINGER_SECONDS = 0.01
SAMPLED_BYTES = 2**20
"""Of each end of a file of weights: enough to tell two trained models apart, little enough for large ones."""


class LocalSettings(BaseModel):
    """Which model, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """A `from_pretrained` folder."""
    device: str = "cpu"
    bfloat16: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 32
    max_completion_tokens: Annotated[int, Field(ge=1)] = 512
    """Where a request names no limit."""


class LocalEngine:
    """A model that is loaded once; every request's answer depends on the request alone, not on its company.

    JSON schemas are not enforced: the reply is plain text, to be checked as any other. Logit biases are refused.
    """

    def __init__(self, settings: LocalSettings) -> None:
        """Load the model.

        Raises:
            ModelError: if the folder holds none.
        """
        self.settings = settings
        dtype = torch.bfloat16 if settings.bfloat16 else torch.float32
        self._tokenizer = load_tokenizer(settings.folder)
        self._model = load_causal_lm(settings.folder, dtype=dtype, device=settings.device, tokenizer=self._tokenizer)
        self._stops = stop_token_ids(self._model, self._tokenizer)
        self._answer_prefix_ids = answer_prefix_ids(self._tokenizer)
        self._gatherer = Gatherer(self._answer, settings.batch_size, linger_seconds=LINGER_SECONDS)
        self._weights = weights_hash(settings.folder)

    @property
    def identity(self) -> Mapping[str, object]:
        """The folder's name and a hash of its weights; give the hash to `CachedEngine` as salt."""
        return {"engine": "local", "folder": self.settings.folder.name, "weights": self._weights}

    @property
    def in_flight(self) -> int:
        """Two batches, so that one is ready when the other is answered."""
        return 2 * self.settings.batch_size

    async def complete(self, request: Request) -> Reply:
        """The reply, from the batch that gathered.

        Raises:
            ModelError: if the model has no chat template for messages, or the prompt exceeds its context.
        """
        return await on_engine_loop(self._gatherer.complete(request))

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The replies in order."""
        return in_order(self, requests)

    async def _answer(self, requests: Sequence[Request]) -> list[Reply]:
        return await asyncio.to_thread(self._generate, requests)

    def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        groups: dict[SamplerConfig, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self._sampler(request), []).append(index)
        replies: dict[int, Reply] = {}
        for config, indices in groups.items():
            prompts = [self._prompt_ids(requests[index]) for index in indices]
            seeds = [derived_seed(0, "local engine", requests[index].request_hash) for index in indices]
            samples = sample(self._model, self._stops, prompts, seeds, config)
            for index, prompt, drawn in zip(indices, prompts, samples, strict=True):
                replies[index] = self._reply(requests[index], prompt, drawn)
        return [replies[index] for index in range(len(requests))]

    def _sampler(self, request: Request) -> SamplerConfig:
        if request.logit_bias:
            raise EngineError(f"model {request.model!r}: engine 'local' takes no logit bias. Leave it out.")
        return SamplerConfig(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            max_new_tokens=request.max_completion_tokens or self.settings.max_completion_tokens,
        )

    def _prompt_ids(self, request: Request) -> list[int]:
        if request.messages is None:
            return [*self._tokenizer(request.prompt)["input_ids"], *self._answer_prefix_ids]
        if self._tokenizer.chat_template is None:
            raise ModelError(
                f"{self.settings.folder} has no chat template, so it cannot answer messages. "
                "Use a judge in completion style, or a chat model."
            )
        # The template is rendered around stand-ins, and what the messages say is read apart from it: a message that
        # spells out the end of its turn says so, it does not end it.
        marks = [f"[{secrets.token_hex(8)}]" for _ in request.messages]
        turns = [{"role": turn.role, "content": mark} for turn, mark in zip(request.messages, marks, strict=True)]
        rest = str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        ids: list[int] = []
        for turn, mark in zip(request.messages, marks, strict=True):
            before, _, rest = rest.partition(mark)
            ids += self._tokenizer(before, add_special_tokens=False)["input_ids"]
            ids += self._tokenizer(turn.content, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids + list(self._tokenizer(rest, add_special_tokens=False)["input_ids"]) + self._answer_prefix_ids

    def _reply(self, request: Request, prompt: list[int], drawn: Sample) -> Reply:
        kept = drawn.token_ids[:-1] if drawn.finish_reason == "stop" else drawn.token_ids
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        cut = min((at for at in map(text.find, request.stop) if at >= 0), default=None)
        return Reply(
            text=text if cut is None else text[:cut],
            finish_reason=drawn.finish_reason if cut is None else "stop",
            logprobs=self._logprobs(request.top_logprobs, prompt, drawn),
            usage=Usage(input_tokens=len(prompt), output_tokens=len(drawn.token_ids)),
            cost_usd=0.0,
            model=self.settings.folder.name,
        )

    def _logprobs(self, top: int | None, prompt: list[int], drawn: Sample) -> tuple[TokenLogprob, ...] | None:
        """Those of the model itself, before temperature and top-p; the alternatives cost one more reading."""
        if top is None:
            return None
        tops: list[tuple[tuple[str, float], ...]] = [()] * len(drawn.token_ids)
        if top:
            ids_BT = torch.tensor([[*prompt, *drawn.token_ids[:-1]]], device=self._model.device)
            with torch.inference_mode():
                logits_TV = self._model(input_ids=ids_BT).logits[0, len(prompt) - 1 :].float()
            best = torch.log_softmax(logits_TV, dim=-1).topk(top, dim=-1)
            tops = [
                tuple((self._spelled(token), value) for token, value in zip(tokens, values, strict=True))
                for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        rows: Any = zip(drawn.token_ids, drawn.logprobs, tops, strict=True)
        return tuple(TokenLogprob(token=self._spelled(token), logprob=value, top=row) for token, value, row in rows)

    def _spelled(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))


def weights_hash(folder: Path) -> str:
    """Sixteen hexadecimal digits that change with a model's configuration, tokenizer or weights."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.jinja")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
            file.seek(max(0, size - SAMPLED_BYTES))
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]
