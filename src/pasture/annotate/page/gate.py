"""The door of the page: every request passes it, and what is not plainly one of our own pages' is turned away.

It knows nothing of campaigns. It holds requests to one known Host, writes to our own origin, bodies to a size and a
time, clients to a rate; and it gives every answer the headers that keep browsers to their pages.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from markupsafe import escape
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pasture.annotate.page.buckets import Buckets

FORM = "application/x-www-form-urlencoded"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Labelling</title></head>
<body><main><p>{}</p></main></body></html>
"""
"""What is refused is told without the style sheet, which is refused as well."""


@dataclass(frozen=True)
class Policy:
    """Who may ask, how much and how fast."""

    origins: Sequence[str]
    """Addresses at which people open the page, such as http://127.0.0.1:8400; no other Host is answered."""
    most_header_bytes: int = 16 * 1024
    most_body_bytes: int = 32 * 1024
    body_seconds: float = 10.0
    requests_per_second: float = 300.0
    """By client address; a class may share one."""
    guesses: int = 20
    """Wrong links or sessions by client address before it has to wait, and then one for each 5 seconds."""
    votes_per_second: float = 10.0
    """By annotator."""

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by TLS."""
        return all(origin.startswith("https://") for origin in self.origins)

    def origin_of(self, host: str) -> str | None:
        """The address at which a Host is ours; None where it is not."""
        return next((origin for origin in self.origins if urlsplit(origin).netloc == host), None)


@dataclass(frozen=True)
class _Refusal:
    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Gate:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy
        self._rates = Buckets(policy.requests_per_second, 4 * policy.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket that is closed before it is accepted is refused by a 403
            await send({"type": "websocket.close", "code": 1008})
            return
        guarded = self._with_headers(send)
        refusal = self._refusal(scope)
        body = b""
        if refusal is None and scope["method"] == "POST":
            taken = await self._body(receive)
            if isinstance(taken, _Refusal):
                refusal = taken
            else:
                body = taken
        if refusal is not None:
            # The rest of the body is not read: the connection cannot be used again.
            headers = {**refusal.headers, "connection": "close"}
            await HTMLResponse(_PAGE.format(escape(refusal.reason)), refusal.status, headers)(scope, receive, guarded)
            return
        await self._app(scope, _given(body, receive), guarded)

    def _refusal(self, scope: Scope) -> _Refusal | None:
        headers = _Headers(scope)
        host = headers.only("host")
        if host is None or self._policy.origin_of(host) is None:
            return _Refusal(400, "This address is not served here. Use the link that you were given.")
        if headers.size > self._policy.most_header_bytes:
            return _Refusal(431, f"Expected at most {self._policy.most_header_bytes} bytes of headers.")
        if headers.all("content-length") and headers.all("transfer-encoding"):
            return _Refusal(400, "Two lengths of one body.")  # proxies and servers read such requests differently
        client = scope.get("client")
        if not self._rates.take(client[0] if client else ""):
            return _Refusal(429, "Too many requests. Wait a moment.", {"retry-after": "1"})
        if scope["method"] in ("GET", "HEAD"):
            carries = headers.all("content-length") not in ([], ["0"]) or headers.all("transfer-encoding")
            return _Refusal(400, "A page is asked for without a body.") if carries else None
        if scope["method"] != "POST":
            return _Refusal(405, "Only pages and forms are served.", {"allow": "GET, HEAD, POST"})
        return self._write_refusal(headers, host)

    def _write_refusal(self, headers: "_Headers", host: str) -> _Refusal | None:
        if headers.only("origin") != self._policy.origin_of(host):
            return _Refusal(403, "This form was not sent from one of our own pages. Open your link again.")
        if headers.all("sec-fetch-site") not in ([], ["same-origin"]):
            return _Refusal(403, "This form was not sent from one of our own pages. Open your link again.")
        kind = headers.only("content-type") or ""
        if kind.partition(";")[0].strip().lower() != FORM:
            return _Refusal(415, "Expected a form.")
        length = headers.only("content-length")
        if length is not None and (not length.isdigit() or int(length[:18]) > self._policy.most_body_bytes):
            return _Refusal(413, f"Expected at most {self._policy.most_body_bytes} bytes.")
        return None

    async def _body(self, receive: Receive) -> bytes | _Refusal:
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._policy.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _Refusal(400, "The form broke off.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._policy.most_body_bytes:
                        return _Refusal(413, f"Expected at most {self._policy.most_body_bytes} bytes.")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return _Refusal(408, "The form came too slowly.")

    def _with_headers(self, send: Send) -> Send:
        added = [(name.encode(), value.encode()) for name, value in self._headers().items()]

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", [])
                names = {name.lower() for name, _ in own}
                message["headers"] = [*own, *((name, value) for name, value in added if name not in names)]
            await send(message)

        return guarded

    def _headers(self) -> Mapping[str, str]:
        headers = {
            "content-security-policy": (
                "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
                "frame-ancestors 'none'"
            ),
            "x-frame-options": "DENY",
            "x-content-type-options": "nosniff",
            # Not no-referrer: browsers would then send "Origin: null" with our own forms.
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
            "cache-control": "no-store",
            "x-robots-tag": "noindex",
        }
        if self._policy.is_secure:
            headers["strict-transport-security"] = "max-age=31536000"
        return headers


class _Headers:
    """A request's headers, repeated ones told apart from single ones."""

    def __init__(self, scope: Scope) -> None:
        self._pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]

    @property
    def size(self) -> int:
        return sum(len(name) + len(value) for name, value in self._pairs)

    def all(self, name: str) -> list[str]:
        return [value for other, value in self._pairs if other == name]

    def only(self, name: str) -> str | None:
        """The value of a header that is there once; None where it is missing or doubled."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None


def _given(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out what was read already."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
