"""`pasture people` from making to export, as a user types it."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.address import open_journal
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.events import Event, Said
from pasture.annotate.campaign.state import Campaign, Item
from pasture.annotate.raters import MeadowPeople
from pasture.annotate.tables import write_rows
from pasture.cli import application
from pasture.core.errors import DataError, DependencyError, PastureError, RecipeError
from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Completion, Preference
from pasture.core.tables import read_rows
from pasture.world.meadow import demonstrations, instructions
from tests.annotate.people.campaigns import ballot


def pasture(*arguments: object, verb: str = "people") -> Result:
    result = CliRunner().invoke(application(verb), [str(each) for each in arguments], env={"COLUMNS": "250"})
    if isinstance(result.exception, PastureError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def label(path: Path, says: dict[str, Said]) -> None:
    """Everyone in `says` answers everything before them alike, in the comparison's own naming."""
    with Desk(open_journal(str(path))) as desk:
        for name, said in says.items():
            answer_all(desk, name, dict.fromkeys(desk.look(lambda campaign: list(campaign.pairs)).result(), said))


def answer_all(desk: Desk, name: str, says: Mapping[str, Said]) -> None:
    def current(campaign: Campaign) -> Item | None:
        return campaign.current(name)

    while (item := desk.look(current).result()) is not None:
        said = says[item.pair.comparison.id]
        desk.act(partial(voted, name=name, said=said), lambda _: None).result()


def voted(campaign: Campaign, name: str, said: Said) -> Sequence[Event]:
    item = campaign.current(name)
    assert item is not None
    shown: Said = said if said == "tie" else "first" if said == item.shown_first else "second"
    return acts.vote(campaign, name, ballot(campaign, name, shown, seconds=36.0))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"Say {n}.", "output_1": f"{n}.", "output_2": f"{n}!", "generator_1": "a", "generator_2": "b"}
        for n in range(6)
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    write_rows(tmp_path / "gold.jsonl", [{"instruction": "Gold.", "output_1": "x", "output_2": "y", "preference": 1}])
    return tmp_path / "pairs.jsonl"


def test_some_of_the_pairs_are_drawn_by_what_they_hold(pairs: Path) -> None:
    def asked_about(count: int, seed: int = 0) -> list[str]:
        path = pairs.with_name(f"{count}-{seed}-{len(list(pairs.parent.iterdir()))}.campaign")
        pasture("people", "new", pairs, "--count", count, "--seed", seed, "-c", path)
        with Desk(open_journal(str(path))) as desk:
            return desk.look(
                lambda campaign: [each.comparison.instruction.instruction for each in campaign.pairs.values()]
            ).result()

    every = [f"Say {n}." for n in range(6)]
    assert asked_about(6) == asked_about(100) == every
    three, four = asked_about(3), asked_about(4)
    assert len(three) == 3
    assert len(four) == 4
    assert set(three) < set(four)
    assert three == sorted(three)  # in the order of the file
    assert {tuple(asked_about(3, seed)) for seed in range(1, 6)} != {tuple(three)}
    write_rows(pairs, read_rows(pairs)[::-1])
    assert sorted(asked_about(3)) == three


def test_from_pairs_to_every_layout(pairs: Path) -> None:
    made = pasture(
        "people", "new", pairs, "--overlap", 2, "--annotators", "ann,ben,cy", "--wage", 20,
        "--gold", pairs.with_name("gold.jsonl"),
    )  # fmt: skip
    assert "6 pairs, 2 labels each, 3 annotators with about 4 pairs each" in made.output
    campaign = pairs.with_name("pairs.campaign")
    assert "0 labels of 6 pairs, 12 still wanted" in pasture("people", "status", campaign).output
    label(campaign, {"ann": "first", "ben": "first", "cy": "second"})
    shown = pasture("people", "status", campaign).output
    assert "12 labels of 6 pairs." in shown
    # 12 labels and 3 gold pairs, 36 s each: 0.15 hours, 3 dollars at 20 an hour.
    assert "0.1 hours, $3.00 in all" in shown or "0.2 hours, $3.00 in all" in shown
    told = json.loads(pasture("people", "status", campaign, "--json").output)
    assert [row["gold"] for row in told["annotators"]] == [
        {"count": 1, "of": 1}, {"count": 1, "of": 1}, {"count": 0, "of": 1},
    ]  # fmt: skip
    folder = pairs.parent / "out"
    pasture("people", "export", campaign, "--out", folder)
    assert len(read_records(folder / "preferences.jsonl", Preference)) == 12
    for layout in ("trl", "alpaca-eval", "cross-annotations"):
        pasture("people", "export", campaign, "--as", layout, "--out", pairs.parent / f"{layout}.jsonl")
    assert len(read_rows(pairs.parent / "alpaca-eval.jsonl")) == 12
    assert len(read_rows(pairs.parent / "cross-annotations.jsonl")) == 12
    # Where ann and ben met, the first won; where either met cy, there is no majority.
    assert all(str(row["chosen"]).endswith(".") for row in read_rows(pairs.parent / "trl.jsonl"))


def test_to_drop_an_annotator_wants_their_labels_again(pairs: Path) -> None:
    pasture("people", "new", pairs, "--overlap", 2, "--annotators", "ann,ben,cy", "-c", pairs.with_suffix(".campaign"))
    campaign = pairs.with_suffix(".campaign")
    label(campaign, {"ann": "first", "ben": "first", "cy": "first"})
    assert "Dropped cy. 4 labels are wanted now." in pasture("people", "drop", campaign, "cy").output
    label(campaign, {"ann": "first", "ben": "first"})
    assert "12 labels of 6 pairs." in pasture("people", "status", campaign).output
    pasture("people", "close", campaign)
    assert "It is closed." in pasture("people", "status", campaign).output


def test_a_link_is_made_for_one_who_lost_theirs(pairs: Path) -> None:
    pasture("people", "new", pairs, "--annotators", "ann")
    campaign = pairs.with_name("pairs.campaign")
    told = pasture("people", "invite", campaign, "ann", "--address", "https://label.example.org/").output
    assert re.fullmatch(r"https://label\.example\.org/enter/[\w-]{32}\n", told)
    with pytest.raises(PastureError, match=r"no annotator 'bob'\. Annotators: ann"):
        pasture("people", "invite", campaign, "bob")
    assert told.split("/")[-1].strip() not in campaign.read_bytes().decode("latin-1")


def test_simulated_annotators_are_shown_beside_people_on_the_same_pairs(tmp_path: Path) -> None:
    """The meadow's people label as themselves; the same people as a judge agree with them wholly."""
    asked = instructions("validation", 12, seed=5)
    pairs = [
        Comparison.of(
            each,
            Completion(instruction_id=each.id, text=good.text, system="good", seed=0),
            Completion(instruction_id=each.id, text="the", system="bad", seed=0),
        )
        for each, good in zip(asked, demonstrations(asked), strict=True)
    ]
    write_records(tmp_path / "comparisons.jsonl", pairs)
    campaign = tmp_path / "meadow.campaign"
    pasture("people", "new", tmp_path / "comparisons.jsonl", "-c", campaign, "--annotators", "ann")
    kept: Mapping[str, Said] = {"first": "first", "second": "second", "tie": "tie"}
    said = {each.comparison_id: kept[each.preferred] for each in MeadowPeople(seed=0).annotate(pairs)}
    with Desk(open_journal(str(campaign))) as desk:
        answer_all(desk, "ann", said)
    page = tmp_path / "page.html"
    shown = pasture("people", "status", campaign, "--judge", "meadow-people", "--report", page).output
    assert "meadow-people agrees with the majority of people in 100%" in shown
    assert "on 12 pairs" in shown
    assert "12 labels of 12 pairs by 1 annotators" in page.read_text(encoding="utf-8")


def test_labels_from_elsewhere_become_a_campaign_that_is_over(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Say {n}.", "output_1": "x", "output_2": "y", "h1": 1, "h2": 1 + n % 2, "h3": 1}
        for n in range(8)
    ]
    write_rows(tmp_path / "labels.jsonl", rows)
    pasture("people", "import", tmp_path / "labels.jsonl", "--labels", "h1,h2,h3")
    told = json.loads(pasture("people", "status", tmp_path / "labels.campaign", "--json").output)
    assert told["closed"]
    # Of three couples of labels one agrees always, two in half of the pairs: (1 + 0.5 + 0.5) / 3.
    assert told["agreement"]["pairwise"]["value"] == pytest.approx(2 / 3)
    assert [row["prefers_first_shown"]["of"] for row in told["annotators"]] == [0, 0, 0]  # nobody knows the order
    # h2 against h1 and h3, which are always 1: agrees in half, and kappa of chance is 0.
    assert told["agreement"]["by_annotator"]["h2"]["agreement"]["value"] == pytest.approx(0.5)
    assert told["agreement"]["by_annotator"]["h2"]["kappa"]["value"] == pytest.approx(0.0)


def test_errors_say_what_to_do(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PastureError, match=r"no such campaign\. Make one with"):
        pasture("people", "status", tmp_path / "none.campaign")
    with pytest.raises(PastureError, match="at least 3 annotators"):
        pasture("people", "new", pairs, "--overlap", 3, "--annotators", 2)
    assert not pairs.with_name("pairs.campaign").exists()
    pasture("people", "new", pairs)
    with pytest.raises(PastureError, match="there already"):
        pasture("people", "new", pairs)
    with pytest.raises(DataError, match="meadow-pool judged none of 6 pairs"):
        pasture("people", "status", pairs.with_name("pairs.campaign"), "--judge", "meadow-pool")
    with pytest.raises(RecipeError, match="Layouts: records, trl"):
        pasture("people", "export", pairs.with_name("pairs.campaign"), "--as", "xml")
    with pytest.raises(RecipeError, match="in the clear"):
        pasture("people", "serve", pairs.with_name("pairs.campaign"), "--host", "192.0.2.1")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(RecipeError, match="Name the campaign"):
        pasture("people", "status")


def test_without_the_extra_it_is_said_how_to_get_it(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pasture("people", "new", pairs)
    for name in [name for name in sys.modules if name.startswith(("pasture.annotate.page", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(DependencyError, match=r"pip install 'pasture\[people\]'"):
        pasture("people", "serve", pairs.with_name("pairs.campaign"))


def test_one_more_joins_while_the_page_is_open_and_links_lead_to_it(pairs: Path) -> None:
    pasture("people", "new", pairs, "--annotators", "ann,ben")
    campaign = pairs.with_name("pairs.campaign")
    with Desk(open_journal(str(campaign))) as desk:  # as a served page has it
        desk.act(lambda state: acts.serve(state, "https://lab.example.org"), lambda _: None).result()
        told = pasture("people", "add", campaign, "dora").output
        assert re.fullmatch(r"https://lab\.example\.org/enter/[\w-]{32}\n", told)
        assert desk.look(lambda state: state.share_of("dora")).result() == 2
    assert pasture("people", "invite", campaign, "ann").output.startswith("https://lab.example.org/enter/")
    with pytest.raises(DataError, match=r"'dora' is the owner or an annotator already"):
        pasture("people", "add", campaign, "dora")
    pasture("people", "close", campaign)
    with pytest.raises(DataError, match="closed"):
        pasture("people", "add", campaign, "eve")


@pytest.mark.parametrize("share", ["1.0", "1.5", "-0.1", "nan"])
def test_a_round_that_nobody_could_pass_is_refused(pairs: Path, share: str) -> None:
    with pytest.raises(DataError, match=r"--pass: expected a share from 0 to less than 1.*--pass 0\.99"):
        pasture("people", "new", pairs, "--qualify", pairs.with_name("gold.jsonl"), f"--pass={share}")
    assert not pairs.with_name("pairs.campaign").exists()
    pasture("people", "new", pairs, "--qualify", pairs.with_name("gold.jsonl"), "--pass", "0.99")


def test_status_says_of_which_labels_nobody_is_left_to_give_them(pairs: Path) -> None:
    pasture("people", "new", pairs, "--annotators", "ann")
    campaign = pairs.with_name("pairs.campaign")

    def skipped(state: Campaign) -> Sequence[Event]:
        return acts.vote(state, "ann", ballot(state, "ann", "skip", reason="French"))

    with Desk(open_journal(str(campaign))) as desk:
        desk.act(skipped, lambda _: None).result()
    label(campaign, {"ann": "first"})
    shown = pasture("people", "status", campaign).output
    assert "5 labels of 6 pairs, 1 still wanted. Of those, nobody is left to give 1:" in shown
    assert "pasture people add" in shown
    told = json.loads(pasture("people", "status", campaign, "--json").output)
    assert (told["labels"], told["missing"], told["unassigned"]) == (5, 1, 1)
    assert [(row["labels"], row["skipped"]) for row in told["annotators"]] == [(5, 1)]
    pasture("people", "add", campaign, "ben")
    assert "5 labels of 6 pairs, 1 still wanted.\n" in pasture("people", "status", campaign).output


def test_a_mistyped_certificate_leaves_the_links_as_they_are(pairs: Path) -> None:
    pasture("people", "new", pairs, "--annotators", "ann")
    campaign = pairs.with_name("pairs.campaign")
    pasture("people", "invite", campaign, "ann")

    def invited(state: Campaign) -> Mapping[str, object]:
        return dict(state.invited)

    with Desk(open_journal(str(campaign))) as desk:
        before = desk.look(invited).result()
    files = ("--tls-cert", pairs.with_name("cret.pem"), "--tls-key", pairs.with_name("key.pem"))
    with pytest.raises(RecipeError, match=r"--tls-cert \S*cret\.pem: No such file"):
        pasture("people", "serve", campaign, "--port", 0, "--new-links", *files)
    with Desk(open_journal(str(campaign))) as desk:
        assert desk.look(invited).result() == before


@pytest.mark.parametrize("layout", ["trl", "alpaca-eval", "cross-annotations", "records"])
def test_a_campaign_is_not_written_over_by_its_export_or_report(pairs: Path, layout: str) -> None:
    pasture("people", "new", pairs, "--annotators", "ann")
    campaign = pairs.with_name("pairs.campaign")
    label(campaign, {"ann": "first"})
    (pairs.parent / "link").symlink_to(campaign)
    (pairs.parent / "twin").hardlink_to(campaign)
    (pairs.parent / "elsewhere").symlink_to(pairs.parent)
    kept, names = campaign.read_bytes(), sorted(pairs.parent.iterdir())
    beside = [campaign.with_name(campaign.name + end) for end in ("-wal", "-shm", "-journal")]
    for read in (campaign, pairs.parent / "link"):
        for out in (campaign, *map(pairs.parent.joinpath, ("link", "twin", "elsewhere/pairs.campaign")), *beside):
            with pytest.raises(DataError, match=rf"{out.name} is what is read, and it is not overwritten"):
                pasture("people", "export", read, "--as", layout, "--out", out)
            with pytest.raises(DataError, match=rf"{out.name} is what is read, and it is not overwritten"):
                pasture("people", "status", read, "--report", out)
    assert campaign.read_bytes() == kept
    assert sorted(pairs.parent.iterdir()) == names


def test_the_records_of_a_campaign_are_not_written_over_it_within_their_folder(pairs: Path) -> None:
    campaign = pairs.with_name("preferences.jsonl")
    pasture("people", "new", pairs, "--annotators", "ann", "-c", campaign)
    kept = campaign.read_bytes()
    with pytest.raises(DataError, match=r"preferences\.jsonl is what is read, and it is not overwritten"):
        pasture("people", "export", campaign, "--out", pairs.parent)
    assert campaign.read_bytes() == kept
    assert not pairs.with_name("comparisons.jsonl").exists()


def test_a_file_without_answers_is_named_with_all_its_columns(pairs: Path) -> None:
    bad = pairs.with_name("bad.jsonl")
    write_rows(bad, [{"instruction": "x", "dataset": "d", "reply": "a", "note": "n", "preference": 1}])
    columns = (
        r"bad\.jsonl, row 1: expected text in column 'output_1', got columns instruction, dataset, reply, note, pref"
    )
    with pytest.raises(DataError, match=columns):
        pasture("people", "new", bad)
    with pytest.raises(DataError, match=columns):
        pasture("people", "new", pairs, "--gold", bad)
    bad.write_text("")
    with pytest.raises(DataError, match=r"bad\.jsonl: the file holds no rows"):
        pasture("people", "new", bad)


def test_a_column_of_annotators_that_is_not_there_is_named(pairs: Path) -> None:
    rows = [{**row, "preference": 1, "who": who} for row in read_rows(pairs) for who in ("ann", "ben")]
    write_rows(pairs, rows)
    said = r"pairs\.jsonl: no column 'nonsense', which is to name the annotators\. Columns: instruction, .*, who\."
    with pytest.raises(DataError, match=said):
        pasture("people", "import", pairs, "--annotator", "nonsense")
    pasture("people", "import", pairs, "--annotator", "who")
    told = json.loads(pasture("people", "status", pairs.with_name("pairs.campaign"), "--json").output)
    assert sorted(row["name"] for row in told["annotators"]) == ["ann", "ben"]


def test_an_answer_that_is_true_is_the_same_text_for_whoever_reads_it(pairs: Path) -> None:
    # PandaLM's file holds one such row.
    write_rows(pairs, [{"instruction": "Is it so?", "output_1": True, "output_2": "No.", "preference": 1}])
    pasture("people", "new", pairs, "--gold", pairs.with_name("gold.jsonl"), "-c", pairs.with_name("new.campaign"))
    pasture("people", "import", pairs, "-c", pairs.with_name("old.campaign"))
    answers = []
    for name in ("new", "old"):
        with Desk(open_journal(str(pairs.with_name(f"{name}.campaign")))) as desk:
            (pair,) = desk.look(lambda campaign: campaign.of_role("work")).result()
        answers.append((pair.comparison.first.text, pair.comparison.second.text))
    assert answers == [("true", "No.")] * 2
