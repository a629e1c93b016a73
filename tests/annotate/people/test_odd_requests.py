"""Requests that no browser sends: what proxies and servers read in two ways is refused, the rest means one thing."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from pasture.annotate.campaign.state import Campaign
from pasture.annotate.page.gate import Policy
from tests.annotate.people.campaigns import opening_events
from tests.annotate.people.served import Person, Reply, Served, served

END = "\r\nConnection: close\r\n\r\n"


def version(campaign: Campaign) -> int:
    return campaign.version


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all of these, as none of them may change anything."""
    policy = Policy((), guesses=10_000)
    with served(
        tmp_path_factory.mktemp("people"), opening_events(6, ["ann", "ben"], overlap=2, guidelines="x"), policy
    ) as running:
        yield running


@pytest.fixture(scope="module")
def ann(server: Served) -> Person:
    person = server.person("ann")
    person.get()
    return person


@pytest.fixture(autouse=True)
def nothing_happens(server: Served) -> Iterator[None]:
    before = server.desk.look(version).result()
    yield
    assert server.desk.look(version).result() == before


def get(ann: Person, target: str, *lines: str, host: str | None = None, method: str = "GET") -> Reply:
    head = [f"{method} {target} HTTP/1.1", f"Host: {ann.server.host if host is None else host}"]
    return ann.server.send("\r\n".join([*head, f"Cookie: {ann.cookie}", *lines]).encode("utf-8") + END.encode())


def post(ann: Person, *lines: str, body: str = "") -> Reply:
    """A vote that would count, but for `lines`, which say how long it is."""
    head = ["POST /vote HTTP/1.1", f"Host: {ann.server.host}", f"Cookie: {ann.cookie}"]
    head += [f"{name}: {value}" for name, value in ann.form_headers()]
    return ann.server.send(("\r\n".join([*head, *lines]) + END + body).encode("latin-1"))


def a_vote(ann: Person) -> str:
    return urlencode({**ann.fields, "said": "first"})


@pytest.mark.parametrize(
    "line",
    [
        "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked", "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ],
)  # fmt: skip
def test_lengths_that_can_be_read_in_two_ways(ann: Person, line: str) -> None:
    body = a_vote(ann)
    assert post(ann, line, body=f"{len(body):x}\r\n{body}\r\n0\r\n\r\n").status == 400


@pytest.mark.parametrize("length", ["+{0}", "-1", "0x1F", "{0}\r\nContent-Length: 3", "1_0", "{0}, 3", ""])
def test_lengths_that_are_no_numbers_or_two(ann: Person, length: str) -> None:
    body = a_vote(ann)
    assert post(ann, f"Content-Length: {length.format(len(body))}", body=body).status == 400


@pytest.mark.parametrize("line", ["X-A: a\x00b", "X-A: a\rSet-Cookie: x=1", "X A: b", ": b", "X-A"])
def test_headers_with_what_no_header_holds(ann: Person, line: str) -> None:
    assert get(ann, "/pair", line).status == 400


def test_a_page_is_asked_for_without_a_body(ann: Person) -> None:
    assert get(ann, "/pair", "Content-Length: 5").status == 400
    assert get(ann, "/pair", "Transfer-Encoding: chunked").status == 400


@pytest.mark.parametrize("target", ["http://evil.example/pair", "http://{host}/pair", "{host}", "evil.example:80"])
def test_a_target_that_names_a_host_is_none_of_our_pages(ann: Person, target: str) -> None:
    reply = get(ann, target.format(host=ann.server.host))
    assert reply.status in (400, 404)
    assert "evil" not in reply.text + str(reply.headers)


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff12\uff17.0.0.1:{port}", "\u2460\u2461\u2466.0.0.1:{port}", "xn--ls8h.example", "LOCALHOST:{port}",
        "x@127.0.0.1:{port}", "127.0.0.1:{port}/x", "127.1:{port}", "0x7f.1:{port}", "2130706433:{port}",
        "[::ffff:127.0.0.1]:{port}", "127.0.0.1:0{port}", "127.0.0.1:{port},evil.example", "evil#127.0.0.1:{port}",
    ],
)  # fmt: skip
def test_other_spellings_of_our_host(ann: Person, host: str) -> None:
    port = ann.server.host.rsplit(":", 1)[1]
    assert get(ann, "/pair", host=host.format(port=port)).status == 400


def test_an_old_protocol_without_a_host(ann: Person) -> None:
    assert ann.server.send(f"GET /pair HTTP/1.0\r\nCookie: {ann.cookie}{END}".encode()).status == 400


def test_two_sessions_in_one_request_are_nobodys(ann: Person) -> None:
    name, _, value = ann.cookie.partition("=")
    ben = ann.server.person("ben").cookie
    for sent in (f"{name}=x; {name}={value}", f"{ann.cookie}; {ben}", f"{ann.cookie}\r\nCookie: {ben}"):
        raw = f"GET /pair HTTP/1.1\r\nHost: {ann.server.host}\r\nCookie: {sent}{END}"
        assert ann.server.send(raw.encode()).status == 401
    assert ann.server.ask("/pair", headers=[("Cookie", f"other=1; {ann.cookie}; {name}x=2")]).status == 200


def test_a_head_tells_no_more_than_a_get_and_writes_as_little(ann: Person) -> None:
    with ann.server.connect() as connection:
        connection.sendall(f"HEAD /pair HTTP/1.1\r\nHost: {ann.server.host}\r\nCookie: {ann.cookie}{END}".encode())
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    assert raw.startswith(b"HTTP/1.1 200")
    assert raw.endswith(b"\r\n\r\n")
    with ann.server.connect() as connection:
        connection.sendall(f"HEAD /vote HTTP/1.1\r\nHost: {ann.server.host}\r\nCookie: {ann.cookie}{END}".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 405")


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_get_that_says_it_is_a_post(ann: Person, name: str) -> None:
    assert get(ann, f"/vote?{a_vote(ann)}&_method=POST", f"{name}: POST").status == 405


@pytest.mark.parametrize("purpose", ["Sec-Purpose: prefetch;prerender", "Purpose: prefetch", "X-Moz: prefetch"])
def test_a_link_that_is_fetched_before_it_is_opened_stays_good(ann: Person, purpose: str) -> None:
    link = f"/enter/{ann.server.tokens['ben']}"
    for _ in range(3):  # previews of mail and chat programs too
        assert ann.server.ask(link, headers=[tuple(purpose.split(": "))]).status == 303  # type: ignore[list-item]
    assert ann.server.enter(ann.server.tokens["ben"]) == ann.server.person("ben").cookie


def test_what_clients_say_of_their_own_address_helps_no_guesser(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served(tmp_path_factory.mktemp("people"), opening_events(2, ["ann"])) as server:
        said = [server.ask(f"/enter/x{n}", headers=[("X-Forwarded-For", f"192.0.2.{n}")]).status for n in range(25)]
    assert said[-1] == 429


def test_a_place_in_the_address_cannot_forge_a_header(ann: Person) -> None:
    for path in ("/enter/%0d%0aSet-Cookie:%20x=1", "/pair%0d%0aX:1", "/enter/%ff%fe", "/enter/%e2%80%ae"):
        reply = get(ann, path)
        assert reply.status == 404
        assert not [name for name, _ in reply.headers if name in ("set-cookie", "x")]


def test_no_header_or_path_is_too_long_to_be_refused(ann: Person) -> None:
    name = ann.cookie.partition("=")[0]
    assert ann.server.ask("/pair", headers=[("Cookie", f"{name}={'x' * 15_000}")]).status == 401
    assert get(ann, "/" + "a" * 15_000).status == 404
    assert get(ann, "/pair", *(f"X-{number}: {'a' * 100}" for number in range(300))).status == 431
