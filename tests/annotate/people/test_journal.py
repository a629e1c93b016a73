"""What every journal promises, asked of both: lines in order, one writer, all or nothing, damage seen."""

import sqlite3
import stat
import threading
import time
from pathlib import Path

import psycopg
import pytest

from pasture.annotate.campaign.address import open_journal
from pasture.annotate.campaign.desk import Desk, begin
from pasture.annotate.campaign.journal import SqliteJournal
from pasture.core.errors import RecipeError, StoreError
from tests.annotate.people.campaigns import opening_events
from tests.annotate.people.conftest import OpenJournal


def test_lines_come_back_in_order_with_their_places(open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    with journal.writing():
        written = [journal.append(f"k{n}", f"line {n} é \u202e \n 漢") for n in range(5)]
    assert [entry.position for entry in written] == [1, 2, 3, 4, 5]
    assert list(journal.read(0)) == written
    assert list(journal.read(3)) == written[3:]
    assert list(open_again().read(0)) == written


def test_nothing_of_a_block_that_fails_is_written(open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    with journal.writing():
        journal.append("a", "kept")

    def fail_after_a_line() -> None:
        with journal.writing():
            journal.append("b", "lost")
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail_after_a_line()
    assert [entry.body for entry in journal.read(0)] == ["kept"]
    with journal.writing():
        assert journal.append("b", "next").position == 2


def test_a_key_is_used_once(open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    with journal.writing():
        journal.append("turn/ann/0", "one")
    with pytest.raises(StoreError), journal.writing():
        journal.append("turn/ann/0", "two")
    assert [entry.body for entry in journal.read(0)] == ["one"]


def test_a_writer_reads_its_own_lines_and_others_do_not_before_the_end(open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    with journal.writing():
        journal.append("a", "one")
    watcher = open_again()
    with journal.writing():
        journal.append("b", "two")
        assert len(journal.read(0)) == 2
        assert len(watcher.read(0)) == 1
    assert len(watcher.read(0)) == 2


def test_writers_wait_for_one_another(open_again: OpenJournal) -> None:
    # Each reads the last number and writes the next: without a lock around both, numbers would be written twice.
    first = open_again(create=True)
    with first.writing():
        first.append("n0", "0")
    journals = [first, *(open_again() for _ in range(3))]

    def count_up(journal) -> None:
        for _ in range(15):
            with journal.writing():
                last = int(journal.read(0)[-1].body)
                time.sleep(0.002)  # long enough for the others to come between, were there no lock
                journal.append(f"n{last + 1}", str(last + 1))

    threads = [threading.Thread(target=count_up, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(entry.body) for entry in first.read(0)] == list(range(61))


def test_a_changed_line_is_seen(address: str, open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    begin(journal, opening_events(3))
    if address.startswith("postgresql"):
        with psycopg.connect(address.partition("#")[0]) as database:
            database.execute(
                "UPDATE pasture_events SET body = replace(body, 'tests', 'other') WHERE position = 1 AND campaign = %s",
                (address.partition("#")[2],),
            )
    else:
        with sqlite3.connect(address) as direct:
            direct.execute("UPDATE events SET body = replace(body, 'tests', 'other') WHERE position = 1")
        direct.close()
    with pytest.raises(StoreError, match="damaged: line 1"):
        Desk(journal)


def test_a_missing_line_is_seen(address: str, open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    begin(journal, opening_events(3))
    if address.startswith("postgresql"):
        with psycopg.connect(address.partition("#")[0]) as database:
            database.execute(
                "DELETE FROM pasture_events WHERE position = 2 AND campaign = %s", (address.partition("#")[2],)
            )
    else:
        with sqlite3.connect(address) as direct:
            direct.execute("DELETE FROM events WHERE position = 2")
        direct.close()
    with pytest.raises(StoreError, match="damaged: line 2"):
        journal.read(0)


def test_a_campaign_that_is_not_there_and_one_that_is(address: str, open_again: OpenJournal) -> None:
    if address.startswith("postgresql"):  # the table is made with the first campaign of a database
        open_journal(address.partition("#")[0] + "#another", create=True).close()
    with pytest.raises(StoreError, match="no such campaign"):
        open_again()
    begin(open_again(create=True), opening_events(1))
    with pytest.raises(StoreError, match=r"already|there already"):
        begin(open_again(create=True), opening_events(1))


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "a.campaign", create=True).close()
    assert stat.S_IMODE((tmp_path / "a.campaign").stat().st_mode) == 0o600


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.campaign") as other:
        other.execute("CREATE TABLE t (a)")
    other.close()
    with pytest.raises(StoreError, match="database of something else"):
        open_journal(str(tmp_path / "x.campaign"))
    (tmp_path / "y.campaign").write_text("hello, I am no database at all, but a text that is long enough" * 20)
    with pytest.raises(StoreError, match="not a database"):
        open_journal(str(tmp_path / "y.campaign"))


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(RecipeError, match="pgpass") as caught:
        open_journal("postgresql://me:hunter2secret@localhost/labels#round")
    assert "hunter2secret" not in str(caught.value)


def test_an_address_without_a_campaign_and_a_server_that_is_not_there_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="#first-round"):
        open_journal("postgresql://me@localhost/labels")
    with pytest.raises(StoreError, match="server can be reached"):
        open_journal(f"postgresql://me@/labels?host={tmp_path}#round")
