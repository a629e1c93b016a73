"""kill -9 of the server while people vote: what was confirmed is there, and nothing is there twice."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO

import pytest

from pasture.annotate.campaign.address import open_journal
from pasture.annotate.campaign.desk import Desk, begin
from pasture.annotate.campaign.events import EVENT, Voted
from tests.annotate.people.campaigns import opening_events
from tests.annotate.people.served import Person, Served

CLIENTS, VOTES_EACH = 8, 25


class Process:
    """`pasture people serve` as a process, and the links that it printed."""

    def __init__(self, address: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "pasture", "people", "serve", address, "--port", str(port)]
        environment = {**os.environ, "COLUMNS": "300"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.origin, self.tokens = "", {}
        assert self.process.stdout is not None
        for line in _lines(self.process.stdout):
            if found := re.match(r"Serving at (\S+?)\. ", line):
                self.origin = found[1]
            if found := re.match(r"  (\S+) +\S+/enter/(\S+)", line):
                self.tokens[found[1]] = found[2]
            if "Ctrl-C" in line:
                break

    @property
    def port(self) -> int:
        return int(self.origin.rsplit(":", 1)[1])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        assert self.process.stdout is not None
        self.process.wait(20)
        self.process.stdout.close()


def _lines(stream: IO[str]) -> Iterator[str]:
    while line := stream.readline():
        yield line


class Voter(threading.Thread):
    """Answers all its pairs; asks again whenever the server was not there."""

    def __init__(self, person: Person, done: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self.person, self.done = person, done
        self.confirmed: list[str] = []

    def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, AssertionError):  # no server, or half a reply
                reply = self.person.get("/pair")
                if reply.status == 303:
                    return
                if reply.status != 200:
                    continue
                item = self.person.fields["item"]
                if self.person.vote("first").status == 303:
                    self.confirmed.append(item)
                    self.done(item)
                continue
            time.sleep(0.05)


@pytest.mark.slow
def test_no_confirmed_vote_is_lost_and_none_is_there_twice(address: str) -> None:
    names = [f"p{n}" for n in range(CLIENTS)]
    journal = open_journal(address, create=True)
    begin(journal, opening_events(CLIENTS * VOTES_EACH, names))
    journal.close()
    first = Process(address)
    server = Served(first.origin, None, first.tokens)  # type: ignore[arg-type]  # the desk is in the other process
    enough = {count: threading.Event() for count in (40, 90, 150)}
    count = Counter[str]()
    lock = threading.Lock()

    def done(item: str) -> None:
        with lock:
            count[item] += 1
            for wanted, event in enough.items():
                if sum(count.values()) >= wanted:
                    event.set()

    voters = [Voter(server.person(name), done) for name in names]
    for voter in voters:
        voter.start()
    running = first
    for event in enough.values():
        assert event.wait(60)
        running.kill()
        running = Process(address, first.port)
        assert running.tokens == {}  # the links of the first stay good
    for voter in voters:
        voter.join(120)
        assert not voter.is_alive()
    running.process.send_signal(signal.SIGTERM)
    running.wait()
    assert running.process.returncode == 0
    journal = open_journal(address)
    events = [EVENT.validate_json(entry.body) for entry in journal.read(0)]
    votes = [each for each in events if isinstance(each, Voted)]
    confirmed = [item for voter in voters for item in voter.confirmed]
    assert set(confirmed) <= {vote.item for vote in votes}
    assert len({vote.item for vote in votes}) == len(votes) == CLIENTS * VOTES_EACH
    with Desk(journal) as desk:
        assert desk.look(lambda campaign: campaign.missing_labels()).result() == 0
