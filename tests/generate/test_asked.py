"""Systems behind an engine are asked as their record says, and what fails is named."""

from collections.abc import Iterator
from typing import Any

import pytest

from pasture.core.records import Instruction
from pasture.core.requests import Reply, Request, Usage
from pasture.generate.asked import ask
from pasture.generate.baselines import BASELINES, Baseline


class Echo:
    """Answers with what it was asked, and fails where it is told to."""

    in_flight = 1

    def __init__(self) -> None:
        self.identity: dict[str, object] = {"engine": "echo"}
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Reply:
        raise NotImplementedError

    def run(self, requests: Any) -> Iterator[Reply]:
        for request in requests:
            self.requests.append(request)
            text = request.prompt or request.messages[-1].content
            if "fail" in text:
                yield Reply(error="filtered")
            else:
                usage = Usage(input_tokens=1, output_tokens=7)
                yield Reply(text=text, finish_reason="length", usage=usage, cost_usd=0.25)


def instruction(text: str, material: str = "") -> Instruction:
    return Instruction(id=text, instruction=text, input=material, source="s", split="evaluation")


def test_the_papers_baselines_are_asked_with_its_limits():
    # Models, temperature and length caps: AlpacaFarm, examples/oai_baselines.py.
    told = {"paper-gpt-4": ("gpt-4-0314", "500"), "paper-chatgpt": ("gpt-3.5-turbo-0301", "1000")}
    for name, (model, characters) in told.items():
        engine = Echo()
        ask(BASELINES[name], [instruction("Say hi", "now")], engine, system=name)
        [request] = engine.requests
        assert (request.model, request.temperature, request.max_completion_tokens) == (model, 0.7, 300)
        assert [message.role for message in request.messages or ()] == ["system", "user"]
        assert characters in (request.messages or ())[0].content
        assert (request.messages or ())[1].content == "Say hi\n\nnow"
    engine = Echo()
    ask(BASELINES["paper-davinci-003"], [instruction("Say hi")], engine, system="davinci")
    assert engine.requests[0].messages is None
    assert str(engine.requests[0].prompt).endswith("### Instruction:\nSay hi\n\n### Response:")


def test_answers_keep_their_instruction_and_what_failed_is_named():
    asked = [instruction("a"), instruction("fail"), instruction("b")]
    found = ask(Baseline(model="m"), asked, Echo(), system="s", samples=2)
    assert [(one.instruction_id, one.seed, one.text) for one in found.completions] == [
        ("a", 0, "a"), ("a", 1, "a"), ("b", 0, "b"), ("b", 1, "b"),
    ]  # fmt: skip
    assert {(one.finish_reason, one.token_count) for one in found.completions} == {("length", 7)}
    assert list(found.failed) == [("fail", "filtered"), ("fail", "filtered")]
    assert found.cost_usd == pytest.approx(1.0)


def test_samples_of_one_question_are_told_apart_in_the_store():
    engine = Echo()
    ask(Baseline(model="m"), [instruction("a")], engine, system="s", samples=3)
    ask(Baseline(model="m"), [instruction("a")], engine, system="s", samples=3, seed=1)
    assert len({request.request_hash for request in engine.requests}) == 6
