"""Any service that speaks OpenAI's chat or completion protocol: OpenAI, vLLM, llama.cpp, Ollama, a proxy."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from pasture.core.errors import BudgetError, EngineError, ModelError
from pasture.core.requests import Reply, Request
from pasture.engines.budget import Budget
from pasture.engines.endpoint import OPENAI, Dialect, Endpoint, RefusedError, TransientError
from pasture.engines.loop import check_not_stopped, in_order, on_engine_loop, pause, submit
from pasture.engines.pace import Places, Rate
from pasture.engines.prices import cost_usd, likely_input_tokens, most_usage
from pasture.engines.settings import ApiSettings
from pasture.engines.tokens import bias_by_id
from pasture.engines.wire import Capabilities, Refusal

ALIKE_REFUSALS = 3
"""So many refusals in a row, and no answer between them, concern the set-up and not the single request."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0

Keep = Callable[[Reply], Awaitable[Reply]]
"""What makes an answer safe, such as a store's commit, and gives back the one to use."""


async def _as_it_is(reply: Reply) -> Reply:
    return reply


@dataclass
class _Tally:
    """What has come of the calls so far, to tell a broken set-up from a broken request."""

    answers: int = 0
    refused_in_a_row: int = 0


@dataclass
class _Call:
    """One request on its way."""

    request: Request
    keep: Keep
    worst_usd: float
    answers_before: int
    attempts: int = 0
    began: float = 0.0
    """When it was first sent; 0 before."""
    queued_seconds: float = 0.0
    """How long it has waited since then for its turn by our own limits."""
    last_failed: Endpoint | None = None
    bias: Mapping[int, float] | None = None


class ApiEngine:
    """A service behind OpenAI's protocol, or another `dialect`; one client for each endpoint while the engine lives."""

    def __init__(
        self, settings: ApiSettings | None = None, *, budget: Budget | None = None, dialect: Dialect = OPENAI
    ) -> None:
        """Read the keys.

        Raises:
            EngineError: naming the environment variable that is not set.
        """
        self.settings = settings or ApiSettings()
        self._dialect = dialect
        self._budget = budget
        share = -(-self.settings.in_flight // len(self.settings.endpoints))
        self._endpoints = [
            Endpoint(dialect, address, Places(share), self.settings.timeout_seconds)
            for address in self.settings.endpoints
        ]
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._able: dict[tuple[str, str], Capabilities] = {}
        self._token_ids: dict[tuple[str, str], tuple[int, ...]] = {}
        self._tally = _Tally()
        self._rate: Rate | None = None
        self._jitter = random.Random()  # noqa: S311 - spreads retries; no answer depends on it

    @property
    def identity(self) -> Mapping[str, object]:
        """Addresses, and what their answers have taught about them."""
        learned = {f"{url} {model}": able.facts() for (url, model), able in sorted(self._able.items())}
        return {
            "engine": self._dialect.name,
            "endpoints": [endpoint.base_url for endpoint in self._endpoints],
            "learned": learned,
        }

    @property
    def in_flight(self) -> int:
        """Half as many again as may be unanswered or unkept, so that a free place never waits for the next request."""
        return self.settings.in_flight + -(-self.settings.in_flight // 2)

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The replies in order."""
        return in_order(self, requests)

    async def complete(self, request: Request) -> Reply:
        """The reply to one request, after as many tries as the settings allow.

        Raises:
            EngineError: if the service refuses all requests alike, or cannot be reached at all.
            BudgetError: before the spending limit would be passed.
        """
        return await self.complete_kept(request, _as_it_is)

    async def complete_kept(self, request: Request, keep: Keep) -> Reply:
        """What `keep` gives back for the reply; until then the call counts as in flight.

        So a program that is killed has never paid for more than `in_flight` answers that were not kept.

        Raises:
            EngineError: as `complete`; and whatever `keep` raises.
            BudgetError: before the spending limit would be passed.
        """
        return await on_engine_loop(self._complete(request, keep))

    def close(self) -> None:
        """Close the connections, where there are any."""
        for endpoint in self._endpoints:
            if endpoint.was_used:
                submit(endpoint.close()).result()

    def __enter__(self) -> "ApiEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _complete(self, request: Request, keep: Keep) -> Reply:
        call = _Call(request, keep, self._worst_usd(request), self._tally.answers)
        if request.logit_bias:
            call.bias = bias_by_id(request.logit_bias, await self._ids_of(request))
        retrying = AsyncRetrying(
            stop=lambda state: self._has_tried_enough(call, state),
            wait=self._wait,
            retry=retry_if_exception_type(TransientError),
            sleep=pause,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, call)
        except TransientError as error:
            if self._tally.answers == call.answers_before:
                raise EngineError(
                    f"model {request.model!r}: no answer from {self._addresses()} in {call.attempts} tries; "
                    f"the last: {error}. Nothing that was answered is lost; run again when the service is back."
                ) from None
            failure = self._failure(call, f"no answer in {call.attempts} tries; the last: {error}")
        except RefusedError as error:
            failure = self._refused(call, error.refusal)
        return await keep(failure)

    async def _attempt(self, call: _Call) -> Reply:
        if self._rate is None:
            self._rate = Rate(self.settings.requests_per_minute, self.settings.tokens_per_minute)
        queued_at = time.monotonic()
        await self._rate.wait(likely_input_tokens(call.request) + (call.request.max_completion_tokens or 0))
        endpoint = await self._place(call.last_failed)
        if call.began:
            call.queued_seconds += time.monotonic() - queued_at
        try:
            check_not_stopped()
            reply = await self._paid_for(call, endpoint)
            endpoint.places.succeeded()
            self._tally.answers += 1
            self._tally.refused_in_a_row = 0
            return await call.keep(reply)
        except TransientError as error:
            endpoint.places.failed(throttled=error.throttled)
            call.last_failed = endpoint
            raise
        finally:
            endpoint.places.in_flight -= 1
            self._wake()

    async def _paid_for(self, call: _Call, endpoint: Endpoint) -> Reply:
        """Send under the budget: reserve the worst case, settle by what came back."""
        if self._budget is not None:
            await self._budget.reserve(call.worst_usd)
        call.began = call.began or time.monotonic()
        cost: float | None = None
        uncertain = True  # until an answer, or a refusal, says what it cost; a call cut off in flight stays so
        try:
            reply = await self._send(call, endpoint)
            cost, uncertain = reply.cost_usd, reply.cost_usd is None
            return reply
        except RefusedError:
            uncertain = False
            raise
        except TransientError as error:
            uncertain = error.perhaps_billed
            raise
        finally:
            if self._budget is not None:
                self._budget.settle(call.worst_usd, cost, uncertain=uncertain)

    async def _send(self, call: _Call, endpoint: Endpoint) -> Reply:
        """One answer; a refusal that teaches what the server lacks is followed by another form of the request."""
        request = call.request
        able = self._able.setdefault((endpoint.base_url, request.model), Capabilities())
        while True:
            body = self._dialect.body_of(request, able, call.bias)
            call.attempts += 1
            try:
                answer = await endpoint.post(self._dialect.route(request), body)
                break
            except RefusedError as error:
                another_form = (
                    self._dialect.body_of(request, able, call.bias) != body
                )  # a call beside this one has learned it
                if not another_form and not able.learn(error.refusal, body, request.model):
                    raise
        try:
            reply = self._dialect.reply_of(answer)
        except ValueError as error:
            raise TransientError(f"the answer holds {error}", perhaps_billed=True) from None
        price = None
        if reply.usage is not None:
            price = cost_usd(reply.usage, request.model, endpoint.base_url, self.settings.price)
        facts = {"cost_usd": price, "seconds": time.monotonic() - call.began, "attempts": call.attempts}
        return reply.model_copy(update=facts)

    async def _place(self, avoided: Endpoint | None) -> Endpoint:
        """A place at the endpoint with the fewest calls in flight, rather not at one that has just failed."""
        while True:
            roomy = [endpoint for endpoint in self._open_endpoints() if endpoint.places.has_room]
            if roomy and self._free_places > 0:
                now = time.monotonic()
                best = min(
                    roomy, key=lambda one: (one.places.resting_until > now, one is avoided, one.places.in_flight)
                )
                best.places.in_flight += 1
                return best
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._wake()  # the place that was meant for this call
                raise

    @property
    def _free_places(self) -> int:
        """Of all endpoints together: their shares are rounded up, their sum is not."""
        return self.settings.in_flight - sum(endpoint.places.in_flight for endpoint in self._endpoints)

    def _open_endpoints(self) -> list[Endpoint]:
        """Those that are not down, or all if none is left: a call rather waits than spends its tries on a dead one."""
        return [endpoint for endpoint in self._endpoints if not endpoint.places.is_down] or self._endpoints

    def _wake(self) -> None:
        room = sum(max(0, max(1, int(e.places.limit)) - e.places.in_flight) for e in self._open_endpoints())
        room = min(room, self._free_places)
        while self._waiting and room > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def _has_tried_enough(self, call: _Call, state: RetryCallState) -> bool:
        """Whether its tries or its time are used up; waiting for its turn by our own limits takes none."""
        seconds = time.monotonic() - call.began - call.queued_seconds
        return state.attempt_number >= self.settings.max_attempts or seconds >= self.settings.max_retry_seconds

    def _wait(self, state: RetryCallState) -> float:
        """Full jitter; on top of what the service asks for, so that not all come back at once."""
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        ceiling = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
        return min((asked or 0.0) + self._jitter.uniform(0.0, ceiling), self.settings.max_retry_seconds)

    def _worst_usd(self, request: Request) -> float:
        """The most that one try can cost, for the budget."""
        if self._budget is None:
            return 0.0
        most = most_usage(request)
        if most is None:
            raise BudgetError(
                f"model {request.model!r}: under a spending limit every request needs max_completion_tokens."
            )
        addresses = [endpoint.base_url for endpoint in self._endpoints]
        prices = [cost_usd(most, request.model, address, self.settings.price) for address in addresses]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices) and not self.settings.price_unknown_ok:
            raise BudgetError(
                f"model {request.model!r} at {self._addresses()}: its price is unknown, so the spending limit cannot "
                "be kept. State its price (--price 2.5,10 for input and output; of a judge or a recipe's engine the "
                "setting price), or let it run unlimited (--price-unknown-ok; the setting price_unknown_ok)."
            )
        return max(known, default=0.0)

    def _refused(self, call: _Call, refusal: Refusal) -> Reply:
        """A failure of this request, or an error of the whole run.

        Raises:
            EngineError: with the model's name, if every request would be refused.
        """
        said = f"status {refusal.status}: {refusal.message}"
        if refusal.concerns_one_request:
            reply = self._failure(call, said)
            return reply.model_copy(update={"finish_reason": "filtered"}) if refusal.filtered else reply
        self._tally.refused_in_a_row += 1
        alone = refusal.malformed or refusal.status in (400, 413, 422)
        if alone and self._tally.refused_in_a_row < ALIKE_REFUSALS:
            return self._failure(call, said)
        raise EngineError(
            f"model {call.request.model!r} at {self._addresses()} refused: {said.rstrip('. ')}. "
            "Check the model's name, the key and the request's settings; nothing that was answered is lost."
        )

    def _failure(self, call: _Call, reason: str) -> Reply:
        seconds = time.monotonic() - call.began if call.began else 0.0
        return Reply(error=f"model {call.request.model!r}: {reason}", seconds=seconds, attempts=call.attempts)

    def _addresses(self) -> str:
        return ", ".join(sorted({endpoint.base_url for endpoint in self._endpoints}))

    async def _ids_of(self, request: Request) -> dict[str, tuple[int, ...]]:
        found = {}
        for text in request.logit_bias or {}:
            key = (request.model, text)
            if key not in self._token_ids:
                self._token_ids[key] = await self._encode(request.model, text)
            found[text] = self._token_ids[key]
        return found

    async def _encode(self, model: str, text: str) -> tuple[int, ...]:
        """Ids by the tokenizer that the settings name, or by the server's own as vLLM and llama.cpp tell them."""
        if self.settings.tokenizer is not None:
            return encode_with(self.settings.tokenizer, text)
        root = self._endpoints[0].base_url.removesuffix("/v1")
        said: Exception | None = None
        for path, named in (("tokenize", ("prompt", "content")), ("extras/tokenize", ("input",))):
            body: dict[str, Any] = {"model": model, "add_special_tokens": False, **dict.fromkeys(named, text)}
            try:
                answer = await self._endpoints[0].post(f"{root}/{path}", body)
                return tuple(int(token) for token in answer["tokens"])
            except (TransientError, RefusedError, KeyError, TypeError, ValueError, openai.OpenAIError) as error:
                said = said or error
        raise EngineError(
            f"model {model!r}: a logit bias needs token ids, and {root}/tokenize gave none ({said}). "
            "Name the folder of its tokenizer in the engine's settings, or leave the bias out."
        )


def encode_with(folder: str, text: str) -> tuple[int, ...]:
    """Token ids of `text` by the tokenizer.json in `folder`.

    Raises:
        ModelError: if the package or the file is missing.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - comes with the extra for training
    except ImportError as error:
        raise ModelError("a tokenizer folder needs the package tokenizers: pip install 'pasture[train]'.") from error
    try:
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    except Exception as error:  # noqa: BLE001 - the package raises a bare Exception
        raise ModelError(f"{folder}/tokenizer.json cannot be read ({error}). Name a folder that holds one.") from None
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)
