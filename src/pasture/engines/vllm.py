"""vLLM inside this process; needs the extra [vllm]. For vLLM as a server use engine 'api' with its address."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pasture.core.errors import DependencyError
from pasture.core.records import FinishReason
from pasture.core.requests import Reply, Request, TokenLogprob, Usage
from pasture.engines.gather import Gatherer
from pasture.engines.loop import in_order, on_engine_loop
from pasture.engines.settings import VllmSettings, model_facts, read_chat_template
from pasture.engines.tokens import bias_by_id

try:
    from vllm import LLM, SamplingParams
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import StructuredOutputsParams
except ImportError as error:
    raise DependencyError(
        f"engine 'vllm' needs the package vllm: pip install 'pasture[vllm]' ({error}). "
        "Where its versions and Pasture's disagree, serve the model from another environment and use engine 'api'."
    ) from error

LINGER_SECONDS = 0.01
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class VllmEngine:
    """A model that is loaded once and asked in batches."""

    def __init__(self, settings: VllmSettings) -> None:
        self.settings = settings
        self._facts = model_facts(settings)
        template = settings.chat_template
        self._chat_template = None if template is None else read_chat_template(template)
        self._llm = LLM(
            model=settings.model,
            dtype=settings.dtype,
            max_model_len=settings.max_model_tokens,
            trust_remote_code=False,
            **settings.options,
        )
        self._tokenizer = self._llm.get_tokenizer()
        self._gatherer = Gatherer(self._answer, settings.batch_size, linger_seconds=LINGER_SECONDS)

    @property
    def identity(self) -> Mapping[str, object]:
        """The model, a hash of its weights where they lie in a folder, and how it is asked."""
        return {"engine": "vllm", **self._facts}

    @property
    def in_flight(self) -> int:
        """Two batches, so that one is ready when the other is answered."""
        return 2 * self.settings.batch_size

    async def complete(self, request: Request) -> Reply:
        """The reply, from the batch that gathered."""
        return await on_engine_loop(self._gatherer.complete(request))

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The replies in order."""
        return in_order(self, requests)

    def close(self) -> None:
        """Let go of the model; vLLM ends its processes with it."""
        del self._llm

    async def _answer(self, requests: Sequence[Request]) -> list[Reply]:
        return await asyncio.to_thread(self._generate, requests)

    def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        chats = [index for index, request in enumerate(requests) if request.messages is not None]
        texts = [index for index, request in enumerate(requests) if request.messages is None]
        replies: dict[int, Reply] = {}
        for indices, ask in ((chats, self._chat), (texts, self._continue)):
            replies |= zip(indices, self._asked(ask, [requests[index] for index in indices]), strict=True)
        return [replies[index] for index in range(len(requests))]

    def _asked(self, ask: Callable[[Sequence[Request]], Any], requests: Sequence[Request]) -> list[Reply]:
        """The replies; where vLLM refuses the batch for one request's sake, each is asked alone."""
        if not requests:
            return []
        try:
            return [self._reply(output) for output in ask(requests)]
        except (ValueError, VLLMClientError) as error:
            if len(requests) > 1:
                return [reply for request in requests for reply in self._asked(ask, [request])]
            return [Reply(error=f"model {requests[0].model!r}: {error}")]

    def _chat(self, requests: Sequence[Request]) -> Any:
        turns: Any = [
            [{"role": turn.role, "content": turn.content} for turn in request.messages or ()] for request in requests
        ]
        sampling = [self._sampling(request) for request in requests]
        return self._llm.chat(turns, sampling, use_tqdm=False, chat_template=self._chat_template)

    def _continue(self, requests: Sequence[Request]) -> Any:
        prompts = [request.prompt or "" for request in requests]
        return self._llm.generate(prompts, [self._sampling(request) for request in requests], use_tqdm=False)

    def _sampling(self, request: Request) -> Any:
        bias = request.logit_bias or {}
        ids = {text: self._tokenizer.encode(text, add_special_tokens=False) for text in bias}
        schema = request.json_schema
        return SamplingParams(
            max_tokens=request.max_completion_tokens or self.settings.max_completion_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.seed,
            stop=list(request.stop) or None,
            logprobs=request.top_logprobs,
            logit_bias=bias_by_id(bias, ids) or None,
            structured_outputs=None if schema is None else StructuredOutputsParams(json=schema),
        )

    def _reply(self, output: Any) -> Reply:
        made = output.outputs[0]
        logprobs = None
        if made.logprobs is not None:
            rows = zip(made.token_ids, made.logprobs, strict=True)
            logprobs = tuple(self._token(token, row) for token, row in rows)
        return Reply(
            text=made.text.encode("utf-8", "replace").decode("utf-8"),
            finish_reason=_FINISH.get(made.finish_reason or "", "unknown"),
            logprobs=logprobs,
            usage=Usage(input_tokens=len(output.prompt_token_ids or ()), output_tokens=len(made.token_ids)),
            cost_usd=0.0,
            model=self.settings.model,
        )

    def _token(self, token: int, row: Mapping[int, Any]) -> TokenLogprob:
        ranked = sorted(row.values(), key=lambda entry: -entry.logprob)
        return TokenLogprob(
            token=_spelled(row[token]),
            logprob=max(row[token].logprob, -9999.0),
            top=tuple((_spelled(entry), max(entry.logprob, -9999.0)) for entry in ranked),
        )


def _spelled(entry: Any) -> str:
    return (entry.decoded_token or "").encode("utf-8", "replace").decode("utf-8")
