"""What of its surroundings a call to a service heeds: the proxies, and no login but the key that was named."""

import asyncio
import base64
import json
import os
import threading
from collections.abc import Iterator
from email.message import Message as Headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pasture.core.errors import EngineError
from pasture.core.requests import Reply
from pasture.engines import open_engine
from pasture.engines.api import ApiEngine
from pasture.engines.endpoint import MOST_BYTES, BoundedTransport
from tests.engines.conftest import KEY_ENV, ask

CHAT = {"model": "judge", "choices": [{"message": {"role": "assistant", "content": "m"}, "finish_reason": "stop"}]}
MESSAGE = {
    "model": "judge",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "m"}],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
KEY = "sk-named-8c1f"
DEAD = "http://127.0.0.1:9"
ELSEWHERE = "0.0.0.0"  # noqa: S104 - a way to loopback that looks like another machine; nothing is bound to it


class Listener(ThreadingHTTPServer):
    """Answers every call, and keeps where it was sent and with which headers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Headers]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def elsewhere(self) -> str:
        """Its address by a name that is not taken for this machine."""
        return f"http://{ELSEWHERE}:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append((self.path, self.headers))
        body = json.dumps(MESSAGE if self.path.endswith("/messages") else CHAT).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002 - the name is the base class's
        pass


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv(KEY_ENV, KEY)
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def one(kind: Any, base_url: str, **address: str) -> Reply:
    settings = {"endpoints": [{"base_url": base_url, **address}], "max_attempts": 1}
    engine = open_engine(kind, settings)
    assert isinstance(engine, ApiEngine)
    with engine:
        return next(iter(engine.run([ask("hello")])))


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a login for every host."""
    file = tmp_path / "netrc"
    file.write_text("default login someone password a-word-of-theirs\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("kind", ["api", "anthropic"])
def test_a_server_without_a_key_is_not_sent_the_login_in_netrc(listener: Listener, kind: str) -> None:
    pytest.importorskip("anthropic" if kind == "anthropic" else "openai")
    assert one(kind, f"{listener.elsewhere}/v1").text == "m"
    ((_, headers),) = listener.calls
    assert headers["authorization"] == "Bearer none"  # the placeholder of both clients, which send no request without


@pytest.mark.usefixtures("netrc")
def test_a_call_without_any_login_is_not_given_the_one_in_netrc(listener: Listener) -> None:
    async def carried() -> httpx2.Response:
        transport = BoundedTransport(10.0, MOST_BYTES)
        try:
            url = f"{listener.elsewhere}/v1/chat/completions"
            return await transport.handle_async_request(httpx2.Request("POST", url, json={}))
        finally:
            await transport.aclose()

    assert asyncio.run(carried()).status_code == 200
    ((_, headers),) = listener.calls
    assert "authorization" not in headers


@pytest.mark.usefixtures("netrc")
def test_a_key_is_sent_whatever_netrc_holds(listener: Listener) -> None:
    assert one("api", f"{listener.elsewhere}/v1", api_key_env=KEY_ENV).text == "m"
    ((_, headers),) = listener.calls
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_proxy_of_the_environment_carries_the_call(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}someone:word@127.0.0.1:{listener.port}")
    assert one("api", "http://judge.invalid/v1", api_key_env=KEY_ENV).text == "m"
    ((path, headers),) = listener.calls
    assert path == "http://judge.invalid/v1/chat/completions"  # what a proxy is asked for is a whole address
    assert headers["proxy-authorization"] == f"Basic {base64.b64encode(b'someone:word').decode()}"
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("spared", ["{host}", "{host}:{port}", "*"])
def test_a_host_that_the_environment_spares_is_reached_without_the_proxy(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, spared: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", spared.format(host=ELSEWHERE, port=listener.port))
    assert one("api", f"{listener.elsewhere}/v1").text == "m"


def test_this_machine_is_reached_without_the_proxy(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    assert one("api", f"http://127.0.0.1:{listener.port}/v1").text == "m"


def test_a_proxy_that_is_no_address_is_told_without_its_password(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://someone:word@127.0.0.1:port")
    with pytest.raises(EngineError, match="the proxy that the environment names") as caught:
        one("api", f"{listener.elsewhere}/v1")
    assert "word" not in str(caught.value)
