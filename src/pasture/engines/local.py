"""A transformers model on this machine, answering in batches and giving log-probabilities; needs the extra [train]."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from pasture.core.requests import Reply, Request, TokenLogprob, Usage
from pasture.core.seeds import derived_seed
from pasture.engines.gather import Gatherer
from pasture.engines.loop import in_order, on_engine_loop
from pasture.engines.settings import LocalSettings, model_facts, read_chat_template
from pasture.engines.tokens import bias_by_id
from pasture.models.chat import conversation_ids
from pasture.models.control_tokens import answer_prefix_ids, text_ids
from pasture.models.encode import opening_ids
from pasture.models.load import load_causal_lm, load_tokenizer, stop_token_ids
from pasture.models.reach import context
from pasture.models.sample import Sample, SamplerConfig, sample

LINGER_SECONDS = 0.01
_OTHER_WAY = (
    "Name a chat_template of your own in the engine's settings, or use a judge in completion style, or a chat model."
)


class LocalEngine:
    """A model that is loaded once; every request's answer depends on the request alone, not on its company.

    JSON schemas are not enforced: the reply is plain text, to be checked as any other. Log-probabilities are the
    model's own, before logit bias, temperature and top-p.
    """

    def __init__(self, settings: LocalSettings) -> None:
        """Load the model.

        Raises:
            ModelError: if the folder holds none, or its chat template cannot be read.
        """
        self.settings = settings
        self._facts = model_facts(settings)
        dtype: torch.dtype = getattr(torch, settings.dtype)
        self._tokenizer = load_tokenizer(settings.folder)
        self._model = load_causal_lm(settings.folder, dtype=dtype, device=settings.device, tokenizer=self._tokenizer)
        self._context = context(self._model.config)
        self._stops = stop_token_ids(self._model, self._tokenizer)
        self._opening_ids = opening_ids(self._tokenizer)
        self._answer_prefix_ids = answer_prefix_ids(self._tokenizer)
        self._gatherer = Gatherer(self._answer, settings.batch_size, linger_seconds=LINGER_SECONDS)
        if settings.chat_template is not None:
            self._tokenizer.chat_template = read_chat_template(settings.chat_template)

    @property
    def identity(self) -> Mapping[str, object]:
        """The folder's name, a hash of its weights, and how it is asked."""
        return {"engine": "local", **self._facts}

    @property
    def in_flight(self) -> int:
        """Two batches, so that one is ready when the other is answered."""
        return 2 * self.settings.batch_size

    async def complete(self, request: Request) -> Reply:
        """The reply, from the batch that gathered.

        Raises:
            ModelError: if the model has no chat template for messages, or one that does not take these.
        """
        return await on_engine_loop(self._gatherer.complete(request))

    def close(self) -> None:
        """Let the model go; its engine answers no more."""
        del self._model

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The replies in order."""
        return in_order(self, requests)

    async def _answer(self, requests: Sequence[Request]) -> list[Reply]:
        return await asyncio.to_thread(self._generate, requests)

    def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        groups: dict[tuple[SamplerConfig, tuple[tuple[int, float], ...]], list[tuple[int, list[int]]]] = {}
        replies: dict[int, Reply] = {}
        for index, request in enumerate(requests):
            prompt, config = self._prompt_ids(request), self._sampler(request)
            if self._context is not None and len(prompt) + config.max_new_tokens > self._context:
                room = f"{len(prompt)} tokens and {config.max_new_tokens} to come exceed its context of {self._context}"
                replies[index] = Reply(error=f"model {request.model!r}: {room}")
                continue
            groups.setdefault((config, self._bias(request)), []).append((index, prompt))
        for (config, bias), asked in groups.items():
            seeds = [derived_seed(0, "local engine", requests[index].request_hash) for index, _ in asked]
            with self._leaning(bias):
                samples = sample(self._model, self._stops, [prompt for _, prompt in asked], seeds, config)
            for (index, prompt), drawn in zip(asked, samples, strict=True):
                replies[index] = self._reply(requests[index], prompt, drawn)
        return [replies[index] for index in range(len(requests))]

    def _sampler(self, request: Request) -> SamplerConfig:
        return SamplerConfig(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            max_new_tokens=request.max_completion_tokens or self.settings.max_completion_tokens,
        )

    def _bias(self, request: Request) -> tuple[tuple[int, float], ...]:
        """Bias by token id, in nats."""
        bias = request.logit_bias or {}
        ids = {text: self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in bias}
        return tuple(sorted(bias_by_id(bias, ids).items()))

    @contextlib.contextmanager
    def _leaning(self, bias: tuple[tuple[int, float], ...]) -> Iterator[None]:
        """While it is open, the model's logits are those with the bias."""
        if not bias:
            yield
            return
        head = self._model.get_output_embeddings()
        bias_V = torch.zeros(head.weight.shape[0], device=self._model.device, dtype=head.weight.dtype)
        bias_V[[token for token, _ in bias]] = torch.tensor([value for _, value in bias]).to(bias_V)
        hook = head.register_forward_hook(lambda _module, _arguments, logits: logits + bias_V)
        try:
            yield
        finally:
            hook.remove()

    def _prompt_ids(self, request: Request) -> list[int]:
        if request.messages is not None:
            asked = conversation_ids(self._tokenizer, request.messages, advice=_OTHER_WAY)
        else:
            asked = [*self._opening_ids, *text_ids(self._tokenizer, request.prompt or "")]
        return asked + self._answer_prefix_ids

    def _reply(self, request: Request, prompt: list[int], drawn: Sample) -> Reply:
        text = self._tokenizer.decode(drawn.said_ids, skip_special_tokens=True)
        cut = min((at for at in map(text.find, request.stop) if at >= 0), default=None)
        return Reply(
            text=text if cut is None else text[:cut],
            finish_reason=drawn.finish_reason if cut is None else "stop",
            logprobs=self._logprobs(request, prompt, drawn),
            usage=Usage(input_tokens=len(prompt), output_tokens=len(drawn.token_ids)),
            cost_usd=0.0,
            model=self.settings.folder.name,
        )

    def _logprobs(self, request: Request, prompt: list[int], drawn: Sample) -> tuple[TokenLogprob, ...] | None:
        """Alternatives cost one more reading, and so does a bias, which the drawn log-probabilities include."""
        if request.top_logprobs is None:
            return None
        chosen = list(drawn.logprobs)
        tops: list[tuple[tuple[str, float], ...]] = [()] * len(drawn.token_ids)
        if request.top_logprobs or request.logit_bias:
            ids_BT = torch.tensor([[*prompt, *drawn.token_ids[:-1]]], device=self._model.device)
            with torch.inference_mode():
                logits_TV = self._model(input_ids=ids_BT).logits[0, len(prompt) - 1 :].float()
            logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
            chosen = [float(row_V[token]) for row_V, token in zip(logprobs_TV, drawn.token_ids, strict=True)]
            best = logprobs_TV.topk(request.top_logprobs, dim=-1)
            tops = [
                tuple((self._spelled(token), value) for token, value in zip(tokens, values, strict=True))
                for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        rows: Any = zip(drawn.token_ids, chosen, tops, strict=True)
        return tuple(TokenLogprob(token=self._spelled(token), logprob=value, top=row) for token, value, row in rows)

    def _spelled(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))
