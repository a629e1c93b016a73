"""A paid answer is stored before it is used: what the server billed, whatever happens to those who ask."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pasture.core.requests import Reply
from pasture.core.store import AnswerStore
from pasture.engines.api import ApiEngine
from pasture.engines.cached import CachedEngine
from pasture.engines.settings import Address, ApiSettings
from tests.engines.conftest import KEY_ENV, ask
from tests.engines.fake_server import KEY, ROOT, FakeServer

COUNT = 120
IN_FLIGHT = 10
"""What the programs are told, and so the most that one of them may have been billed for and not yet have stored."""

PATIENCE_SECONDS = 400.0
"""With a dozen busy processes on two cores a start alone takes half a minute."""

pytestmark = pytest.mark.timeout(900)


def start(server: FakeServer, store: Path, *, count: int = COUNT, reserve: int = 2**18) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.engines.asking_process", server.base_url, str(store), str(count)]
    environment = {**os.environ, KEY_ENV: KEY}
    return subprocess.Popen(
        [*command, str(IN_FLIGHT), str(reserve)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Last line of its output, and its errors."""
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return out.splitlines()[-1] if out else "", errors


def undisturbed(server: FakeServer, store: Path, **options: int) -> str:
    process = start(server, store, **options)
    answers, errors = finish(process)
    assert process.returncode == 0, errors
    return answers


def times_billed(server: FakeServer) -> Counter[str]:
    return Counter(row["prompt"] for row in server.billed())


def after_billing(server: FakeServer, calls: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.billed_count() < calls:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_writers_pay_for_each_question_once(server: FakeServer, tmp_path: Path) -> None:
    server.behave(latency_seconds=0.05)
    both = [start(server, tmp_path / "s.sqlite") for _ in range(2)]
    answers = [finish(process)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    assert set(times_billed(server).values()) == {1}
    assert len(server.billed()) == COUNT


def test_sigterm_loses_nothing(server: FakeServer, tmp_path: Path) -> None:
    server.behave(latency_seconds=0.2)
    process = start(server, tmp_path / "s.sqlite")
    after_billing(server, 25)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert process.returncode == 128 + signal.SIGTERM
    paid = len(server.billed())
    assert 25 <= paid < COUNT
    undisturbed(server, tmp_path / "s.sqlite")
    assert len(server.billed()) == COUNT
    assert set(times_billed(server).values()) == {1}


def test_a_storm_of_429_costs_nothing(server: FakeServer, tmp_path: Path) -> None:
    server.behave(faults={"429": 2, "500": 1}, faulty_share=0.5, retry_after="0.1", requests_per_second=60)
    undisturbed(server, tmp_path / "s.sqlite")
    assert server.counts()["requests"] > 1.5 * COUNT  # there was a storm
    assert len(server.billed()) == COUNT
    assert set(times_billed(server).values()) == {1}


def stored_count(store: Path) -> int:
    with contextlib.closing(sqlite3.connect(store)) as database:
        return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])


def billed_by_now(server: FakeServer) -> int:
    """Once the server has dealt with all that the dead left in its buffers."""
    before = -1
    while before != server.billed_count() or server.counts()["in_flight"]:
        before = server.billed_count()
        time.sleep(0.1)
    return before


def kill_at_random(server: FakeServer, store: Path, kills: int, count: int) -> list[int]:
    """Start, let it pay for a few answers, kill -9, start again, `kills` times; what each kill lost."""
    chance = random.Random(kills)
    lost: list[int] = []
    for _ in range(kills):
        before = server.billed_count()
        process = start(server, store, count=count)
        after_billing(server, before + chance.randint(1, count // kills // 2))
        time.sleep(chance.uniform(0.0, 0.1))  # between two answers, within a commit, anywhere
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        lost.append(billed_by_now(server) - stored_count(store) - sum(lost))
    return lost


@pytest.mark.parametrize(
    ("kills", "count"), [(3, 120), pytest.param(50, 2000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_kill_9_costs_at_most_the_calls_in_flight(server: FakeServer, tmp_path: Path, kills: int, count: int) -> None:
    server.behave(latency_seconds=0.05)
    expected = undisturbed(server, tmp_path / "undisturbed.sqlite", count=count)
    server.ledger.unlink()
    lost = kill_at_random(server, tmp_path / "s.sqlite", kills, count)
    assert max(lost) <= IN_FLIGHT, lost
    assert undisturbed(server, tmp_path / "s.sqlite", count=count) == expected
    assert len(times_billed(server)) == count
    assert len(server.billed()) == count + sum(lost)
    print(f"{kills} kills lost {sum(lost)} answers, at most {max(lost)} each")  # noqa: T201 - read with -s


@pytest.mark.parametrize("addresses", [1, 2, 3])
def test_a_call_is_in_flight_until_its_answer_is_on_disk(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, addresses: int
) -> None:
    disk_is_free = threading.Event()
    commit = AnswerStore._commit

    def stalled(store: AnswerStore, jobs: Any) -> Any:
        disk_is_free.wait(PATIENCE_SECONDS)
        return commit(store, jobs)

    monkeypatch.setattr(AnswerStore, "_commit", stalled)
    settings = ApiSettings(endpoints=(Address(base_url=server.base_url, api_key_env=KEY_ENV),) * addresses, in_flight=5)
    with AnswerStore(tmp_path / "s.sqlite") as store, ApiEngine(settings) as api:
        replies: list[Reply] = []
        questions = [ask(f"question {number}") for number in range(40)]
        asking = threading.Thread(target=lambda: replies.extend(CachedEngine(api, store).run(questions)))
        asking.start()
        try:
            after_billing(server, 5)
            assert billed_by_now(server) == 5  # what a kill would cost now
        finally:
            disk_is_free.set()
            asking.join(PATIENCE_SECONDS)
    assert len(replies) == len(server.billed()) == 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_stops_the_asking_and_loses_nothing(server: FakeServer, small_disk: Path) -> None:
    server.behave(latency_seconds=0.05)
    process = start(server, small_disk / "s.sqlite", count=1000, reserve=2**18)
    _, errors = finish(process)
    assert process.returncode == 1
    assert "no room left on the disk" in errors
    paid = len(server.billed())
    assert 50 < paid < 1000
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    undisturbed(server, small_disk / "s.sqlite", count=1000)
    assert len(server.billed()) == 1000
    assert set(times_billed(server).values()) == {1}


def test_no_key_is_written_anywhere(server: FakeServer, tmp_path: Path) -> None:
    server.behave(faults={"leaky 401": 1})
    process = start(server, tmp_path / "s.sqlite")
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "Incorrect API key provided: [key]" in errors
    server.behave(answer=f"the server lets slip {KEY}")
    answers = undisturbed(server, tmp_path / "s.sqlite")
    assert "[key]" in answers
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 2
    assert all(KEY.encode() not in content for content in [*written, (out + errors + answers).encode()])
