"""One service address: one client and one pool of connections for the whole run, answers of bounded size."""

import asyncio
import time
import weakref
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import openai
import yarl

from pasture.core.redaction import parse_redacted, redact, redact_all
from pasture.core.requests import Reply, Request
from pasture.engines import wire
from pasture.engines.keys import key_in_environment
from pasture.engines.pace import Places
from pasture.engines.settings import Address
from pasture.engines.wire import Capabilities, Refusal

RETRIED = frozenset({408, 409, 425, 429})
"""And every 5xx."""
_UNSENT_HEADERS = (
    "X-Stainless-Lang",
    "X-Stainless-Package-Version",
    "X-Stainless-OS",
    "X-Stainless-Arch",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
    "X-Stainless-Async",
)
"""What client libraries tell of the machine they run on; no service needs it."""
MOST_BYTES = 32 * 2**20
"""Of one answer, unpacked; a thousand times what a judge says."""


@dataclass(frozen=True)
class Dialect:
    """How one family of services is spoken to; its client library is of the same make for all that are here."""

    name: str
    home_url: str
    """The service itself; an address other than this needs no key unless one is named."""
    home_key_env: str
    new_client: Callable[..., Any]
    """Of `api_key`, `base_url`, `timeout`, `max_retries`, `default_headers` and `http_client`."""
    omit: Callable[[], Any]
    """What that client takes for a header that is not to be sent."""
    status_error: type[Exception]
    timeout_error: type[Exception]
    connection_error: type[Exception]
    route: Callable[[Request], str]
    body_of: Callable[[Request, Capabilities, Mapping[int, float] | None], dict[str, Any]]
    reply_of: Callable[[Mapping[str, Any]], Reply]


OPENAI = Dialect(
    name="api",
    home_url="https://api.openai.com/v1",
    home_key_env="OPENAI_API_KEY",
    new_client=openai.AsyncOpenAI,
    omit=openai.Omit,
    status_error=openai.APIStatusError,
    timeout_error=openai.APITimeoutError,
    connection_error=openai.APIConnectionError,
    route=wire.route,
    body_of=wire.body_of,
    reply_of=wire.reply_of,
)


class TransientError(Exception):
    """A call that may go well another time."""

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        throttled: bool = False,
        perhaps_billed: bool = False,
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds that the service asks to be left alone."""
        self.throttled = throttled
        self.perhaps_billed = perhaps_billed


class RefusedError(Exception):
    """A call that the service will not answer in this form."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Endpoint:
    """A base address with its key, its client and its places."""

    def __init__(
        self,
        dialect: Dialect,
        address: Address,
        places: Places,
        timeout_seconds: float,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """The key is read here, so that a missing one is told before anything is sent.

        Raises:
            EngineError: naming the environment variable that is not set.
        """
        self.base_url = (address.base_url or dialect.home_url).rstrip("/")
        self.places = places
        self._dialect = dialect
        self._timeout_seconds = timeout_seconds
        self._most_bytes = most_bytes
        self._key = _read_key(dialect, self.base_url, address.api_key_env)
        self._client: Any = None

    @property
    def was_used(self) -> bool:
        """Whether it has a client, and so perhaps connections."""
        return self._client is not None

    def client(self) -> Any:
        """The one client, made on first use; for the engines' loop only."""
        if self._client is None:
            transport = BoundedTransport(self._timeout_seconds, self._most_bytes)
            self._client = self._dialect.new_client(
                api_key=self._key,
                base_url=self.base_url,
                max_retries=0,
                timeout=self._timeout_seconds,
                default_headers=dict.fromkeys(_UNSENT_HEADERS, self._dialect.omit()),
                http_client=httpx2.AsyncClient(transport=transport, headers={"accept-encoding": "identity"}),
            )
            weakref.finalize(self, _close, transport, asyncio.get_running_loop())
        return self._client

    async def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The JSON object that the service answers.

        The raw response is read here: building the client's typed objects costs a third of its time.

        Raises:
            TransientError: if trying again may help.
            RefusedError: if it will not.
        """
        dialect = self._dialect
        try:
            url = path if "://" in path else self.base_url + path  # whole, it is parsed once less by the client
            response = await self.client().post(url, cast_to=httpx2.Response, body=dict(body))
        except dialect.status_error as error:
            raise _by_status(error.status_code, error.body, error.response.headers) from None  # type: ignore[attr-defined]
        except dialect.timeout_error:
            reason = f"no answer within {self._timeout_seconds:g} s"
            raise TransientError(reason, throttled=True, perhaps_billed=True) from None
        except dialect.connection_error as error:
            sent = not isinstance(error.__cause__, httpx2.ConnectError)
            reason = redact(f"connection to {self.base_url} failed: {error.__cause__ or error}")
            raise TransientError(reason, perhaps_billed=sent) from None
        return _object_in(response)

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


def _read_key(dialect: Dialect, base_url: str, api_key_env: str | None) -> str:
    """The key in the named environment variable; a placeholder where none is named and the server is one's own."""
    if api_key_env is None:
        if base_url != dialect.home_url:
            return "none"
        api_key_env = dialect.home_key_env
    return key_in_environment(api_key_env, base_url, "api_key_env")


def _object_in(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        answer = parse_redacted(response.content.decode("utf-8", "replace"))
    except ValueError:
        kind = response.headers.get("content-type", "no type")
        raise TransientError(
            f"expected JSON, got {len(response.content)} bytes of {kind}", perhaps_billed=True
        ) from None
    if not isinstance(answer, Mapping):
        raise TransientError(f"expected a JSON object, got {type(answer).__name__}", perhaps_billed=True)
    error = answer.get("error")
    if error:  # proxies report what went wrong behind them with status 200
        code = error.get("code") if isinstance(error, Mapping) else None
        raise _by_status(int(str(code)) if str(code).isdigit() else 500, answer, response.headers)
    return answer


def _by_status(status: int, body: object, headers: Mapping[str, str]) -> TransientError | RefusedError:
    refusal = Refusal.of(status, redact_all(body))
    if refusal.code == "insufficient_quota" or refusal.malformed or (status not in RETRIED and status < 500):
        return RefusedError(refusal)
    reason = f"status {status}: {refusal.message[:300]}"
    return TransientError(reason, retry_after=_retry_after(headers), throttled=status in (429, 503, 529))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds by Retry-After, in either of its forms, or by its extension in milliseconds."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _close(transport: "BoundedTransport", loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(transport.aclose(), loop)


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Carries the client's requests over aiohttp, whose parser and pool cost half of httpx2's own at 50 in flight.

    An answer is unpacked here and cut off at `most_bytes`, whatever its packing claims. Redirects are not followed,
    since the key would travel with them. Of the environment the proxies alone are heeded: aiohttp's own
    `trust_env` would send the login in ~/.netrc as well, which is no key that anybody named.
    """

    def __init__(self, timeout_seconds: float, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The whole answer, in memory."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy_for(str(request.url)),
            )
        try:
            async with self._session.request(
                request.method,
                yarl.URL(str(request.url), encoded=True),
                data=await request.aread(),
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
                allow_redirects=False,
            ) as answer:
                body = await _read_bounded(answer, self._most_bytes)
                kept = [(name, value) for name, value in answer.raw_headers if name.lower() not in _HOP_HEADERS]
                return httpx2.Response(answer.status, headers=kept, content=body, request=request)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("timed out") from error
        except aiohttp.InvalidURL:  # its text is the whole address, so perhaps a password of the proxy
            raise httpx2.ConnectError("its address, or the proxy that the environment names, is none") from None
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(str(error)) from error
        except (aiohttp.ClientError, zlib.error, OSError) as error:
            raise httpx2.ReadError(f"{type(error).__name__}: {error}") from error

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


_HOP_HEADERS = {b"content-encoding", b"content-length", b"transfer-encoding", b"connection"}
_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment, or the system, names for `url`; None where it is reached without."""
    address = urlsplit(url)
    host = address.hostname or ""
    if host in _THIS_MACHINE or proxy_bypass(host) or proxy_bypass(address.netloc):
        return None
    proxy = getproxies().get(address.scheme)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


async def _read_bounded(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    encoding = answer.headers.get("content-encoding", "identity").lower()
    unpack = None
    if encoding in ("gzip", "deflate"):
        unpack = zlib.decompressobj(wbits=47)  # either of the two, told by its head
    elif encoding != "identity":
        raise httpx2.DecodingError(f"answer packed as {encoding!r}, which was not asked for")
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        part = chunk if unpack is None else unpack.decompress(chunk, most_bytes + 1 - size)
        size += len(part)
        if size > most_bytes:
            raise httpx2.DecodingError(f"answer of more than {most_bytes // 2**20} MiB")
        parts.append(part)
    return b"".join(parts)
