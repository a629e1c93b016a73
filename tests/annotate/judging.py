"""What the tests of judges share: pairs, and an engine that answers by a rule."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from pasture.core.records import Comparison, Completion, Instruction
from pasture.core.requests import Reply, Request

Answering = Callable[[Request], Reply | str]


class RuleEngine:
    """Answers every request by a rule, and remembers what it was asked."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked: list[Request] = []

    @property
    def identity(self) -> Mapping[str, object]:
        return {"engine": "rule"}

    @property
    def in_flight(self) -> int:
        return 64

    async def complete(self, request: Request) -> Reply:
        return self._answer(request)

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            yield self._answer(request)

    def _answer(self, request: Request) -> Reply:
        self.asked.append(request)
        answer = self.answering(request)
        return Reply(text=answer, finish_reason="stop", cost_usd=0.01) if isinstance(answer, str) else answer


def pair(question: str, first: str, second: str, input_text: str = "") -> Comparison:
    asked = Instruction(id=question, instruction=question, input=input_text, source="test", split="eval")
    one = Completion(instruction_id=asked.id, text=first, system="one", seed=0)
    two = Completion(instruction_id=asked.id, text=second, system="two", seed=0)
    return Comparison.of(asked, one, two)


def pairs(count: int) -> list[Comparison]:
    return [pair(f"question {i}", f"good {i}", f"bad {i}") for i in range(count)]


def text_of(request: Request) -> str:
    """All that a judge reads, in order."""
    if request.messages is None:
        return request.prompt or ""
    return "\n".join(message.content for message in request.messages)


def last_turn(request: Request) -> str:
    return request.prompt if request.messages is None else request.messages[-1].content  # type: ignore[return-value]


def shown(request: Request) -> list[tuple[str, str]]:
    """The answers of the pairs to be judged, as they were shown, one tuple each, without the examples."""
    text = text_of(request)
    code = re.findall(r"carry the code ([0-9a-f]{12})", text)[0]
    found = re.findall(rf"<answer (\S+) {code}>\n(.*?)\n</answer \1 {code}>", text, re.DOTALL)
    couples = [(found[i][1], found[i + 1][1]) for i in range(0, len(found), 2)]
    return [couple for couple in couples if couple[0].startswith(("good", "bad"))]


def letters(verdicts: list[str]) -> str:
    return "\n".join(f"Pair {number}: answer ({verdict})" for number, verdict in enumerate(verdicts, start=1))


def answer_like(request: Request, verdicts: list[str]) -> str:
    """`verdicts` in the form that the judge behind `request` was asked for."""
    if request.json_schema is not None:
        rows = ", ".join(f'{{"pair": {n}, "reason": "r", "better": "{v}"}}' for n, v in enumerate(verdicts, start=1))
        return (
            f'{{"verdicts": [{rows}]}}' if "verdicts" in str(request.json_schema) else f'{{"better": "{verdicts[0]}"}}'
        )
    return letters(verdicts)


def prefers_good(request: Request) -> str:
    return answer_like(request, ["a" if a.startswith("good") else "b" for a, _ in shown(request)])


def always_first(request: Request) -> str:
    return answer_like(request, ["a"] * len(shown(request)))
