"""A campaign served in this process, and a client that sends exactly the bytes it is told to."""

import asyncio
import contextlib
import html
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.desk import Desk, begin
from pasture.annotate.campaign.events import OWNER, Event, Voted
from pasture.annotate.campaign.journal import SqliteJournal
from pasture.annotate.campaign.tokens import new_token
from pasture.annotate.page.gate import Policy
from pasture.annotate.page.serve import Place, listening_at, made_server
from pasture.annotate.page.server import application
from pasture.steps.people import agreement


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str | None:
        return next((value for other, value in self.headers if other == name), None)


@dataclass
class Served:
    """A running server and the tokens of everyone in its campaign."""

    origin: str
    desk: Desk
    tokens: Mapping[str, str]
    port: int = 0
    """0 where it is that of the origin."""
    tls: ssl.SSLContext | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.origin).netloc

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        host: Sequence[str] | None = None,
    ) -> Reply:
        """Send one request as it stands; `host` lists the Host headers, the right one where it is None."""
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"Host: {name}" for name in ([self.host] if host is None else host)]
        lines += [f"{name}: {value}" for name, value in headers]
        if body and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
            lines.append(f"Content-Length: {len(body)}")
        lines.append("Connection: close")
        return self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def send(self, raw: bytes) -> Reply:
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
            return read_reply(connection)

    def connect(self) -> socket.socket:
        port = self.port or int(self.host.rsplit(":", 1)[1])
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        return self.tls.wrap_socket(connection) if self.tls else connection

    def person(self, name: str) -> "Person":
        return Person(self, self.enter(self.tokens[name]))

    def enter(self, token: str) -> str:
        """The cookie, name and value, that a link gives."""
        cookie = self.ask(f"/enter/{token}").header("set-cookie")
        assert cookie is not None
        return cookie.partition(";")[0]


@dataclass
class Person:
    """Someone with a cookie, who sends forms as a browser does."""

    server: Served
    cookie: str
    page: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def get(self, path: str = "/pair") -> Reply:
        reply = self.server.ask(path, headers=[("Cookie", self.cookie)])
        self.page = reply.text
        form = re.search(r'<form method="post" action="/vote".*?</form>', self.page, re.DOTALL)
        # Without a pair on the page, the form token of any form will do.
        self.fields = hidden_fields(form[0] if form else self.page)
        return reply

    def post(self, path: str, fields: Mapping[str, str], *more: tuple[str, str]) -> Reply:
        headers = [("Cookie", self.cookie), *self.form_headers(), *more]
        return self.server.ask(path, "POST", urlencode(fields).encode(), headers)

    def form_headers(self) -> list[tuple[str, str]]:
        return [("Origin", self.server.origin), ("Content-Type", "application/x-www-form-urlencoded")]

    def vote(self, said: str = "first", **more: str) -> Reply:
        """Answer the pair of the page that was got last."""
        return self.post("/vote", {**self.fields, "said": said, **more})


def votes_of(server: Served, name: str) -> Sequence[Voted]:
    """An annotator's standing answers."""
    return server.desk.look(lambda campaign: list(campaign.annotators[name].votes.values())).result()


def hidden_fields(page: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


def read_reply(connection: socket.socket) -> Reply:
    raw = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1.1 "), raw[:200]
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    reply = Reply(int(first.split()[1]), pairs, body)
    length = reply.header("content-length")
    assert length is None or len(body) == int(length), "half a reply"
    return reply


@contextlib.contextmanager
def served(
    folder: Path, events: Sequence[Event], policy: Policy | None = None, place: Place | None = None
) -> Iterator[Served]:
    """The campaign that `events` begin, served until the block ends; everyone is invited."""
    journal = SqliteJournal(folder / "served.campaign", create=True)
    begin(journal, events)
    with Desk(journal) as desk, running(desk, policy, place or Place(port=0)) as (origin, port):
        tokens = {}
        for name in [OWNER, *desk.look(lambda campaign: list(campaign.annotators)).result()]:
            tokens[name] = invited(desk, name)
        yield Served(origin, desk, tokens, port)


def invited(desk: Desk, name: str) -> str:
    token = new_token()
    desk.act(lambda campaign: acts.invite(campaign, name, token), lambda _: None).result()
    return token


@contextlib.contextmanager
def running(desk: Desk, policy: Policy | None, place: Place) -> Iterator[tuple[str, int]]:
    """The address that people type, and the port that is listened at."""
    with contextlib.closing(listening_at(place)) as listening:
        origins = place.origins(listening.getsockname()[1])
        server = made_server(application(desk, replace(policy or Policy(()), origins=origins), agreement), place)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        try:
            yield origins[0], listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
