"""Answers by the file: OpenAI's batch service at half the price, or a program such as `vllm run-batch`.

What was handed in is written down before it is, in a folder that must outlive the program: a run that goes on finds
its batches there, or among those of the service, and only polls.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import openai
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pasture.core.errors import BudgetError, EngineError
from pasture.core.files import write_text
from pasture.core.redaction import redact
from pasture.core.requests import Reply, Request
from pasture.engines.budget import Budget
from pasture.engines.endpoint import OPENAI, Endpoint
from pasture.engines.gather import Gatherer
from pasture.engines.loop import in_order, on_engine_loop, pause, submit
from pasture.engines.pace import Places
from pasture.engines.prices import cost_usd, most_usage
from pasture.engines.settings import BatchSettings
from pasture.engines.wire import Capabilities, Refusal, body_of, reply_of, route

LINGER_SECONDS = 1.0
"""A file is closed when no request has come for so long."""
MOST_RESULT_BYTES = 2**30
PASSING_TROUBLE = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, openai.ConflictError)
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_SLOT = re.compile(r"\{(input|output)\}")


class BatchEngine:
    """Requests that come together go into one file; replies come when the file is answered, hours later perhaps."""

    def __init__(self, settings: BatchSettings, *, budget: Budget | None = None) -> None:
        """Read the key, where a service is asked.

        Raises:
            EngineError: naming the environment variable that is not set.
        """
        self.settings = settings
        self._budget = budget
        self._gatherer = Gatherer(self._answer, settings.requests_per_file, linger_seconds=LINGER_SECONDS)
        self._endpoint = None
        if not settings.command:
            self._endpoint = Endpoint(OPENAI, settings.address, Places(1), 600.0, MOST_RESULT_BYTES)

    @property
    def identity(self) -> Mapping[str, object]:
        """The service's address, or the program."""
        base_url = None if self._endpoint is None else self._endpoint.base_url
        return {"engine": "batch files", "base_url": base_url, "command": list(self.settings.command)}

    @property
    def in_flight(self) -> int:
        """A file's worth."""
        return self.settings.requests_per_file

    async def complete(self, request: Request) -> Reply:
        """The reply, when its batch has ended.

        Raises:
            EngineError: if the batch was refused as a whole or the program failed.
            BudgetError: before the spending limit could be passed.
        """
        return await on_engine_loop(self._gatherer.complete(request))

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The replies in order."""
        return in_order(self, requests)

    def close(self) -> None:
        """Close the connections; batches that were handed in go on."""
        if self._endpoint is not None and self._endpoint.was_used:
            submit(self._endpoint.close()).result()

    async def _answer(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies to what was gathered: from the files that hold these requests already, and from new ones."""
        wanted = {request.request_hash: request for request in requests}
        waited_for = [state for state in self._states() if wanted.keys() & set(state["requests"])]
        rows: dict[str, Mapping[str, Any]] = {}
        answered: set[str] = set()
        for state in waited_for:
            found = await self._results(state)
            if state["read"]:  # what failed in a batch that was read in an earlier run is asked anew
                found = {key: row for key, row in found.items() if _good(row)}
            answered |= found.keys() if state["read"] else set(state["requests"])
            rows |= found
        new = [request for key, request in wanted.items() if key not in answered]
        worst_usd = await self._reserve(new)
        ended = False
        try:
            begun = [self._begin(group) for group in _by_model_and_route(new)]
            for state in begun:
                await self._hand_in(state)
            for state in begun:
                rows |= await self._results(state)
            replies = [self._reply(request, rows.get(request.request_hash)) for request in requests]
            ended = True
        finally:
            if self._budget is not None:
                self._budget.settle(worst_usd, 0.0, uncertain=not ended)  # the cost is booked with each reply
        for state in waited_for + begun:
            self._save(state | {"read": True})
        return replies

    async def _reserve(self, requests: Sequence[Request]) -> float:
        """Set the worst case of new requests aside; what was handed in before is spent already."""
        if self._budget is None:
            return 0.0
        worst_usd = 0.0
        for request in requests:
            usage = most_usage(request)
            price = None if usage is None else self._cost(usage, request.model)
            if price is None:
                raise BudgetError(
                    f"model {request.model!r}: under a spending limit a batch needs a known price and "
                    "max_completion_tokens. State both."
                )
            worst_usd += price
        await self._budget.reserve(worst_usd)
        return worst_usd

    def _states(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.settings.folder.glob("*.state.json"))]

    def _save(self, state: Mapping[str, Any]) -> None:
        write_text(self.settings.folder / f"{state['name']}.state.json", json.dumps(state))

    def _begin(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Write the file and its state, before anyone hears of it."""
        able = Capabilities(length_name=self.settings.length_name)
        lines = []
        for request in requests:
            if request.logit_bias:
                raise EngineError(
                    f"model {request.model!r}: batch files take no logit bias. Leave it out, or use engine 'api'."
                )
            row = {"custom_id": request.request_hash, "method": "POST", "url": f"/v1{route(request)}"}
            lines.append(json.dumps(row | {"body": body_of(request, able, None)}, ensure_ascii=False) + "\n")
        text = "".join(lines)
        # Never met before, so that no other run's batch of the same questions is taken for this one.
        name = f"{len(self._states()):04d}-{secrets.token_hex(8)}"
        write_text(self.settings.folder / f"{name}.input.jsonl", text)
        keys = [request.request_hash for request in requests]
        state = {"name": name, "id": None, "endpoint": f"/v1{route(requests[0])}", "requests": keys, "read": False}
        self._save(state)
        return state

    async def _results(self, state: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Result rows by request, once the batch has ended."""
        await self._hand_in(state)
        text = await (self._by_program(state["name"]) if self._endpoint is None else self._by_service(state))
        rows = {}
        for line in text.splitlines():
            try:
                row = json.loads(line)
                rows[str(row["custom_id"])] = row
            except (ValueError, KeyError, TypeError):
                continue  # its request is found missing and fails with a reason
        return rows

    async def _hand_in(self, state: dict[str, Any]) -> None:
        """Upload and begin the batch, unless an interrupted run has; a program needs none of that."""
        if self._endpoint is None or state["id"] is not None:
            return
        client: openai.AsyncOpenAI = self._endpoint.client()
        content = (self.settings.folder / f"{state['name']}.input.jsonl").read_bytes()

        async def hand_in() -> str:
            async for batch in client.batches.list(limit=100):
                if (batch.metadata or {}).get("pasture") == state["name"]:
                    return batch.id
            file = await client.files.create(file=(f"{state['name']}.jsonl", content), purpose="batch")
            begun = await client.batches.create(
                input_file_id=file.id,
                endpoint=state["endpoint"],
                completion_window="24h",
                metadata={"pasture": state["name"]},
            )
            return begun.id

        state["id"] = await self._patiently(hand_in)
        self._save(state)

    async def _by_service(self, state: Mapping[str, Any]) -> str:
        """The lines of both result files."""
        assert self._endpoint is not None  # noqa: S101 - narrows the type; callers have looked
        client: openai.AsyncOpenAI = self._endpoint.client()
        while True:
            batch = await self._patiently(client.batches.retrieve, state["id"])
            if batch.status in ENDED:
                break
            await pause(self.settings.poll_seconds)
        if batch.status == "failed":
            said = [str(one.message) for one in (batch.errors.data or ())] if batch.errors else ["no reason given"]
            self._save({**state, "requests": []})
            raise EngineError(
                f"batch {state['id']} was refused as a whole: {redact('; '.join(said))}. "
                f"Look at {self.settings.folder / state['name']}.input.jsonl, correct the settings and run again."
            )
        names = [name for name in (batch.output_file_id, batch.error_file_id) if name is not None]
        files = [await self._patiently(client.files.content, name) for name in names]
        return redact("\n".join(file.text for file in files))

    async def _by_program(self, name: str) -> str:
        """What the program wrote; it is run only if it has not been."""
        output = self.settings.folder / f"{name}.output.jsonl"
        if not output.exists():
            draft = output.with_suffix(".partial")
            values = {"input": str(self.settings.folder / f"{name}.input.jsonl"), "output": str(draft)}
            words = [_SLOT.sub(lambda slot: values[slot[1]], word) for word in self.settings.command]
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                )
            except OSError as error:
                raise EngineError(
                    f"{words[0]} cannot be run ({error.strerror or error}). Install it, or name it with its folder in "
                    "the engine's 'command'. What was to be asked is kept; run again to go on."
                ) from error
            _, errors = await process.communicate()
            if process.returncode != 0 or not draft.exists():
                said = redact(errors.decode("utf-8", "replace"))[-1000:]
                raise EngineError(f"{words[0]} left with code {process.returncode} and no results; it said: {said}")
            draft.replace(output)
        return output.read_text(encoding="utf-8", errors="replace")

    async def _patiently(self, call: Callable[..., Any], *arguments: str) -> Any:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(PASSING_TROUBLE),
            stop=stop_after_attempt(self.settings.max_attempts),
            wait=wait_random_exponential(multiplier=0.5, max=60.0),
            sleep=pause,
            reraise=True,
        )
        try:
            return await retrying(call, *arguments)
        except openai.OpenAIError as error:
            raise EngineError(
                f"the batch service gave no answer: {redact(str(error))}. What was handed in is written down in "
                f"{self.settings.folder}; run again to go on."
            ) from None

    def _cost(self, usage: Any, model: str) -> float | None:
        base_url = "" if self._endpoint is None else self._endpoint.base_url
        price = cost_usd(usage, model, base_url, self.settings.price)
        return None if price is None else price * self.settings.share_of_price

    def _reply(self, request: Request, row: Mapping[str, Any] | None) -> Reply:
        if row is None:
            return Reply(error=f"model {request.model!r}: the batch ended without an answer to this request")
        if not _good(row):
            response = row.get("response") or {}
            refusal = Refusal.of(response.get("status_code") or 0, response.get("body") or row.get("error"))
            return Reply(error=f"model {request.model!r}: status {refusal.status}: {redact(refusal.message)}")
        try:
            reply = reply_of(row["response"]["body"])
        except ValueError as error:
            return Reply(error=f"model {request.model!r}: the answer holds {error}")
        cost = None if reply.usage is None else self._cost(reply.usage, request.model)
        if self._budget is not None:
            self._budget.settle(0.0, cost)
        return reply.model_copy(update={"cost_usd": cost})


def _by_model_and_route(requests: Sequence[Request]) -> list[list[Request]]:
    """A file holds requests to one model by one route."""
    groups: dict[tuple[str, str], list[Request]] = {}
    for request in requests:
        groups.setdefault((request.model, route(request)), []).append(request)
    return list(groups.values())


def _good(row: Mapping[str, Any]) -> bool:
    return not row.get("error") and (row.get("response") or {}).get("status_code") == 200
