"""What annotators are sent: texts that do nothing, and no word of whose answers they are."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pasture.annotate.campaign.events import Settings
from pasture.annotate.campaign.making import opening
from pasture.annotate.campaign.quality import Agreement
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.page.owner import owners_view
from pasture.annotate.page.pages import Pages
from pasture.annotate.page.prose import as_html
from pasture.annotate.page.views import Shown, round_of, shown
from tests.annotate.people.campaigns import SYSTEMS, comparison, opening_events
from tests.annotate.people.hostile import HOSTILE, harmless
from tests.annotate.people.served import Reply, Served, served, votes_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, opening_events(6, ["ann", "ben"], overlap=2)) as running:
        yield running


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
        harmless(pages.owner(owners_view(campaign, Agreement(None, None, {}), {name: 0.0}), "f"))
        harmless(pages.switch(name, text, "f"))
        harmless(pages.message(text, "/"))
        harmless(pages.link(name, "http://127.0.0.1/enter/x").replace(">http://127.0.0.1/enter/x<", "><"))

    def test_reasons_come_back_as_they_were_given(self, server: Served) -> None:
        ann = server.person("ann")
        ann.get()
        ann.vote("skip", reason="<script>\u202e=1+1\r\n")
        (vote,) = votes_of(server, "ann")
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
