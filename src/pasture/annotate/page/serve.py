"""Opens a campaign to browsers: where it listens, which addresses are its own, and the server that does it."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pasture.annotate.campaign.desk import Desk
from pasture.annotate.page.gate import Policy
from pasture.annotate.page.owner import Standing
from pasture.annotate.page.server import application
from pasture.core.errors import RecipeError

PORT = 8400
HEADER_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 20
_MOST_CONNECTIONS = 1000
_LONGEST_HEADERS_BYTES = 32 * 1024
_GOODBYE_SECONDS = 10


@dataclass(frozen=True)
class Place:
    """Where the page is served."""

    host: str = "127.0.0.1"
    port: int = PORT
    """0 takes one that is free."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    proxy_origin: str | None = None
    """What people type where a proxy with TLS stands before the page, such as https://label.example.org."""
    address: str | None = None
    """What people type where that is not host and port, such as https://label.example.org:8400."""
    trusted_proxy: str = "127.0.0.1"
    """The proxy's own address, whose word about clients is believed."""

    def check(self) -> None:
        """See that nobody can listen in.

        Raises:
            RecipeError: if the page would be open to a network without TLS, or the settings do not go together.
        """
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise RecipeError("TLS needs both --tls-cert and --tls-key.")
        for option, origin in (("--proxy", self.proxy_origin), ("--address", self.address)):
            if origin is not None and not _is_https_origin(origin):
                raise RecipeError(f"{option}: expected an address such as https://label.example.org, got {origin!r}.")
        if self.proxy_origin is not None:
            if self.tls_certificate is not None:
                raise RecipeError(
                    "expected either --proxy, which speaks TLS for the page, or --tls-cert and --tls-key."
                )
        elif not self._is_loopback() and self.tls_certificate is None:
            raise RecipeError(
                f"--host {self.host} would send answers and links over the network in the clear. Give --tls-cert and "
                "--tls-key, or --proxy https://… where a proxy with TLS stands before the page."
            )
        elif self.host in ("0.0.0.0", "::") and self.address is None:  # noqa: S104 - compared, not bound
            raise RecipeError(f"--host {self.host} is no address that people type: give theirs, --address https://….")

    def origins(self, port: int) -> tuple[str, ...]:
        """The addresses that are the page's own; links use the first."""
        stated = self.proxy_origin or self.address
        if stated is not None:
            return (stated.rstrip("/").lower(),)
        scheme = "http" if self.tls_certificate is None else "https"
        standard = 80 if scheme == "http" else 443
        names = ["127.0.0.1", "localhost"] if self.host == "127.0.0.1" else [self.host.lower()]
        bracketed = [f"[{name}]" if ":" in name else name for name in names]
        return tuple(f"{scheme}://{name}" + ("" if port == standard else f":{port}") for name in bracketed)

    def _is_loopback(self) -> bool:
        with contextlib.suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"


def _is_https_origin(text: str) -> bool:
    split = urlsplit(text)
    return split.scheme == "https" and bool(split.netloc) and split.path in ("", "/") and not split.query


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that waits for the head of a request for some seconds and no longer."""

    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait on, or stop waiting."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        if self._too_slow is not None:
            self._too_slow.cancel()

    def _watch(self) -> None:
        if self.conn.their_state is h11.IDLE:
            if self._too_slow is None:
                self._too_slow = self.loop.call_later(HEADER_SECONDS, self._give_up)
        elif self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _give_up(self) -> None:
        self._too_slow = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def serve(
    desk: Desk, place: Place, policy: Policy, standing: Standing, announce: Callable[[tuple[str, ...]], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM; `announce` is told the page's addresses once it can be reached.

    The origins of `policy` are filled in here, when the port is known.

    Raises:
        RecipeError: if the place is not safe, its certificate cannot be used, or it cannot be listened at.
    """
    with contextlib.closing(listening_at(place)) as listening:
        origins = place.origins(listening.getsockname()[1])
        server = made_server(application(desk, replace(policy, origins=origins), standing), place)
        with _ended_by_signal(server):
            announce(origins)
            asyncio.run(server.serve(sockets=[listening]))


def made_server(app: ASGIApp, place: Place) -> uvicorn.Server:
    """The server of `app`, which leaves signals to whoever runs it.

    Raises:
        RecipeError: if the certificate or its key cannot be used; names the file.
    """
    proxied = place.proxy_origin is not None
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,  # the first request of each annotator has a token in its path
        log_level="critical",
        server_header=False,
        proxy_headers=proxied,
        forwarded_allow_ips=place.trusted_proxy if proxied else None,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        h11_max_incomplete_event_size=_LONGEST_HEADERS_BYTES,
        ssl_certfile=place.tls_certificate,
        ssl_keyfile=place.tls_key,
    )
    _load(config, place)
    return _Quiet(config)


def _load(config: uvicorn.Config, place: Place) -> None:
    """Read the certificate now: uvicorn would only once the links are out, and leave with a traceback."""
    files = {"--tls-cert": place.tls_certificate, "--tls-key": place.tls_key}
    for option, path in files.items():
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise RecipeError(
                f"{option} {path}: {error.strerror or error}. Name a PEM file that can be read; no link was made."
            ) from error
    try:
        config.load()
    except ssl.SSLError as error:
        raise RecipeError(
            f"--tls-cert {place.tls_certificate}, --tls-key {place.tls_key}: no certificate with its own key, both PEM "
            f"({error.reason or error}). Name the two files that belong together; no link was made."
        ) from error


class _Quiet(uvicorn.Server):
    """Ends at a signal without raising it again: whoever serves has more to close."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing; see `_ended_by_signal`."""
        yield


@contextlib.contextmanager
def _ended_by_signal(server: uvicorn.Server) -> Iterator[None]:
    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listening_at(place: Place) -> socket.socket:
    """A socket that takes connections at `place`.

    Raises:
        RecipeError: if there can be none.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    # With its protocol named, asyncio turns Nagle's algorithm off: else a page could wait 40 ms for the end of itself.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((place.host, place.port))
        made.listen(1024)
    except OSError as error:
        made.close()
        raise RecipeError(
            f"cannot listen at {place.host}:{place.port}: {error.strerror or error}. Choose another --port."
        ) from error
    return made
