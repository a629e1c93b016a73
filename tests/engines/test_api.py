"""The service engine against a server that misbehaves in every way it is known to."""

import asyncio
import datetime as dt
import gc
import logging
import os
import platform
import resource
import time
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any

import aiohttp
import httpx2
import pytest
import tenacity

from pasture.core.errors import BudgetError, EngineError
from pasture.core.requests import Reply, Request
from pasture.engines import api as api_module
from pasture.engines import endpoint as endpoint_module
from pasture.engines import loop
from pasture.engines.api import ApiEngine
from pasture.engines.budget import Budget
from pasture.engines.settings import Address, ApiSettings
from tests.engines.conftest import KEY_ENV, ask
from tests.engines.fake_server import KEY, FakeServer

OpenApi = Callable[..., ApiEngine]
PRICE = {"input_per_million": 1000.0, "output_per_million": 4000.0}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "FIRST_WAIT_SECONDS", 0.01)


def one(engine: ApiEngine, request: Request) -> Reply:
    return next(iter(engine.run([request])))


def test_a_chat_comes_back_with_text_logprobs_usage_and_price(open_api: OpenApi) -> None:
    reply = one(open_api(price=PRICE), ask("hello", top_logprobs=5))
    # The server's own rule: sha256(b"user: hello")[0] is even for 'm'; it counts a token for four characters.
    assert reply.text in {"m", "M"}
    assert reply.logprobs is not None
    assert [token for token, _ in reply.logprobs[0].top] == [reply.text, {"m": "M", "M": "m"}[reply.text]]
    assert [logprob for _, logprob in reply.logprobs[0].top] == [-0.25, -1.5]
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (len("user: hello") // 4 + 1, 1)
    assert reply.cost_usd == pytest.approx(3 * 1000e-6 + 1 * 4000e-6)
    assert (reply.finish_reason, reply.model, reply.attempts, reply.error) == ("stop", "judge", 1, None)


def test_a_completion_comes_back_with_text_and_logprobs(open_api: OpenApi) -> None:
    request = Request(model="base", prompt="once", max_completion_tokens=1, top_logprobs=2)
    reply = one(open_api(), request)
    assert reply.logprobs is not None
    assert reply.logprobs[0].top[0] == (reply.text, -0.25)


def test_replies_come_in_the_order_of_the_requests_over_one_set_of_connections(
    open_api: OpenApi, server: FakeServer
) -> None:
    server.behave(answer="echo", latency_seconds=0.01)
    engine = open_api(in_flight=8)
    for _ in range(2):
        texts = [reply.text for reply in engine.run(ask(f"n {number}") for number in range(100))]
        assert texts == [f"n {number}" for number in range(100)]
    counts = server.counts()
    assert counts["most_in_flight"] == 8
    assert counts["connections"] == 8  # both runs, one client


def test_a_service_is_told_nothing_of_the_machine_that_asks(open_api: OpenApi, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx2.Request] = []
    carry = endpoint_module.BoundedTransport.handle_async_request

    async def carry_seen(self: endpoint_module.BoundedTransport, request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return await carry(self, request)

    monkeypatch.setattr(endpoint_module.BoundedTransport, "handle_async_request", carry_seen)
    one(open_api(), ask("hello"))
    [request] = sent
    assert request.headers["authorization"] == f"Bearer {KEY}"
    told = {platform.system().lower(), platform.machine().lower(), platform.python_version(), "cpython", "x64"}
    assert not [value for value in request.headers.values() if value.lower() in told]


def test_a_forgotten_engine_s_connections_are_closed_on_the_loop_they_live_on(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[aiohttp.ClientSession] = []
    begin = aiohttp.ClientSession.__init__

    def begin_seen(self: aiohttp.ClientSession, **settings: Any) -> None:
        sessions.append(self)
        begin(self, **settings)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", begin_seen)
    engine = ApiEngine(ApiSettings(endpoints=(Address(base_url=server.base_url, api_key_env=KEY_ENV),)))
    one(engine, ask("hello"))
    # Whatever collects the garbage must not wait for the loop's thread, nor start one.
    monkeypatch.setattr(loop._THREAD, "get", lambda: pytest.fail("the engines' loop was asked for"))
    assert [session.closed for session in sessions] == [False]
    del engine
    gc.collect()
    patience = time.monotonic() + 10
    while not sessions[0].closed and time.monotonic() < patience:
        time.sleep(0.01)
    assert sessions[0].closed


def test_a_run_works_beside_a_running_event_loop_and_a_call_on_any_loop(open_api: OpenApi) -> None:
    engine = open_api()

    async def in_a_notebook() -> tuple[list[Reply], Reply]:
        return list(engine.run([ask("a"), ask("b")])), await engine.complete(ask("a"))

    listed, single = asyncio.run(in_a_notebook())
    assert listed[0].text == single.text
    assert len(listed) == 2


@pytest.mark.parametrize("kind", ["408", "409", "429", "500", "502", "503", "html", "error in 200", "empty", "cut"])
def test_what_may_pass_is_tried_again(open_api: OpenApi, server: FakeServer, kind: str) -> None:
    server.behave(faults={kind: 2})
    reply = one(open_api(), ask("hello"))
    assert reply.text in {"m", "M"}
    assert reply.attempts == 3


def test_tries_are_bounded_and_the_failure_names_the_model_and_the_reason(
    open_api: OpenApi, server: FakeServer
) -> None:
    server.behave(faults={"500": 99}, faulty_share=0.5)
    replies = list(open_api(max_attempts=3).run(ask(f"n {number}") for number in range(40)))
    failed = [reply for reply in replies if reply.failed]
    assert 0 < len(failed) < 40
    assert {reply.error for reply in failed} == {"model 'judge': no answer in 3 tries; the last: status 500: fault 500"}
    assert server.counts()["requests"] == 3 * len(failed) + (40 - len(failed))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honored(open_api: OpenApi, server: FakeServer, form: str) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)  # the date has whole seconds only
    server.behave(faults={"429": 1}, retry_after="1" if form == "seconds" else format_datetime(later, usegmt=True))
    reply = one(open_api(), ask("hello"))
    assert reply.attempts == 2
    assert reply.seconds >= 0.9


def test_a_service_that_is_down_stops_the_run_with_its_address() -> None:
    settings = ApiSettings(endpoints=(Address(base_url="http://127.0.0.1:9/v1"),), max_attempts=2)
    with (
        ApiEngine(settings) as engine,
        pytest.raises(EngineError, match=r"'judge': no answer from http://127.0.0.1:9/v1 in 2 tries"),
    ):
        one(engine, ask("hello"))


def test_an_unknown_model_stops_the_run_at_once_with_its_name(open_api: OpenApi, server: FakeServer) -> None:
    with pytest.raises(EngineError, match=r"model 'no-such-model'.*status 404.*does not exist"):
        list(open_api(in_flight=2).run(ask(str(number), model="no-such-model") for number in range(100)))
    assert server.counts()["requests"] <= 10  # those on their way while the first refusal came home


def test_a_wrong_key_stops_the_run_and_is_not_shown(
    open_api: OpenApi, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "sk-another-key-1234")
    with pytest.raises(EngineError, match="status 401") as caught:
        one(open_api(), ask("hello"))
    assert "sk-another" not in str(caught.value)


def test_a_missing_key_is_told_by_its_name_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EngineError, match="environment variable OPENAI_API_KEY, which is not set"):
        ApiEngine()


def test_a_spent_quota_is_not_waited_for(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(faults={"quota": 99})
    with pytest.raises(EngineError, match="exceeded your quota"):
        one(open_api(), ask("hello"))
    assert server.counts()["requests"] == 1


@pytest.mark.parametrize(("kind", "finish"), [("filter", "filtered"), ("too long", "unknown")])
def test_what_concerns_one_request_fails_it_alone_and_at_once(
    open_api: OpenApi, server: FakeServer, kind: str, finish: str
) -> None:
    server.behave(faults={kind: 99}, faulty_share=0.3)
    replies = list(open_api().run(ask(f"n {number}") for number in range(60)))
    failed = [reply for reply in replies if reply.failed]
    assert 5 < len(failed) < 40
    assert {(reply.attempts, reply.finish_reason) for reply in failed} == {(1, finish)}
    assert all("model 'judge': status 400" in str(reply.error) for reply in failed)


def test_refusals_without_an_answer_between_them_stop_the_run(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(faults={"400": 99})
    with pytest.raises(EngineError, match=r"refused: status 400: This request cannot be served"):
        list(open_api(in_flight=1).run(ask(f"n {number}") for number in range(60)))
    assert 3 <= server.counts()["requests"] <= 4  # the third, and one that was on its way


@pytest.mark.parametrize("refused", ["temperature", "top_p", "seed", "max_tokens", "logprobs"])
def test_what_a_server_lacks_is_learned_once(open_api: OpenApi, server: FakeServer, refused: str) -> None:
    server.behave(refuses=(refused,))
    engine = open_api(in_flight=1)
    fields = {"temperature": 0.5, "top_p": 0.9, "seed": 1, "top_logprobs": 2}
    replies = list(engine.run(ask(f"n {number}", **fields) for number in range(5)))
    assert not any(reply.failed for reply in replies)
    assert server.counts()["requests"] == 6  # one lesson
    assert refused in str(engine.identity["learned"])


def test_structured_output_falls_back_to_json_mode_and_then_to_text(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(refuses=("json_schema", "json_object"))
    engine = open_api()
    assert not one(engine, ask("hello", json_schema={"type": "object"})).failed
    assert server.counts()["requests"] == 3
    assert "'json_form': 'text'" in str(engine.identity["learned"])


def test_a_server_that_calls_a_form_it_does_not_know_its_own_error_is_understood(
    open_api: OpenApi, server: FakeServer
) -> None:
    server.behave(as_llama_cpp=True, refuses=("json_schema",))
    engine = open_api()
    assert one(engine, ask("hello", json_schema={"type": "object"})).attempts == 2  # a lesson, and no waiting
    assert "'json_form': 'json_object'" in str(engine.identity["learned"])
    assert not one(engine, ask("again", logit_bias={"a": 7.0})).failed  # its token ids lie elsewhere


def test_a_value_that_such_a_server_refuses_is_neither_dropped_nor_tried_again(
    open_api: OpenApi, server: FakeServer
) -> None:
    server.behave(as_llama_cpp=True, refuses=("temperature",))
    engine = open_api(in_flight=1)
    reply = one(engine, ask("hello", temperature=9.0))
    assert reply.failed
    assert "status 500: 1 validation error" in str(reply.error)
    assert (reply.attempts, server.counts()["requests"]) == (1, 1)
    assert "temperature" not in str(engine.identity["learned"])


def test_a_refused_value_is_no_lesson(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(refuses=("stop",))  # without its stop text the answer would be another
    with pytest.raises(EngineError, match="'stop' is not supported"):
        list(open_api(in_flight=1).run(ask(f"n {number}", stop=("\n",)) for number in range(3)))


def test_missing_logprobs_are_none(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(silently_lacks=("logprobs",))
    assert one(open_api(), ask("hello", top_logprobs=2)).logprobs is None


def test_a_gzip_bomb_is_cut_off(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(faults={"bomb": 1})
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert one(open_api(), ask("hello")).attempts == 2
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    assert grown_mib < 4 * endpoint_module.MOST_BYTES / 2**20  # it would unpack to 256 MiB


def test_calls_go_where_the_fewest_are_in_flight_and_round_a_dead_endpoint(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Address(base_url="http://127.0.0.1:9/v1")
    alive = Address(base_url=server.base_url, api_key_env=KEY_ENV)
    with ApiEngine(ApiSettings(endpoints=(dead, alive), in_flight=8)) as engine:
        replies = list(engine.run(ask(f"n {number}") for number in range(60)))
    assert not any(reply.failed for reply in replies)
    with ApiEngine(ApiSettings(endpoints=(alive, alive), in_flight=8)) as engine:
        server.behave(latency_seconds=0.02)
        assert len(list(engine.run(ask(f"n {number}") for number in range(60)))) == 60
    assert server.counts()["connections"] == 8


def test_logit_biases_become_the_ids_of_the_server_s_tokens(open_api: OpenApi, server: FakeServer) -> None:
    # The fake server's tokens are characters: "ab" is two of them, so as a text to avoid it is left alone.
    server.behave(refuses=("logit_bias",))
    with pytest.raises(EngineError, match="'logit_bias' is not supported"):
        list(open_api(in_flight=1).run([ask(str(number), logit_bias={"ab": 7.0}) for number in range(3)]))
    server.behave(refuses=("logit_bias",))
    assert not one(open_api(), ask("hello", logit_bias={"ab": -100.0})).failed


def test_a_logit_bias_without_token_ids_is_refused(tmp_path: object) -> None:
    settings = ApiSettings(endpoints=(Address(base_url="http://127.0.0.1:9/v1"),))
    with ApiEngine(settings) as engine, pytest.raises(EngineError, match="a logit bias needs token ids"):
        one(engine, ask("hello", logit_bias={"a": 7.0}))


def test_a_rate_limit_spreads_the_requests(open_api: OpenApi, server: FakeServer) -> None:
    began = time.monotonic()
    list(open_api(requests_per_minute=600).run(ask(f"n {number}") for number in range(6)))
    # Six requests at ten a second: the last leaves half a second after the first. No upper bound is claimed.
    assert time.monotonic() - began >= 0.45
    assert server.counts()["requests"] == 6


def test_the_budget_is_never_passed_and_the_run_can_go_on(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(faults={"429": 1}, faulty_share=0.3)
    budget = Budget(limit_usd=1.0)
    engine = open_api(price=PRICE, budget=budget, in_flight=10)
    replies: list[Reply] = []
    with pytest.raises(BudgetError, match=r"stopped before the limit of \$1.0000 would be passed: spent \$0\.\d+"):
        replies.extend(engine.run(ask(f"n {number}") for number in range(1000)))
    # By hand: "user: n 10" is 3 tokens and 1 comes back: 0.007 dollars each.
    assert budget.spent_usd == pytest.approx(0.007 * len(server.billed()))
    assert 0.9 < budget.spent_usd <= 1.0
    budget.limit_usd = 2.0
    assert one(engine, ask("more")).cost_usd == pytest.approx(0.007)


def test_a_call_that_broke_off_counts_as_if_it_was_billed(open_api: OpenApi, server: FakeServer) -> None:
    server.behave(faults={"cut": 1})
    budget = Budget(limit_usd=1.0)
    reply = one(open_api(price=PRICE, budget=budget), ask("hello"))
    # The worst case by hand: 5 bytes + 2 * 16 for the format, and 8 new tokens.
    assert budget.uncertain_usd == pytest.approx((5 + 32) * 1e-3 + 8 * 4e-3)
    assert budget.spent_usd == reply.cost_usd


def test_a_limit_without_a_known_price_is_refused_unless_allowed(open_api: OpenApi, server: FakeServer) -> None:
    with pytest.raises(BudgetError, match="price is unknown"):
        one(open_api(budget=Budget(1.0)), ask("hello"))
    assert server.counts()["requests"] == 0
    assert one(open_api(budget=Budget(1.0), price_unknown_ok=True), ask("hello")).cost_usd is None


def test_a_limit_without_an_answer_length_is_refused(open_api: OpenApi) -> None:
    with pytest.raises(BudgetError, match="max_completion_tokens"):
        one(open_api(budget=Budget(1.0), price=PRICE), ask("hello", max_completion_tokens=None))


def test_debug_logs_hold_no_key(open_api: OpenApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        one(open_api(), ask("hello"))
    assert os.environ[KEY_ENV] == KEY
    assert KEY not in caplog.text


class Clock:
    """Time that passes only where a test lets it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def long_queue(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A rate limit that lets every try wait longer than the 600 seconds that a call may be tried for."""
    clock = Clock()

    class Queue:
        async def wait(self, _: int) -> None:
            clock.now += 1000.0

    monkeypatch.setattr(api_module, "Rate", lambda *_: Queue())
    for module in (api_module, tenacity):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_waiting_for_the_rate_limit_uses_up_no_time_to_try(
    open_api: OpenApi, server: FakeServer, long_queue: Clock
) -> None:
    server.behave(faults={"429": 2})
    assert one(open_api(), ask("hello")).attempts == 3


def test_a_call_is_given_up_when_its_time_since_the_first_try_is_used_up(
    open_api: OpenApi, server: FakeServer, long_queue: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rest(_: float) -> None:
        long_queue.now += 400.0

    monkeypatch.setattr(api_module, "pause", rest)
    server.behave(faults={"429": 99})
    # By hand: tried after 0, 400 and 800 seconds, and 600 are allowed.
    with pytest.raises(EngineError, match="in 3 tries"):
        one(open_api(), ask("hello"))
