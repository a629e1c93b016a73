"""A vLLM server that draws a policy's answers: token ids out, tokens and log-probabilities back, new weights between.

Three of vLLM's own ways are used, and none of its insides: completions over token ids; adapters by
`/v1/load_lora_adapter`; whole weights by `/collective_rpc` with the worker's `reload_weights`, then
`/reset_prefix_cache`, since what is remembered of a prompt belongs to the old weights. Weights travel as files, so the
server runs on this machine or shares its disk.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2

from pasture.core.errors import EngineError
from pasture.core.redaction import redact
from pasture.engines.endpoint import BoundedTransport
from pasture.engines.keys import key_in_environment
from pasture.engines.loop import submit
from pasture.engines.rollout_settings import RolloutServerConfig

T = TypeVar("T")
MOST_BYTES = 32 * 2**20
"""Of one answer."""
TRIES = 4
"""Of one question, where the connection broke or the server had too much to do."""
SECONDS_BETWEEN_TRIES = 0.5
"""After the first; twice as many after each further one."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer as the server drew it."""

    token_ids: list[int]
    """The stop token included, where one was drawn."""
    logprobs: list[float]
    """Of each token, under the model as it is served (temperature 1, no truncation)."""
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Wanted:
    """How answers are to be drawn."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop_ids: Sequence[int]


class RolloutServer:
    """A client of the server; the weights that it has been given last are those that it draws from."""

    def __init__(self, config: RolloutServerConfig, *, adapter: str, start: str) -> None:
        """`adapter` is what adapters are called there, `start` the model that errors tell the user to serve.

        Raises:
            EngineError: if the key's variable is not set.
        """
        self.config = config
        self.url = config.url.rstrip("/").removesuffix("/v1")
        self.adapter, self.start = adapter, start
        self._asked_as: str | None = config.model
        self.draws_from_adapter = False
        """Whether answers are drawn from the adapters that were loaded, by this process or another one."""
        headers = _authorization(config.api_key_env, self.url)
        transport = BoundedTransport(config.timeout_seconds, MOST_BYTES)
        self._client = httpx2.AsyncClient(
            transport=transport, headers={"accept-encoding": "identity", **headers}, timeout=config.timeout_seconds
        )

    def check(self, probes: Mapping[str, Sequence[int]], context_tokens: int) -> None:
        """See before anything is drawn that the server is there, serves one model, splits texts alike, and has room.

        `probes` are texts with their token ids; `context_tokens` what a prompt and its answer may take together.

        Raises:
            EngineError: saying which it is, and how to start the server.
        """
        listed = self._wait(self._ask("GET", "/v1/models", None))
        cards = listed.get("data", []) if isinstance(listed, Mapping) else []
        served = {str(card["id"]): card for card in cards if card.get("parent") is None}
        if self._asked_as is None and len(served) == 1:
            [self._asked_as] = served
        if self._asked_as not in served:
            wanted = "expected one model" if self._asked_as is None else f"expected the model {self._asked_as!r}"
            raise EngineError(
                f"the server at {self.url} serves {', '.join(map(repr, served)) or 'no model'}; {wanted}. "
                "Name it as rollouts.model."
            )
        room = served[self._asked_as].get("max_model_len")
        if isinstance(room, int) and room < context_tokens:
            raise EngineError(
                f"the server at {self.url} takes {room} tokens of prompt and answer; max_prompt_tokens and "
                f"max_new_tokens ask for {context_tokens}. Lower these, or start it with a higher --max-model-len."
            )
        for text, ids in probes.items():
            self._check_vocabulary(text, list(ids))

    def _check_vocabulary(self, text: str, ids: list[int]) -> None:
        body = {"model": self._asked_as, "prompt": text, "add_special_tokens": False}
        found = self._wait(self._ask("POST", "/tokenize", body))
        tokens = found.get("tokens") if isinstance(found, Mapping) else None
        if tokens != ids:
            raise EngineError(
                f"the server at {self.url} has another vocabulary than the policy: it reads {text[:60]!r} as "
                f"{str(tokens)[:80]}, the policy as {str(ids)[:80]}. Serve the model that training begins with: "
                f"{self._command()}"
            )

    def load_adapter(self, folder: Path) -> None:
        """Draw from the served model with the adapters in `folder` from now on.

        A folder should not be used twice: what the server remembers of a prompt goes by its name.

        Raises:
            EngineError: if the server takes no adapters, or not these.
        """
        body = {"lora_name": self.adapter, "lora_path": str(folder.absolute()), "load_inplace": True}
        self._wait(self._ask("POST", "/v1/load_lora_adapter", body, lacks=self._no_adapters()))
        self.draws_from_adapter = True

    def unload_adapter(self) -> None:
        """Let the server forget the adapters, where it was given some; a server that is gone has forgotten them."""
        if self.draws_from_adapter:
            self.draws_from_adapter = False
            try:
                self._wait(self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": self.adapter}))
            except EngineError:
                return

    def load_weights(self, folder: Path) -> None:
        """Draw from the whole weights in `folder`, in place of those that are served, from now on.

        Raises:
            EngineError: if the server's weights cannot be changed, or not to these.
        """
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder.absolute())}}
        self._wait(self._ask("POST", "/collective_rpc", reload, lacks=self._no_reload()))
        found = self._wait(self._ask("POST", "/reset_prefix_cache", None, lacks=self._no_reload()))
        if isinstance(found, Mapping) and found.get("success") is False:
            raise EngineError(
                f"the server at {self.url} kept what it remembers of prompts under its old weights: somebody else asks "
                "it at the same time. Give this training a server of its own."
            )

    def draw(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], wanted: Wanted) -> list[Drawn]:
        """One answer for each prompt and seed, in order.

        Raises:
            EngineError: if the server does not answer, or leaves out tokens or their log-probabilities.
        """
        return self._wait(self._draw_all(prompts, seeds, wanted))

    def close(self) -> None:
        """Close the connections."""
        self._wait(self._client.aclose())

    async def _draw_all(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], wanted: Wanted) -> list[Drawn]:
        places = asyncio.Semaphore(self.config.in_flight)

        async def one(prompt: Sequence[int], seed: int) -> Drawn:
            async with places:
                return self._answer(
                    await self._ask("POST", "/v1/completions", self._body(prompt, seed, wanted)), wanted
                )

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(prompt, seed)) for prompt, seed in zip(prompts, seeds, strict=True)]
        return [task.result() for task in tasks]

    def _body(self, prompt: Sequence[int], seed: int, wanted: Wanted) -> dict[str, Any]:
        return {
            "model": self.adapter if self.draws_from_adapter else self._asked_as,
            "prompt": list(prompt),
            "seed": seed,
            "max_tokens": wanted.max_new_tokens,
            "stop_token_ids": list(wanted.stop_ids),
            "ignore_eos": True,  # ends are those that are named, whatever the server's model thinks
            "logprobs": 0,  # of the drawn token alone
            "return_token_ids": True,
            "skip_special_tokens": False,
            # All that a served model's generation_config.json could turn otherwise.
            "temperature": wanted.temperature,
            "top_p": wanted.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }

    def _answer(self, reply: Any, wanted: Wanted) -> Drawn:
        try:
            [choice] = reply["choices"]
            ids, logprobs, reason = choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"]
            drawn = Drawn([int(token) for token in ids], [float(value) for value in logprobs], reason)
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(
                f"the server at {self.url} left out the token ids of an answer or their log-probabilities "
                f"({type(error).__name__}: {error}). Expected a vLLM that knows return_token_ids, as 0.32 does."
            ) from error
        ended = drawn.finish_reason == "stop"
        complete = len(drawn.token_ids) == len(drawn.logprobs) and (
            drawn.token_ids[-1:] != [] and (drawn.token_ids[-1] in wanted.stop_ids) == ended
        )
        if not complete or drawn.finish_reason not in ("stop", "length"):
            raise EngineError(
                f"the server at {self.url} ended an answer by {drawn.finish_reason!r} after {len(drawn.token_ids)} "
                f"tokens with {len(drawn.logprobs)} log-probabilities; expected 'stop' at one of the end tokens "
                f"{list(wanted.stop_ids)}, or 'length', and as many log-probabilities as tokens."
            )
        return drawn

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return submit(work).result()
        except ExceptionGroup as errors:
            # Of all answers that failed, the first says it; the rest were called off.
            known = [one for one in errors.exceptions if isinstance(one, EngineError)]
            raise (known[0] if known else errors.exceptions[0]) from None

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, *, lacks: str = "") -> Any:
        """The JSON that the server answers, or the text; `lacks` explains a route that is not there."""
        wait = SECONDS_BETWEEN_TRIES
        for tries in range(1, TRIES + 1):
            try:
                response = await self._client.request(method, self.url + path, json=body)
            except httpx2.ConnectError as error:
                reason = f"no server answers at {self.url} ({error})."
                last = tries == TRIES or path == "/v1/models"  # that it is not there is told at once
            except httpx2.HTTPError as error:
                reason, last = f"the server at {self.url} did not answer {path}: {error}.", tries == TRIES
            else:
                if response.status_code < 400:
                    return _content(response)
                reason = _complaint(response, f"{self.url}{path}", lacks)
                last = tries == TRIES or response.status_code not in (429, 503)
            if last:
                raise EngineError(
                    redact(f"{reason} To start one that fits: {self._command()}. Then run again: training goes on.")
                )
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _command(self) -> str:
        return (
            "VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 "
            f"vllm serve {self.start} --enable-lora --max-lora-rank 64 (without adapters: neither of the two options)"
        )

    def _no_adapters(self) -> str:
        return "It takes no adapters while it runs: VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora are missing."

    def _no_reload(self) -> str:
        return "It does not let its weights be changed: VLLM_SERVER_DEV_MODE=1 is missing."


def _authorization(api_key_env: str | None, url: str) -> dict[str, str]:
    if api_key_env is None:
        return {}
    key = key_in_environment(api_key_env, url, "rollouts.api_key_env")
    return {"authorization": f"Bearer {key}"}


def _content(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text


def _complaint(response: httpx2.Response, address: str, lacks: str) -> str:
    if response.status_code in (404, 405) and lacks:
        return f"{address} is not there. {lacks}"
    said = _content(response)
    if isinstance(said, Mapping):
        inner = said.get("error", said.get("detail", said))
        said = inner.get("message", inner) if isinstance(inner, Mapping) else inner
    return f"{address} answered {response.status_code}: {str(said).strip()[:500]}"
