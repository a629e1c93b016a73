"""Batches: handed in once, polled by whoever comes later, read in any order."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pasture.core.errors import BudgetError, EngineError
from pasture.core.requests import Request
from pasture.core.store import AnswerStore
from pasture.engines import batch_files
from pasture.engines.batch_files import BatchEngine
from pasture.engines.budget import Budget
from pasture.engines.cached import CachedEngine
from pasture.engines.loop import RunStoppedError
from pasture.engines.settings import Address, BatchSettings
from tests.engines.conftest import KEY_ENV, ask
from tests.engines.fake_server import FakeServer

OpenBatches = Callable[..., BatchEngine]
PRICE = {"input_per_million": 1000.0, "output_per_million": 4000.0}


@pytest.fixture
def open_batches(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenBatches]:
    monkeypatch.setattr(batch_files, "LINGER_SECONDS", 0.05)
    opened: list[BatchEngine] = []

    def open_one(*, budget: Budget | None = None, **settings: object) -> BatchEngine:
        address = Address(base_url=server.base_url, api_key_env=KEY_ENV)
        fields = {"folder": tmp_path / "batches", "address": address, "poll_seconds": 0.05, "price": PRICE, **settings}
        opened.append(BatchEngine(BatchSettings.model_validate(fields), budget=budget))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def questions(count: int) -> list[Request]:
    return [ask(f"n {number}") for number in range(count)]


def batches(server: FakeServer) -> set[str]:
    return {row["batch"] for row in server.billed()}


def test_replies_find_their_requests_at_half_the_price(open_batches: OpenBatches, server: FakeServer) -> None:
    server.behave(answer="echo", batch_polls=2)
    replies = list(open_batches().run(questions(30)))  # the fake service answers in reverse
    assert [reply.text for reply in replies] == [f"n {number}" for number in range(30)]
    # By hand: "user: n 7" is 3 tokens, "n 7" is 1: (3 * 1000 + 1 * 4000) / 1e6 dollars, halved.
    assert replies[7].cost_usd == pytest.approx(0.0035)
    assert len(batches(server)) == 1


def test_a_run_that_goes_on_only_polls(
    open_batches: OpenBatches, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behave(batch_polls=3)

    async def stopped(_: float) -> None:
        raise RunStoppedError("as by SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(batch_files, "pause", stopped)
        with pytest.raises(RunStoppedError):
            list(open_batches().run(questions(10)))
    with AnswerStore(tmp_path / "s.sqlite") as store:
        replies = list(CachedEngine(open_batches(), store).run(questions(10)))
        assert not any(reply.failed for reply in replies)
        assert len(server.billed()) == 10
        assert len(batches(server)) == 1
        again = list(CachedEngine(open_batches(), store).run(questions(10)))
    assert [reply.text for reply in again] == [reply.text for reply in replies]
    assert len(server.billed()) == 10


def test_a_batch_whose_name_was_not_yet_written_down_is_found_again(
    open_batches: OpenBatches, server: FakeServer, tmp_path: Path
) -> None:
    list(open_batches().run(questions(10)))
    (state,) = (tmp_path / "batches").glob("*.state.json")
    row = json.loads(state.read_text())
    state.write_text(json.dumps(row | {"id": None, "read": False}))  # killed between the service's yes and ours
    assert not any(reply.failed for reply in open_batches().run(questions(10)))
    assert len(server.billed()) == 10


def test_a_request_that_fails_in_a_batch_fails_alone_and_is_asked_anew_when_it_is_retried(
    open_batches: OpenBatches, server: FakeServer, tmp_path: Path
) -> None:
    server.behave(faults={"400": 1}, faulty_share=0.3)
    with AnswerStore(tmp_path / "s.sqlite") as store:
        replies = list(CachedEngine(open_batches(), store).run(questions(30)))
        failed = [reply for reply in replies if reply.failed]
        assert 0 < len(failed) < 30
        assert failed[0].error is not None
        assert "status 400" in failed[0].error
        again = list(CachedEngine(open_batches(), store, retry_failed=True).run(questions(30)))
    assert not any(reply.failed for reply in again)
    assert len(server.billed()) == 30


def test_the_worst_case_of_a_batch_must_fit_the_budget(open_batches: OpenBatches, server: FakeServer) -> None:
    with pytest.raises(BudgetError, match="limit"):
        list(open_batches(budget=Budget(0.1)).run(questions(10)))
    assert server.billed() == []
    budget = Budget(10.0)
    replies = list(open_batches(budget=budget).run(questions(10)))
    assert budget.spent_usd == pytest.approx(sum(reply.cost_usd or 0.0 for reply in replies))


PROGRAM = """
import json, sys
if sys.argv[3] == "fail":
    sys.exit("out of memory")
rows = [json.loads(line) for line in open(sys.argv[1])]
with open(sys.argv[2], "w") as file:
    for row in reversed(rows):
        message = {"role": "assistant", "content": "to " + row["body"]["messages"][-1]["content"]}
        body = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
        answer = {"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
        file.write(json.dumps(answer) + "\\n")
"""


def test_a_program_takes_the_service_s_place(open_batches: OpenBatches, tmp_path: Path) -> None:
    script = tmp_path / "run_batch.py"
    script.write_text(PROGRAM)
    command = (sys.executable, str(script), "{input}", "{output}")
    with pytest.raises(EngineError, match="left with code 1 and no results; it said: out of memory"):
        list(open_batches(command=(*command, "fail")).run(questions(3)))
    replies = list(open_batches(command=(*command, "go")).run(questions(3)))
    assert [reply.text for reply in replies] == ["to n 0", "to n 1", "to n 2"]


def test_braces_of_a_program_s_own_reach_it_as_they_are(open_batches: OpenBatches, tmp_path: Path) -> None:
    script, seen = tmp_path / "run_batch.py", tmp_path / "seen.txt"
    script.write_text(f"{PROGRAM}\nopen({str(seen)!r}, 'w').write(sys.argv[3])")
    overrides = '{"x": {"input": "{0}"}}'
    command = (sys.executable, str(script), "{input}", "{output}", overrides)
    assert [reply.text for reply in open_batches(command=command).run(questions(1))] == ["to n 0"]
    assert seen.read_text() == overrides


def test_a_program_that_cannot_be_run_is_named_with_what_to_do(open_batches: OpenBatches, tmp_path: Path) -> None:
    missing, closed = str(tmp_path / "no-such-program"), tmp_path / "closed"
    closed.write_text("not to be run")
    for name, said in ((missing, "No such file or directory"), (str(closed), "Permission denied")):
        with pytest.raises(EngineError, match=rf"{name} cannot be run \({said}\)\. Install it, or name it"):
            list(open_batches(command=(name, "{input}", "{output}")).run(questions(1)))
