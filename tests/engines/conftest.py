"""One fake server for all tests of a worker; each test begins with an empty ledger and good behaviour."""

from collections.abc import Callable, Iterator

import pytest

from pasture.core import store as store_module
from pasture.core.requests import Message, Request
from pasture.engines.api import ApiEngine
from pasture.engines.budget import Budget
from pasture.engines.settings import Address, ApiSettings
from tests.engines.fake_server import KEY, FakeServer

KEY_ENV = "PASTURE_TEST_KEY"


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with FakeServer(tmp_path_factory.mktemp("server") / "ledger.jsonl") as server:
        yield server


@pytest.fixture
def server(running_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    running_server.ledger.unlink(missing_ok=True)
    running_server.behave()
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setattr(store_module, "RESERVE_BYTES", 2**18)
    return running_server


@pytest.fixture
def open_api(server: FakeServer) -> Iterator[Callable[..., ApiEngine]]:
    opened: list[ApiEngine] = []

    def open_one(*, budget: Budget | None = None, **settings: object) -> ApiEngine:
        endpoint = Address(base_url=server.base_url, api_key_env=KEY_ENV)
        engine = ApiEngine(ApiSettings.model_validate({"endpoints": (endpoint,), **settings}), budget=budget)
        opened.append(engine)
        return engine

    yield open_one
    for engine in opened:
        engine.close()


def ask(text: str, **fields: object) -> Request:
    """A request that says `text`."""
    message = Message(role="user", content=text)
    return Request.model_validate({"model": "judge", "messages": (message,), "max_completion_tokens": 8, **fields})
