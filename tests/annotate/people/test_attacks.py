"""Every attack that we could think of, tried on the real server over a socket, and refused."""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.events import OWNER, Settings
from pasture.annotate.campaign.making import opening
from pasture.annotate.campaign.quality import Agreement
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.page import serve as serving
from pasture.annotate.page.gate import Policy
from pasture.annotate.page.owner import owners_view
from pasture.annotate.page.pages import Pages
from pasture.annotate.page.prose import as_html
from pasture.annotate.page.views import Shown, round_of, shown
from pasture.core.errors import RecipeError
from tests.annotate.people.campaigns import SYSTEMS, comparison, opening_events
from tests.annotate.people.served import Person, Reply, Served, served

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "[click](javascript:alert(1)) ![x](http://192.0.2.1/t.png) <http://192.0.2.1/>",
    "```html\n</code></pre><script>alert(1)</script>\n```",
    "{{ 733 * 911 }} {% include '/etc/passwd' %}",
    "</section></main></body></html><h1>gone</h1>",
    "<form action=http://192.0.2.1/><button name=said value=first>",
    "<style>*{display:none}</style><base href=http://192.0.2.1/><meta http-equiv=refresh content=0>",
    "a\u202egnihton\u202c b\x00\x1b[2J",
    "| a |\n|---|\n| <iframe src=//192.0.2.1> |",
]


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
        seconds = [vote.seconds for vote in seen_votes(server, "ann")]
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


def seen_votes(server: Served, name: str):
    return server.desk.look(lambda campaign: list(campaign.annotators[name].votes.values())).result()


def harmless(page: str) -> None:
    inner = page.partition("<body>")[2]
    assert not re.search(r"<(script|img|svg|iframe|style|base|meta|object|link)\b", inner, re.IGNORECASE)
    bare = re.sub(r'="[^"]*"', "=", re.sub(r">[^<]*<", "><", inner))  # no text, no values of attributes
    assert not re.search(r"\son\w+\s*=", bare)
    assert not [url for url in re.findall(r'(?:href|src|action)="([^"]*)"', page) if not re.match(r"[/#]", url)]
    assert page.count("</main>") == 1
    assert not {"\u202e", "\x1b", "\x00"} & set(page)
    assert "root:" not in page
    assert "667763" not in inner  # 733 * 911, were it reckoned


class TestHostileText:
    @pytest.mark.parametrize("markdown", [True, False])
    def test_in_instructions_and_answers(self, tmp_path: Path, markdown: bool) -> None:
        pairs = [comparison(n, text, text + " one", text + " two") for n, text in enumerate(HOSTILE)]
        opened, added = opening("tests", pairs, ["ann"], Settings(markdown=markdown))
        with served(tmp_path, [opened, *added]) as server:
            person, count = server.person("ann"), 0
            while (reply := person.get("/pair")).status == 200:
                harmless(reply.text)
                count += 1
                assert person.vote("tie").status == 303
        assert count == len(HOSTILE)

    @pytest.mark.parametrize("text", HOSTILE)
    def test_in_names_and_guidelines(self, text: str) -> None:
        name = text[:70]
        opened, added = opening(name, [comparison(1)], [name], Settings(guidelines=text))
        campaign, pages = Campaign.replayed([opened, *added]), Pages()
        seen = shown(campaign, name)
        assert isinstance(seen, Shown)
        harmless(pages.front(round_of(campaign, name), "f"))
        harmless(pages.pair(seen, "f", plain=False))
        harmless(pages.owner(owners_view(campaign, Agreement(None, None, {})), "f"))
        harmless(pages.switch(name, text, "f"))
        harmless(pages.message(text))

    def test_reasons_come_back_as_they_were_given(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        ann.vote("skip", reason="<script>\u202e=1+1\r\n")
        (vote,) = seen_votes(server, "ann")
        assert vote.reason == "<script>\u202e=1+1"

    @pytest.mark.parametrize(
        "part",
        ["*", "> ", "- ", "`", "a **b ", "|a", "|-|\n", "[", "1. ", "_*", "~", "\\", "&#", "\t", "# ", "a\n===\n"],
    )
    def test_no_text_keeps_the_server_busy(self, part: str) -> None:
        text = (part * 12_000)[:12_000]

        started = time.process_time()
        as_html(text, markdown=True)
        # Not a measure of speed: what grows with the square of the length takes minutes here.
        assert time.process_time() - started < 20


class TestBlindness:
    def everything(self, server: Served, name: str) -> list[Reply]:
        person = server.person(name)
        replies = [server.ask(f"/enter/{server.tokens[name]}"), person.get("/")]
        while (reply := person.get("/pair")).status == 200:
            replies += [reply, person.get("/pair?view=plain")]
            person.get("/pair")
            replies.append(person.vote("tie"))
        return [*replies, person.get("/")]

    def test_nothing_that_is_sent_names_a_system_or_a_pair(self, server: Served) -> None:
        secret = server.desk.look(lambda campaign: campaign.opened.secret).result()
        pairs = server.desk.look(lambda campaign: [one.comparison for one in campaign.of_role("work")]).result()
        identities = [each.id for each in pairs] + [each.instruction.id for each in pairs]
        for reply in self.everything(server, "ann"):
            sent = reply.text + str(reply.headers)
            for hidden in (*SYSTEMS, secret, *identities, "work", "gold", "shown_first", "generator"):
                assert hidden not in sent

    def test_pages_differ_in_no_more_than_texts_whichever_side_is_first(self, tmp_path: Path) -> None:
        """Two servers with secrets that show the same pair in the two orders: exchange the texts, and the pages are
        the same, tokens aside."""
        pages = {}
        for number in range(40):
            events = opening_events(1, ["ann"], secret=f"{number:064}")
            shown = Campaign.replayed(events).queue("ann")[0].shown_first
            if shown in pages:
                continue
            (tmp_path / shown).mkdir()
            with served(tmp_path / shown, events) as server:
                pages[shown] = server.person("ann").get("/pair").text
        assert set(pages) == {"first", "second"}
        bare = {
            side: re.sub(r'(name="(?:form|item|shown)" value=)"[^"]*"', r'\1""', page) for side, page in pages.items()
        }
        exchanged = bare["second"].replace("It is 0.", "@").replace("Perhaps 0?", "It is 0.").replace("@", "Perhaps 0?")
        assert exchanged == bare["first"]

    def test_gold_and_repetitions_look_like_work(self, tmp_path: Path) -> None:
        events = opening_events(4, ["ann"], gold=3, repeat_share=1.0)
        shapes = set()
        with served(tmp_path, events) as server:
            person = server.person("ann")
            for _ in range(11):
                page = person.get("/pair").text
                # Numbers and answers gone, all pairs are the same page; the first alone has nothing to undo or to time.
                page = re.sub(r'value="[^"]*"|\s+|<span class="soft">.*?</span>', "", re.sub(r"\d+", "N", page))
                page = page.replace("ItisN.", "@").replace("PerhapsN?", "@")
                shapes.add(re.sub(r'<formmethod="post"action="/undo">.*?</form>', "", page))
                person.vote("tie")
        assert len(shapes) == 1


class TestWhereItListens:
    @pytest.mark.parametrize(
        "host",
        [
            "0.0.0.0",  # noqa: S104 - refused
            "192.0.2.1",
            "::",
            "example.org",
        ],
    )
    def test_other_than_this_machine_only_with_tls_or_a_proxy(self, host: str) -> None:

        with pytest.raises(RecipeError, match="in the clear"):
            serving.Place(host).check()
        with_tls = serving.Place(
            host, tls_certificate=Path("c"), tls_key=Path("k"), address="https://label.example.org:8400"
        )
        with_tls.check()
        assert with_tls.origins(8400) == ("https://label.example.org:8400",)
        serving.Place(host, proxy_origin="https://label.example.org").check()
        with pytest.raises(RecipeError, match="https"):
            serving.Place(host, proxy_origin="http://label.example.org").check()

    def test_a_host_that_nobody_types_needs_the_one_they_do(self) -> None:
        place = serving.Place("0.0.0.0", tls_certificate=Path("c"), tls_key=Path("k"))  # noqa: S104 - refused
        with pytest.raises(RecipeError, match="--address"):
            place.check()

    def test_behind_a_proxy_only_its_public_address_is_served(self) -> None:
        place = serving.Place(proxy_origin="https://Label.example.org")
        assert place.origins(8400) == ("https://label.example.org",)
        assert serving.Place().origins(8400) == ("http://127.0.0.1:8400", "http://localhost:8400")
        assert serving.Place("::1").origins(80) == ("http://[::1]",)

    def test_behind_a_proxy_the_public_host_and_the_clients_own_address_count(self, tmp_path: Path) -> None:
        place = serving.Place(port=0, proxy_origin="https://label.example.org")
        with served(tmp_path, opening_events(2, ["ann"]), place=place) as server:
            ann = server.person("ann")
            assert ann.cookie.startswith("__Host-")
            assert ann.get().status == 200
            assert ann.vote("first").status == 303
            assert server.ask("/", host=[f"127.0.0.1:{server.port}"]).status == 400
            guesses = [server.ask(f"/enter/x{n}", headers=[("X-Forwarded-For", "192.0.2.7")]).status for n in range(25)]
            assert guesses[-1] == 429
            assert server.ask("/enter/x", headers=[("X-Forwarded-For", "192.0.2.8")]).status == 404

    def test_with_tls_cookies_are_sent_by_tls_alone(self, tmp_path: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed, so there is no certificate to serve with")
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
        subprocess.run([*command, *names], check=True, capture_output=True)
        place = serving.Place(port=0, tls_certificate=certificate, tls_key=key)
        with served(tmp_path, opening_events(2, ["ann"]), place=place) as server:
            server.tls = ssl.create_default_context()
            server.tls.check_hostname, server.tls.verify_mode = False, ssl.CERT_NONE
            reply = server.ask(f"/enter/{server.tokens['ann']}")
            assert "; secure" in (reply.header("set-cookie") or "").lower()
            assert reply.header("strict-transport-security") is not None
            ann = server.person("ann")
            ann.get()
            assert ann.vote("first").status == 303

    def test_a_port_that_is_taken_is_said(self) -> None:

        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(RecipeError, match="Choose another --port"):
                serving.listening_at(serving.Place(port=other.getsockname()[1]))
