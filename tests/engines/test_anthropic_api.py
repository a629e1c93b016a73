"""Anthropic's protocol, through its own client, against the fake server."""

from collections.abc import Iterator

import pytest

from pasture.core.errors import EngineError
from pasture.core.requests import Message
from pasture.engines.anthropic_api import anthropic_engine
from pasture.engines.api import ApiEngine
from pasture.engines.settings import Address, ApiSettings
from tests.engines.conftest import KEY_ENV, ask
from tests.engines.fake_server import FakeServer


@pytest.fixture
def engine(server: FakeServer) -> Iterator[ApiEngine]:
    address = Address(base_url=server.origin, api_key_env=KEY_ENV)
    price = {"input_per_million": 3.0, "cached_input_per_million": 0.3, "output_per_million": 15.0}
    settings = ApiSettings.model_validate({"endpoints": (address,), "price": price})
    with anthropic_engine(settings) as opened:
        yield opened


def test_a_system_message_goes_beside_the_turns_and_cached_tokens_have_their_own_price(engine: ApiEngine) -> None:
    messages = (Message(role="system", content=" as a judge"), Message(role="user", content="hello"))
    (reply,) = engine.run([ask("", messages=messages)])
    assert reply.text in {"m as a judge", "M as a judge"}
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.cached_input_tokens) == (40, 30)
    # By hand: 10 fresh at 3, 30 cached at 0.3 and 2 new at 15 dollars a million.
    assert reply.cost_usd == pytest.approx((10 * 3 + 30 * 0.3 + 2 * 15) / 1e6)


def test_failures_are_those_of_any_service(engine: ApiEngine, server: FakeServer) -> None:
    server.behave(faults={"529": 1}, retry_after="0")
    (reply,) = engine.run([ask("hello")])
    assert reply.attempts == 2
    server.behave(refuses=("temperature", "output_config"))
    (reply,) = engine.run([ask("hello", temperature=0.0, json_schema={"type": "object"})])
    assert not reply.failed
    assert server.counts()["requests"] == 3


def test_what_the_service_cannot_do_is_refused(engine: ApiEngine) -> None:
    with pytest.raises(EngineError, match="wants max_completion_tokens"):
        list(engine.run([ask("hello", max_completion_tokens=None)]))
