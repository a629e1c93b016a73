"""Every attack that we could think of, tried on the real server over a socket, and refused."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.events import OWNER
from pasture.annotate.page import serve as serving
from pasture.annotate.page.gate import Policy
from tests.annotate.people.campaigns import opening_events
from tests.annotate.people.served import Person, Reply, Served, hidden_fields, served, votes_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, opening_events(6, ["ann", "ben"], overlap=2)) as running:
        yield running


def votes(server: Served) -> int:
    return server.desk.look(lambda campaign: sum(len(one.votes) for one in campaign.annotators.values())).result()


def refused(server: Served, reply: Reply, *statuses: int) -> None:
    assert reply.status in statuses, (reply.status, reply.text[:300])
    assert votes(server) == 0


class TestWhoMayVote:
    def test_the_control_a_vote_as_a_browser_sends_it_counts(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        reply = ann.vote("first")
        assert (reply.status, reply.header("location")) == (303, "/pair")
        assert votes(server) == 1

    def test_other_peoples_pairs(self, server: Served) -> None:
        ann, ben = server.person("ann"), server.person("ben")
        ann.get()
        ben.get()
        stolen = {**ben.fields, "item": ann.fields["item"], "said": "first"}
        refused(server, ben.post("/vote", stolen), 409)

    def test_a_pair_that_is_not_the_one_shown(self, server: Served) -> None:
        later = server.desk.look(lambda campaign: campaign.queue("ann")[3].id).result()
        ann = server.person("ann")
        ann.get()
        refused(server, ann.vote("first", item=later), 409)

    def test_a_replayed_vote_changes_nothing(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        first = dict(ann.fields)
        assert ann.vote("first").status == 303
        assert ann.vote("first").status == 303  # a double click
        assert votes(server) == 1
        assert ann.vote("second").status == 409
        ann.get()
        ann.vote("tie")
        assert ann.post("/vote", {**first, "said": "first"}).status == 409
        assert votes(server) == 2

    def test_votes_after_the_close(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        server.desk.act(acts.close, lambda _: None).result()
        refused(server, ann.vote("first"), 409)
        for path in ("/undo", "/more", "/leave", "/return"):
            refused(server, ann.post(path, ann.fields), 409)
        assert "closed" in ann.get("/").text

    def test_the_dropped(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        server.desk.act(lambda campaign: acts.drop(campaign, "ann"), lambda _: None).result()
        refused(server, ann.vote("first"), 401)
        refused(server, ann.get(), 401)
        assert server.ask(f"/enter/{server.tokens['ann']}").status == 404

    def test_a_revoked_link_and_the_sessions_it_gave(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        server.desk.act(lambda campaign: acts.invite(campaign, "ann", "new-token"), lambda _: None).result()
        refused(server, ann.vote("first"), 401)
        assert server.ask(f"/enter/{server.tokens['ann']}").status == 404
        assert server.enter("new-token") != ann.cookie

    def test_guessed_tokens_and_sessions(self, server: Served) -> None:
        name = server.enter(server.tokens["ann"]).partition("=")[0]
        assert server.ask("/enter/" + "A" * 32).status == 404
        assert server.ask("/enter/" + "A" * 5000).status == 404
        # What the store holds of a token opens nothing; nor does the token itself as a session.
        invited = server.desk.look(lambda campaign: campaign.invited["ann"]).result()
        for value in ("x", invited.session_hash, invited.token_hash, server.tokens["ann"], "x" * 4000, ""):
            assert server.ask("/pair", headers=[("Cookie", f"{name}={value}")]).status == 401
        assert server.ask(f"/enter/{invited.token_hash}").status == 404

    def test_who_guesses_much_has_to_wait_and_others_do_not(self, server: Served) -> None:
        ann = server.person("ann")
        statuses = [server.ask(f"/enter/guess{n}").status for n in range(30)]
        assert statuses[:20] == [404] * 20
        assert set(statuses[20:]) <= {404, 429}
        assert statuses[-1] == 429
        ann.get()
        assert ann.vote("first").status == 303

    def test_who_guesses_at_the_form_that_changes_persons_has_to_wait_too(self, server: Served) -> None:
        ann = server.person("ann")
        page = server.ask(f"/enter/{server.tokens['ben']}", headers=[("Cookie", ann.cookie)]).text
        form = {**hidden_fields(page), "token": "guess"}
        replies = [ann.post("/switch", form) for _ in range(21)]
        assert [reply.status for reply in replies] == [404] * 20 + [429]
        assert "Too many wrong links" in replies[-1].text

    def test_a_link_that_is_good_opens_however_many_wrong_ones_came_from_its_network(self, server: Served) -> None:
        assert [server.ask(f"/enter/guess{n}").status for n in range(30)][-1] == 429
        assert server.ask(f"/enter/{server.tokens['ann']}").status == 303

    @pytest.mark.parametrize("ends", ["dropped", "invited anew"])
    def test_the_open_page_of_who_is_no_longer_let_in_is_no_guess(self, server: Served, ends: str) -> None:
        ben = server.person("ben")
        ended = acts.drop if ends == "dropped" else lambda campaign, name: acts.invite(campaign, name, "new-token")
        server.desk.act(lambda campaign: ended(campaign, "ben"), lambda _: None).result()
        assert {ben.get().status for _ in range(30)} == {401}
        assert {server.ask(f"/enter/{server.tokens['ben']}").status for _ in range(30)} == {404}
        assert server.ask("/enter/guess").status == 404  # the network has all its guesses left

    def test_who_clicks_as_no_person_does_has_to_wait(self, tmp_path: Path) -> None:
        events = opening_events(60, ["ann"])
        with served(tmp_path, events, Policy((), votes_per_second=0.5)) as server:
            ann = server.person("ann")
            statuses = []
            for _ in range(4):
                ann.get()
                statuses.append(ann.vote("tie").status)
        assert statuses == [303, 429, 429, 429]

    def test_the_owners_page_is_the_owners(self, server: Served) -> None:
        assert server.person("ann").get("/owner").status == 404
        assert server.ask("/owner").status == 401
        owner = server.person(OWNER)
        assert owner.get("/owner").status == 200
        refused(server, owner.post("/vote", {**owner.fields, "said": "first", "turn": "0", "item": "x"}), 409)

    def test_a_link_in_somebody_elses_mail_does_not_change_who_one_is(self, server: Served) -> None:
        ann = server.person("ann")
        reply = ann.server.ask(f"/enter/{server.tokens['ben']}", headers=[("Cookie", ann.cookie)])
        assert reply.status == 200
        assert reply.header("set-cookie") is None
        assert "somebody else" in reply.text

    def test_a_forged_time_is_no_time(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        ann.vote("first", shown=f"{int(time.time() * 1000) - 5000}-{'A' * 16}")
        ann.get()
        ann.vote("first")
        seconds = [vote.seconds for vote in votes_of(server, "ann")]
        assert seconds[0] is None
        assert seconds[1] is not None


class TestWhereFormsComeFrom:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        """One for all of these, as none of them may change anything."""
        folder, policy = tmp_path_factory.mktemp("people"), Policy((), guesses=10_000)
        with served(folder, opening_events(6, ["ann", "ben"], overlap=2), policy) as running:
            yield running

    def form(self, server: Served) -> tuple[Person, bytes]:
        ann = server.person("ann")
        ann.get()
        return ann, urlencode({**ann.fields, "said": "first"}).encode()

    @pytest.mark.parametrize(
        "origin",
        [
            ["null"],
            [],
            ["http://evil.example"],
            ["http://127.0.0.1"],
            ["https://{host}"],
            ["http://{host}.evil.example"],
            ["http://{host}", "http://{host}"],
            ["http://{host}", "http://evil.example"],
        ],
    )
    def test_other_origins(self, server: Served, origin: list[str]) -> None:
        ann, body = self.form(server)
        headers = [("Cookie", ann.cookie), ("Content-Type", "application/x-www-form-urlencoded")]
        headers += [("Origin", each.format(host=server.host)) for each in origin]
        refused(server, server.ask("/vote", "POST", body, headers), 403)

    def test_a_cross_site_form_is_told_by_fetch_metadata_too(self, server: Served) -> None:
        ann, body = self.form(server)
        headers = [("Cookie", ann.cookie), *ann.form_headers(), ("Sec-Fetch-Site", "cross-site")]
        refused(server, server.ask("/vote", "POST", body, headers), 403)

    @pytest.mark.parametrize("token", ["", "x", None])
    def test_a_form_without_our_token(self, server: Served, token: str | None) -> None:
        ann, _ = self.form(server)
        fields = {name: value for name, value in ann.fields.items() if name != "form"}
        if token is not None:
            fields["form"] = token
        refused(server, ann.post("/vote", {**fields, "said": "first"}), 403)

    def test_another_annotators_form_token(self, server: Served) -> None:
        ann, _ = self.form(server)
        ben = server.person("ben")
        ben.get()
        refused(server, ann.vote("first", form=ben.fields["form"]), 403)

    @pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data; boundary=x", ""])
    def test_other_kinds_of_body(self, server: Served, kind: str) -> None:
        ann, body = self.form(server)
        headers = [("Cookie", ann.cookie), ("Origin", server.origin), ("Content-Type", kind)]
        refused(server, server.ask("/vote", "POST", body, headers), 415)

    def test_the_cookie_is_for_browsers_alone_and_stays_on_our_site(self, server: Served) -> None:
        reply = server.ask(f"/enter/{server.tokens['ann']}")
        cookie = (reply.header("set-cookie") or "").lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "domain" not in cookie
        assert server.tokens["ann"].lower() not in cookie
        assert (reply.status, reply.header("location")) == (303, "/")

    def test_pages_cannot_be_framed_read_or_cached_by_others(self, server: Served) -> None:
        ann = server.person("ann")
        for reply in (ann.get("/"), ann.get("/pair"), server.ask("/nothing"), server.ask("/vote", "POST")):
            policy = reply.header("content-security-policy") or ""
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert reply.header("x-frame-options") == "DENY"
            assert reply.header("access-control-allow-origin") is None
            assert reply.header("cache-control") == "no-store"
            assert reply.header("server") is None
            assert reply.header("referrer-policy") == "same-origin"

    def test_no_other_site_is_allowed_by_a_preflight(self, server: Served) -> None:
        headers = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")]
        reply = server.ask("/vote", "OPTIONS", headers=headers)
        assert reply.status == 405
        assert not [name for name, _ in reply.headers if name.startswith("access-control")]


class TestRequests:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        """One for all of these, as none of them may change anything."""
        folder, policy = tmp_path_factory.mktemp("people"), Policy((), guesses=10_000)
        with served(folder, opening_events(6, ["ann", "ben"], overlap=2), policy) as running:
            yield running

    @pytest.mark.parametrize(
        "host",
        [["evil.example"], [], ["{host}", "{host}"], ["{host}", "evil"], ["127.0.0.1"], ["{host}."], ["a {host}"]],
    )
    def test_a_host_that_is_wrong_missing_or_doubled(self, server: Served, host: list[str]) -> None:
        ann = server.person("ann")
        names = [name.format(host=server.host) for name in host]
        for path in ("/pair", f"/enter/{server.tokens['ann']}"):
            reply = server.ask(path, headers=[("Cookie", ann.cookie)], host=names)
            assert reply.status == 400
            assert reply.header("set-cookie") is None

    def test_forwarded_hosts_and_schemes_are_not_believed(self, server: Served) -> None:
        headers = [
            ("X-Forwarded-Host", "evil.example"),
            ("Forwarded", "host=evil.example"),
            ("X-Forwarded-Proto", "https"),
        ]
        assert "evil" not in server.ask("/", headers=headers).text

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
    def test_other_methods(self, server: Served, method: str) -> None:
        assert server.ask("/pair", method).status in (400, 404, 405)

    @pytest.mark.parametrize("path", ["/vote", "/undo", "/more", "/leave", "/return", "/out", "/switch"])
    def test_a_get_never_writes(self, server: Served, path: str) -> None:
        ann = server.person("ann")
        ann.get()
        query = urlencode({**ann.fields, "said": "first"})
        assert server.ask(f"{path}?{query}", headers=[("Cookie", ann.cookie)]).status == 405
        before = server.desk.look(lambda campaign: campaign.version).result()
        for read in ("/", "/pair", "/pair?view=plain", f"/enter/{server.tokens['ann']}"):
            server.ask(read, headers=[("Cookie", ann.cookie)])
        assert server.desk.look(lambda campaign: campaign.version).result() == before

    @pytest.mark.parametrize(
        "path",
        [
            "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static//etc/passwd",
            "/static/page.css/../../serve.py", "/static/", "/static", "//pair", "/pair/", "/PAIR", "/pair%00",
            "/%2fpair",
            "/.env", "/templates/pair.html", "/static/keys.js%00.html", "/enter/", "/enter/a/b", "/owner/../pair",
        ],
    )  # fmt: skip
    def test_path_tricks(self, server: Served, path: str) -> None:
        reply = server.ask(path, headers=[("Cookie", server.enter(server.tokens["ann"]))])
        assert reply.status in (404, 307, 400), reply.text[:200]
        if reply.status == 307:
            assert (reply.header("location") or "").startswith(server.origin)
        assert "import" not in reply.text

    def test_a_body_that_says_it_is_huge(self, server: Served) -> None:
        ann = server.person("ann")
        headers = [("Cookie", ann.cookie), *ann.form_headers(), ("Content-Length", str(100 * 2**20))]
        refused(server, server.ask("/vote", "POST", b"said=first", headers), 413)

    def test_a_body_that_is_huge_and_does_not_say_so(self, server: Served) -> None:
        ann = server.person("ann")
        headers = [("Cookie", ann.cookie), *ann.form_headers(), ("Transfer-Encoding", "chunked")]
        chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        sent = 0
        lines = [f"{name}: {value}" for name, value in (("Host", server.host), *headers)]
        with server.connect() as connection:
            connection.sendall("\r\n".join(["POST /vote HTTP/1.1", *lines]).encode() + b"\r\n\r\n")
            try:
                while sent < 100 * 2**20:
                    connection.sendall(chunk)
                    sent += len(chunk)
            except OSError:
                pass
        assert sent < 30 * 2**20  # what fits into the buffers between us, and no more
        assert votes(server) == 0

    def test_a_slow_body(self, tmp_path: Path) -> None:
        with served(tmp_path, opening_events(2, ["ann"]), Policy((), body_seconds=0.3)) as server:
            ann = server.person("ann")
            headers = [("Cookie", ann.cookie), *ann.form_headers(), ("Content-Length", "1000")]
            refused(server, server.ask("/vote", "POST", b"said=", headers), 408)

    def test_slow_headers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "HEADER_SECONDS", 0.3)
        with served(tmp_path, opening_events(2, ["ann"])) as server, server.connect() as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {server.host}\r\nX-Slow".encode())
            assert connection.recv(1000) == b""
            assert server.ask("/").status == 401

    def test_endless_headers(self, server: Served) -> None:
        assert server.ask("/", headers=[("X-Long", "a" * 70_000)]).status == 431

    def test_two_requests_in_one(self, server: Served) -> None:
        # Content-Length and Transfer-Encoding together: the classic way to smuggle a request past a proxy.
        ann = server.person("ann")
        ann.get()
        inner = b"0\r\n\r\nGET /owner HTTP/1.1\r\nHost: x\r\n\r\n"
        headers = [
            *ann.form_headers(),
            ("Cookie", ann.cookie),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "4"),
        ]
        refused(server, server.ask("/vote", "POST", inner, headers), 400)

    def test_a_flood_from_one_address(self, tmp_path: Path) -> None:
        with served(tmp_path, opening_events(2, ["ann"]), Policy((), requests_per_second=1)) as server:
            statuses = [server.ask("/").status for _ in range(8)]
        assert statuses[:4] == [401] * 4
        assert statuses[-1] == 429

    def test_broken_forms(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        bodies = [
            b"", b"\xff\xfe", b"%ff=%fe", b"&" * 1000, b"a=1&a=2", b"said=first", b"=" * 100,
            urlencode({**ann.fields, "said": "third"}).encode(),
            urlencode({**ann.fields, "said": "first", "turn": "-1"}).encode(),
            urlencode({**ann.fields, "said": "first", "turn": "9" * 5000}).encode(),
            urlencode({**ann.fields, "said": "first", "strength": "4"}).encode(),
            urlencode({**ann.fields, "said": "first", "strength": "\u0663"}).encode(),
            urlencode({**ann.fields, "said": "skip", "reason": "x" * 501}).encode(),
            urlencode([*ann.fields.items(), ("said", "first"), ("said", "second")]).encode(),
        ]  # fmt: skip
        for body in bodies:
            headers = [("Cookie", ann.cookie), *ann.form_headers()]
            refused(server, server.ask("/vote", "POST", body, headers), 400, 403)

    def test_a_websocket(self, server: Served) -> None:
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        assert server.ask("/pair", headers=[*headers, ("Sec-WebSocket-Key", "x" * 22 + "==")]).status in (400, 401, 403)

    def test_an_upgrade_of_the_protocol_or_nonsense(self, server: Served) -> None:
        assert server.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500).status == 400
        assert server.send(b"GET / HTTP/9.9\r\n\r\n").status in (400, 505)
