"""An engine without a model: a function or a list of replies, for tests, lessons and dry runs."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from pasture.core.errors import EngineError
from pasture.core.requests import Reply, Request, Usage
from pasture.engines.loop import in_order


class ScriptedEngine:
    """Answers every request by `script`: a function of the request, a mapping by last message, or one text for all.

    A function may return a text or a whole `Reply`. Replies cost nothing.
    """

    def __init__(
        self, script: Callable[[Request], str | Reply] | Mapping[str, str] | str, *, name: str = "scripted"
    ) -> None:
        self._script = script
        self._name = name

    @property
    def identity(self) -> Mapping[str, object]:
        """Name of the script."""
        return {"engine": "scripted", "name": self._name}

    @property
    def in_flight(self) -> int:
        """More would not be faster."""
        return 16

    async def complete(self, request: Request) -> Reply:
        """The script's reply.

        Raises:
            EngineError: if a mapping holds no reply for the last message.
        """
        await asyncio.sleep(0)
        return self._reply(request)

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The script's replies, in order."""
        return in_order(self, requests)

    def _reply(self, request: Request) -> Reply:
        answer: str | Reply
        if isinstance(self._script, str):
            answer = self._script
        elif isinstance(self._script, Mapping):
            asked = last_text(request)
            if asked not in self._script:
                raise EngineError(f"engine {self._name!r} has no reply for {asked[:80]!r}. Add it to the mapping.")
            answer = self._script[asked]
        else:
            answer = self._script(request)
        if isinstance(answer, Reply):
            return answer
        usage = Usage(input_tokens=len(last_text(request).split()), output_tokens=len(answer.split()))
        return Reply(text=answer, finish_reason="stop", usage=usage, cost_usd=0.0, model=request.model)


def last_text(request: Request) -> str:
    """The prompt, or what the last message says."""
    return request.messages[-1].content if request.messages else request.prompt or ""
