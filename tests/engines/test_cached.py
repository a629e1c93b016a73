"""The store in front of an engine, the order of replies, the end of a run, and prices."""

import asyncio
import builtins
import contextlib
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import genai_prices
import pytest

from pasture.core import store as store_module
from pasture.core.errors import BudgetError, DependencyError, EngineError, RecipeError, StoreError
from pasture.core.ports import Engine
from pasture.core.redaction import RedactingFormatter, parse_redacted, redact, remember_secret
from pasture.core.requests import Reply, Request, Usage
from pasture.core.store import AnswerStore
from pasture.engines import loop, open_engine
from pasture.engines.api import ApiEngine
from pasture.engines.cached import CachedEngine
from pasture.engines.loop import RunStoppedError, in_order
from pasture.engines.prices import StatedPrice, cost_usd, most_usage
from pasture.engines.scripted import ScriptedEngine
from pasture.engines.settings import Address, ApiSettings
from pasture.engines.tokens import bias_by_id
from tests.engines.conftest import ask


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnswerStore]:
    monkeypatch.setattr(store_module, "RESERVE_BYTES", 2**18)
    with AnswerStore(tmp_path / "s.sqlite") as opened:
        yield opened


class Counting:
    """An engine that notes what it was asked."""

    in_flight = 4
    identity: dict[str, object] = {}  # noqa: RUF012 - part of the protocol

    def __init__(self, script: Any) -> None:
        self.asked: list[str] = []
        self._scripted = ScriptedEngine(script)

    async def complete(self, request: Request) -> Reply:
        self.asked.append(request.request_hash)
        return await self._scripted.complete(request)

    def run(self, requests: Any) -> Iterator[Reply]:
        return in_order(self, requests)


def test_a_question_is_paid_for_once_however_often_it_is_asked(store: AnswerStore) -> None:
    inner = Counting("yes")
    engine = CachedEngine(inner, store)
    first = list(engine.run([ask("a"), ask("b"), ask("a"), ask("a")]))
    again = list(CachedEngine(inner, store).run([ask("b"), ask("a")]))
    assert len(inner.asked) == 2
    assert [reply.text for reply in first + again] == ["yes"] * 6
    assert all(reply.from_store for reply in again)


@pytest.mark.parametrize("change", [{"sample": 1}, {"asked_by": "another prompt"}, {"temperature": 0.5}])
def test_another_sample_judge_or_parameter_is_another_question(store: AnswerStore, change: dict[str, Any]) -> None:
    inner = Counting("yes")
    list(CachedEngine(inner, store).run([ask("a"), ask("a", **change)]))
    assert len(inner.asked) == 2


def test_other_weights_under_the_same_name_are_another_question(store: AnswerStore) -> None:
    inner = Counting("yes")
    for salt in ("", "weights 1", "weights 2", "weights 1"):
        list(CachedEngine(inner, store, salt=salt).run([ask("a")]))
    assert len(inner.asked) == 3


def test_a_failure_is_kept_and_retried_only_when_asked(store: AnswerStore) -> None:
    broken = Counting(lambda _: Reply(error="filtered"))
    assert next(CachedEngine(broken, store).run([ask("a")])).failed
    assert next(CachedEngine(broken, store).run([ask("a")])).failed
    assert len(broken.asked) == 1
    mended = Counting("yes")
    assert next(CachedEngine(mended, store, retry_failed=True).run([ask("a")])).text == "yes"
    assert next(CachedEngine(broken, store).run([ask("a")])).text == "yes"


def test_what_is_raised_is_not_stored_and_its_claim_is_free_again(store: AnswerStore) -> None:
    def refuse(_: Request) -> str:
        raise EngineError("no key")

    with pytest.raises(EngineError, match="no key"):
        list(CachedEngine(Counting(refuse), store).run([ask("a")]))
    assert next(CachedEngine(Counting("yes"), store).run([ask("a")])).text == "yes"


def test_a_call_that_is_cancelled_while_the_store_is_busy_stops_nobody_else(store: AnswerStore) -> None:
    engine = CachedEngine(Counting("yes"), store)
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")  # as a backup does, or another process that writes
        store.put("another", "q", "a")
        while not store._jobs.empty():
            time.sleep(0.001)
        asyncio.run(_cancelled(engine._complete(ask("a")), when=lambda: not store._jobs.empty()))
        holder.execute("COMMIT")
    assert [reply.text for reply in engine.run([ask("b"), ask("a")])] == ["yes", "yes"]


def test_a_call_that_is_cancelled_while_its_claim_is_granted_leaves_the_key_free(
    store: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_at_it, go_on = threading.Event(), threading.Event()
    found = store._found

    def slow(keys: Any) -> Any:
        is_at_it.set()
        go_on.wait(60)
        return found(keys)

    monkeypatch.setattr(store, "_found", slow)
    asyncio.run(_cancelled(CachedEngine(Counting("yes"), store)._complete(ask("a")), when=is_at_it.is_set))
    go_on.set()
    store.get("another")  # answered behind the claim that was cancelled too late
    assert store.claim(ask("a").request_hash).result() == "claimed"
    store.release(ask("a").request_hash).result()


async def _cancelled(call: Coroutine[Any, Any, Reply], *, when: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(call)
    while not when():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_answer_of_another_version_is_told_and_not_guessed(store: AnswerStore) -> None:
    store.put(ask("a").request_hash, "{}", '{"words": "yes"}').result()
    with pytest.raises(StoreError, match="another version"):
        list(CachedEngine(Counting("yes"), store).run([ask("a")]))


def test_replies_come_in_order_and_requests_are_read_as_places_fall_free() -> None:
    read: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(10_000):
            read.append(number)
            yield ask(str(number))

    engine = Counting(lambda request: request.messages[-1].content)
    replies = engine.run(requests())
    assert [next(replies).text for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(read) < 100
    replies.close()  # type: ignore[attr-defined]
    asked = len(engine.asked)
    time.sleep(0.05)
    assert len(engine.asked) == asked  # nothing is asked after the end


def test_a_slow_call_holds_back_later_replies_but_not_later_calls() -> None:
    release = threading.Event()

    class Slow(Counting):
        async def complete(self, request: Request) -> Reply:
            while request.messages[-1].content == "0" and not release.is_set():  # type: ignore[index]
                await asyncio.sleep(0.001)
            return await super().complete(request)

    engine = Slow(lambda request: request.messages[-1].content)
    replies = engine.run(ask(str(number)) for number in range(20))
    threading.Timer(0.2, release.set).start()
    assert [reply.text for reply in replies] == [str(number) for number in range(20)]
    assert engine.asked[-1] == ask("0").request_hash  # the first to begin was the last to end


def test_closing_a_run_waits_for_the_calls_in_flight(store: AnswerStore) -> None:
    import asyncio

    class Slow(Counting):
        async def complete(self, request: Request) -> Reply:
            reply = await super().complete(request)
            await asyncio.sleep(0.1)
            return reply

    engine = Slow("yes")
    replies = CachedEngine(engine, store).run(ask(str(number)) for number in range(100))
    next(replies)
    replies.close()  # type: ignore[attr-defined]
    assert len(list(store.rows())) == len(engine.asked) < 100


def numbered(*numbers: int) -> list[Request]:
    return [ask(str(number)) for number in numbers]


def said(request: Request) -> str:
    """What the engines of these tests answer: the question."""
    assert request.messages is not None
    return request.messages[-1].content


@pytest.fixture
def no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever wants the engines' loop fail."""

    def refuse() -> Any:
        raise AssertionError("the engines' loop was started")

    monkeypatch.setattr(loop._THREAD, "get", refuse)


def test_what_is_all_stored_is_read_in_bulk_and_without_the_engines_loop(
    store: AnswerStore, request: pytest.FixtureRequest
) -> None:
    list(CachedEngine(Counting(said), store).run(numbered(*range(300))))
    request.getfixturevalue("no_loop")
    queries: list[str] = []
    store._database.set_trace_callback(queries.append)
    inner = Counting(said)
    replies = list(CachedEngine(inner, store).run(ask(str(number)) for number in range(300)))
    assert [reply.text for reply in replies] == [str(number) for number in range(300)]
    assert all(reply.from_store for reply in replies)
    assert inner.asked == []
    assert len(queries) <= 300 / inner.in_flight + 1


def test_a_service_that_was_never_asked_is_closed_without_the_engines_loop(no_loop: None, store: AnswerStore) -> None:
    store.put(ask("a").request_hash, "{}", Reply(text="yes").to_json()).result()
    settings = ApiSettings(endpoints=(Address(base_url="http://127.0.0.1:9/v1"),))
    with ApiEngine(settings) as api:
        assert [reply.text for reply in CachedEngine(api, store).run([ask("a"), ask("a")])] == ["yes", "yes"]


def test_what_is_partly_stored_is_asked_for_where_it_is_missing_and_comes_in_order(store: AnswerStore) -> None:
    missing = (0, 7, 8, 30, 99)
    list(CachedEngine(Counting(said), store).run(numbered(*(n for n in range(100) if n not in missing))))
    inner = Counting(said)
    replies = list(CachedEngine(inner, store).run(numbered(*range(100))))
    assert [reply.text for reply in replies] == [str(number) for number in range(100)]
    assert [number for number, reply in enumerate(replies) if not reply.from_store] == list(missing)
    assert sorted(inner.asked) == sorted(request.request_hash for request in numbered(*missing))


def test_what_is_stored_behind_much_that_is_new_is_not_paid_for_again(store: AnswerStore) -> None:
    list(CachedEngine(Counting(said), store).run(numbered(*range(50, 100))))
    inner = Counting(said)
    replies = list(CachedEngine(inner, store).run(numbered(*range(100))))
    assert [reply.text for reply in replies] == [str(number) for number in range(100)]
    assert len(inner.asked) == len(set(inner.asked)) == 50


def test_missing_answers_are_asked_for_together_however_far_apart_they_stand(store: AnswerStore) -> None:
    # Every tenth of 30 is missing. The first waits for the third to be asked, behind 20 stored ones.
    list(CachedEngine(Counting(said), store).run(numbered(*(n for n in range(30) if n % 10))))
    third = threading.Event()

    class Waiting(Counting):
        async def complete(self, request: Request) -> Reply:
            if said(request) == "20":
                third.set()
            while said(request) == "0" and not third.is_set():
                await asyncio.sleep(0.001)
            return await super().complete(request)

    replies = CachedEngine(Waiting(said), store).run(numbered(*range(30)))
    assert [reply.text for reply in replies] == [str(number) for number in range(30)]


def test_stored_answers_are_read_no_further_ahead_than_new_ones(store: AnswerStore) -> None:
    list(CachedEngine(Counting(said), store).run(numbered(*range(1000))))
    read: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(1000):
            read.append(number)
            yield ask(str(number))

    replies = CachedEngine(Counting(said), store).run(requests())
    assert [next(replies).text for _ in range(500)] == [str(number) for number in range(500)]
    assert len(read) <= 500 + loop.WINDOW_PER_PLACE * Counting.in_flight


def test_stored_failures_are_read_in_bulk_and_asked_for_once_more_on_request(store: AnswerStore) -> None:
    def script(request: Request) -> Reply:
        return Reply(error="filtered") if int(said(request)) % 2 else Reply(text=said(request))

    list(CachedEngine(Counting(script), store).run(numbered(*range(10))))
    again = Counting(said)
    replies = list(CachedEngine(again, store).run(numbered(*range(10))))
    assert [reply.failed for reply in replies] == [False, True] * 5
    assert again.asked == []
    retried = list(CachedEngine(again, store, retry_failed=True).run(numbered(*range(10))))
    assert [reply.text for reply in retried] == [str(number) for number in range(10)]
    assert len(again.asked) == 5


def test_the_engines_keep_the_protocol(store: AnswerStore) -> None:
    assert isinstance(ScriptedEngine(""), Engine)
    assert isinstance(CachedEngine(ScriptedEngine(""), store), Engine)


def test_a_script_is_a_text_a_mapping_or_a_function() -> None:
    assert next(ScriptedEngine("yes").run([ask("a")])).text == "yes"
    assert next(ScriptedEngine({"a": "b"}).run([ask("a")])).text == "b"
    with pytest.raises(EngineError, match="no reply for 'c'"):
        list(ScriptedEngine({"a": "b"}).run([ask("c")]))


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(RecipeError, match="engine 'api': in_flight"):
        open_engine("api", {"in_flight": 0})
    with pytest.raises(RecipeError, match="Kinds: api"):
        open_engine("telepathy")  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "package"), [("vllm", "vllm"), ("anthropic", "anthropic")])
def test_a_missing_package_is_told_by_its_extra(kind: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *rest, **more)

    for module in ("pasture.engines.vllm", "pasture.engines.anthropic_api"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError, match=rf"pasture\[{package}\]"):
        open_engine(kind, {"model": "m"} if kind == "vllm" else {})


def test_prices_are_those_of_genai_prices_with_cached_tokens_apart() -> None:
    url = "https://api.openai.com/v1"
    usage = Usage(input_tokens=1000, cached_input_tokens=400, output_tokens=50)
    listed = genai_prices.Usage(input_tokens=1000, cache_read_tokens=400, output_tokens=50)
    expected = float(genai_prices.calc_price(listed, "gpt-4o-mini", provider_api_url=url).total_price)
    assert cost_usd(usage, "gpt-4o-mini", url) == pytest.approx(expected)
    whole = Usage(input_tokens=1000, output_tokens=50)
    assert (cost_usd(whole, "gpt-4o-mini", url) or 0.0) > expected


def test_a_price_that_grows_with_the_prompt_is_followed() -> None:
    url, model = "https://generativelanguage.googleapis.com", "gemini-2.5-pro"
    for tokens in (1_000, 250_000):  # dearer above 200,000
        listed = genai_prices.Usage(input_tokens=tokens, output_tokens=10)
        expected = float(genai_prices.calc_price(listed, model, provider_api_url=url).total_price)
        assert cost_usd(Usage(input_tokens=tokens, output_tokens=10), model, url) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "url"), [("gpt-4o", "http://127.0.0.1:8000/v1"), ("no-such", "https://api.openai.com/v1")]
)
def test_an_unknown_price_is_none(model: str, url: str) -> None:
    assert cost_usd(Usage(input_tokens=1, output_tokens=1), model, url) is None


def test_a_stated_price_holds() -> None:
    price = StatedPrice(input_per_million=2.0, cached_input_per_million=0.5, output_per_million=8.0)
    usage = Usage(input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=100_000)
    # By hand: 0.6 * 2 + 0.4 * 0.5 + 0.1 * 8
    assert cost_usd(usage, "m", "anywhere", price) == pytest.approx(2.2)
    assert cost_usd(usage, "m", "anywhere", StatedPrice(input_per_million=0, output_per_million=0)) == 0.0


def test_no_text_has_more_tokens_than_the_worst_case_counts() -> None:
    usage = most_usage(ask("日本語 👩‍🔬", max_completion_tokens=7))
    assert usage is not None
    assert usage.input_tokens >= len("日本語 👩‍🔬".encode())
    assert usage.output_tokens == 7
    assert most_usage(ask("a", max_completion_tokens=None)) is None


def test_biases_favor_every_token_and_avoid_single_ones() -> None:
    # AlpacaFarm's rule: +7 on each token of a favored text, -100 only on texts that are one token.
    ids = {"Output (a)": [1, 2, 3], "Both": [4], "Neither of them": [5, 6], "(": [2]}
    bias = {"Output (a)": 7.0, "Both": -100.0, "Neither of them": -100.0, "(": 1.0}
    assert bias_by_id(bias, ids) == {1: 7.0, 2: 7.0, 3: 7.0, 4: -100.0}


def test_secrets_are_cut_out_of_texts_and_tracebacks() -> None:
    import logging

    remember_secret("sk-very-secret-value")
    remember_secret("none")  # a placeholder key, and a word
    assert redact("none of sk-very-secret-value") == "none of [key]"
    try:
        raise ValueError("sk-very-secret-value")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "with %s", ("sk-very-secret-value",), sys.exc_info())
    assert "sk-very" not in RedactingFormatter().format(record)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ('{"said": "no secret", "at": 1}', {"said": "no secret", "at": 1}),
        ('{"said": ["it is sk/very-secret"]}', {"said": ["it is [key]"]}),
        (r'{"said": "it is sk\/very-\u0073ecret"}', {"said": "it is [key]"}),
        ('{"said": "no", "at": 98127364551003}', {"said": "no", "at": 98127364551003}),
        (r'{"said": "no\n"}', {"said": "no\n"}),
    ],
)
def test_parsed_answers_hold_no_secret_however_it_was_spelled(text: str, parsed: object) -> None:
    remember_secret("sk/very-secret")
    remember_secret("98127364551")  # digits in a number are no secret, and without them it would be no number
    assert parse_redacted(text) == parsed


def test_what_fails_again_by_an_error_of_the_engine_stays_as_it_is_stored(
    store: AnswerStore, caplog: pytest.LogCaptureFixture
) -> None:
    list(CachedEngine(Counting(lambda _: Reply(error="status 500")), store).run(numbered(0, 1, 2)))

    def refuse(_: Request) -> str:
        raise EngineError("no answer from anywhere")

    inner = Counting(refuse)
    replies = list(CachedEngine(inner, store, retry_failed=True).run(numbered(0, 1, 2)))
    assert [reply.error for reply in replies] == ["status 500"] * 3
    assert len(inner.asked) == 3
    assert len(list(store.rows())) == 3
    (warned,) = [record.getMessage() for record in caplog.records]
    assert "no answer from anywhere" in warned
    # What never failed before has nothing to fall back on, and the claims of the others are free again.
    with pytest.raises(EngineError, match="no answer from anywhere"):
        list(CachedEngine(inner, store, retry_failed=True).run(numbered(3)))
    mended = list(CachedEngine(Counting(said), store, retry_failed=True).run(numbered(0, 1, 2, 3)))
    assert [reply.text for reply in mended] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", [BudgetError, RunStoppedError])
def test_a_spent_budget_or_a_stop_ends_the_asking_again(store: AnswerStore, kind: type[Exception]) -> None:
    list(CachedEngine(Counting(lambda _: Reply(error="status 500")), store).run(numbered(0)))

    def end(_: Request) -> str:
        raise kind("the end")

    with pytest.raises(kind, match="the end"):
        list(CachedEngine(Counting(end), store, retry_failed=True).run(numbered(0)))
