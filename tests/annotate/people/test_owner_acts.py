"""What the owner may change while people label, on the page as by the command: and nobody else may."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.events import OWNER
from pasture.annotate.campaign.state import Campaign
from pasture.core.errors import DataError
from tests.annotate.people.campaigns import answer, do, label_all, make, opening_events
from tests.annotate.people.served import Person, Served, hidden_fields, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, opening_events(6, ["ann", "ben", "cy"], overlap=2)) as running:
        yield running


@pytest.fixture
def owner(server: Served) -> Person:
    person = server.person(OWNER)
    person.get("/owner")
    return person


def label(server: Served, name: str, said: str, count: int = 99) -> None:
    person = server.person(name)
    while count and person.get().status == 200:
        assert person.vote(said).status == 303
        count -= 1


def state(server: Served) -> tuple[int, int]:
    """Labels that are missing, and annotators."""
    return server.desk.look(lambda campaign: (campaign.missing_labels(), len(campaign.annotators))).result()


def text(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_to_drop_an_annotator_reckons_everything_anew(server: Served, owner: Person) -> None:
    for name in ("ann", "ben"):
        label(server, name, "tie")
    label(server, "cy", "both_bad")
    label(server, "cy", "first")
    assert "12 labels of 6 pairs " in text(owner.get("/owner").text)
    cy = server.person("cy")
    reply = owner.post("/owner/drop", {**owner.fields, "name": "cy"})
    assert (reply.status, reply.header("location")) == (303, "/owner")
    shown = text(owner.get("/owner").text)
    assert "8 labels of 6 pairs, 4 still wanted" in shown
    assert "cy dropped 4 of 0" in shown
    assert cy.get().status == 401  # and the door is shut
    label(server, "ann", "tie")
    label(server, "ben", "tie")
    assert state(server)[0] == 0
    assert "100% (" in text(owner.get("/owner").text)


def test_a_lost_link_is_made_anew_and_the_answers_stay(server: Served, owner: Person) -> None:
    label(server, "ann", "tie", count=2)
    before = server.person("ann")
    page = owner.post("/owner/invite", {**owner.fields, "name": "ann"})
    (link,) = re.findall(rf"{server.origin}(/enter/[\w-]{{32}})", page.text)
    assert page.header("cache-control") == "no-store"
    assert before.get().status == 401
    assert server.ask(f"/enter/{server.tokens['ann']}").status == 404
    again = Person(server, server.enter(link.removeprefix("/enter/")))
    assert "2 of 4 done" in text(again.get("/pair").text)


def test_a_late_comer_takes_an_even_share(server: Served, owner: Person) -> None:
    page = owner.post("/owner/add", {**owner.fields, "name": " dora "})
    (link,) = re.findall(r"/enter/([\w-]{32})", page.text)
    dora = Person(server, server.enter(link))
    assert "Welcome, dora 3 pairs are yours." in re.sub(r" You will see.*?better\.", "", text(dora.get("/").text))
    for name, said in (("ann", 409), ("owner", 409), ("", 409), ("x" * 81, 409)):
        assert owner.post("/owner/add", {**owner.fields, "name": name}).status == said
    assert state(server) == (12, 4)
    server.desk.act(acts.close, lambda _: None).result()
    assert owner.post("/owner/add", {**owner.fields, "name": "eve"}).status == 409
    assert "One more annotator" not in owner.get("/owner").text


def test_nobody_but_the_owner_may(server: Served, owner: Person) -> None:
    ann = server.person("ann")
    ann.get()
    before = server.desk.look(lambda campaign: campaign.version).result()
    for path in ("/owner/drop", "/owner/invite", "/owner/add"):
        for name in ("ben", "ann", "new", OWNER):
            reply = ann.post(path, {"form": ann.fields["form"], "name": name})
            assert (reply.status, text(reply.text)) == (404, "Labelling There is no such page. Go on")
            assert ann.post(path, {"form": owner.fields["form"], "name": name}).status == 403
        assert owner.post(path, {"form": "x", "name": "ann"}).status == 403
        assert server.ask(path, "POST", b"name=ann", ann.form_headers()).status == 401
        assert server.ask(f"{path}?name=ann", headers=[("Cookie", owner.cookie)]).status == 405
        foreign = [("Cookie", owner.cookie), ("Origin", "http://evil.example"), ann.form_headers()[1]]
        assert server.ask(path, "POST", b"name=ann", foreign).status == 403
    assert owner.post("/owner/invite", {**owner.fields, "name": OWNER}).status == 409
    assert owner.post("/owner/drop", {**owner.fields, "name": "nobody"}).status == 409
    assert server.desk.look(lambda campaign: campaign.version).result() == before


def test_the_page_says_how_each_is_doing_and_names_no_empty_figure(tmp_path: Path) -> None:
    events = opening_events(4, ["ann", "ben"], gold=1, qualification=2, wage_usd_per_hour=36.0)
    with served(tmp_path, events) as server:
        owner = server.person(OWNER)
        bare = text(owner.get("/owner").text)
        assert not {"First round", "Known answers", "Same twice"} & set(re.findall(r"[A-Z]\w+ \w+", bare))
        label(server, "ann", "first")
        shown = text(owner.get("/owner").text)
    assert "just now" in shown
    assert "First round" in shown
    assert "Same twice" not in shown


def test_the_same_undo_twice_takes_back_one_answer(server: Served) -> None:
    ann = server.person("ann")
    for _ in range(2):
        ann.get()
        ann.vote("tie")
    ann.get()
    form = hidden_fields(re.search(r'action="/undo">.*?</form>', ann.page, re.DOTALL)[0])  # type: ignore[index]
    assert ann.post("/undo", form).status == 303
    assert ann.post("/undo", form).status == 409
    assert server.desk.look(lambda campaign: len(campaign.annotators["ann"].votes)).result() == 1


def test_who_joins_late_has_an_even_share_of_what_is_left() -> None:
    campaign = make(30, ["p0", "p1", "p2"], overlap=2)
    for _ in range(10):
        answer(campaign, "p0")
    do(campaign, acts.join(campaign, "late"))
    # 60 labels by four: 15 each; nobody gives away what they have answered.
    assert {name: campaign.share_of(name) for name in campaign.annotators} == dict.fromkeys(
        ["p0", "p1", "p2", "late"], 15
    )
    label_all(campaign, list(campaign.annotators))
    assert campaign.missing_labels() == 0
    assert {len(votes) for votes in campaign.labels().values()} == {2}


def test_who_joins_when_all_is_in_has_nothing_to_do_and_no_name_is_given_twice() -> None:
    campaign = make(4, ["p0"])
    label_all(campaign, ["p0"])
    do(campaign, acts.join(campaign, "late"))
    assert campaign.current("late") is None
    with pytest.raises(DataError, match="already"):
        acts.join(campaign, "late")


def test_a_second_server_knows_who_joined(server: Served) -> None:
    server.desk.act(lambda campaign: acts.join(campaign, "late"), lambda _: None).result()

    def names(campaign: Campaign) -> list[str]:
        return list(campaign.annotators)

    assert server.desk.look(names).result()[-1] == "late"
