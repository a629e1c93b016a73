"""A paid answer is stored before it is used: what the server billed, whatever happens to those who ask."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.conftest import KEY_ENV
from tests.engines.fake_server import KEY, ROOT, FakeServer

COUNT = 120
IN_FLIGHT = 10
UNCOMMITTED = IN_FLIGHT + IN_FLIGHT // 2
"""Calls that a process may have sent and not yet committed: see ApiEngine.in_flight."""

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


def kill_at_random(server: FakeServer, store: Path, kills: int, count: int) -> None:
    """Start, let it pay for a few answers, kill -9, start again, `kills` times."""
    chance = random.Random(kills)
    for _ in range(kills):
        before = server.billed_count()
        process = start(server, store, count=count)
        after_billing(server, before + chance.randint(1, count // kills // 2))
        time.sleep(chance.uniform(0.0, 0.1))  # between two answers, within a commit, anywhere
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("kills", "count"), [(3, 120), pytest.param(50, 2000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_kill_9_costs_at_most_the_calls_in_flight(server: FakeServer, tmp_path: Path, kills: int, count: int) -> None:
    server.behave(latency_seconds=0.05)
    expected = undisturbed(server, tmp_path / "undisturbed.sqlite", count=count)
    server.ledger.unlink()
    kill_at_random(server, tmp_path / "s.sqlite", kills, count)
    assert undisturbed(server, tmp_path / "s.sqlite", count=count) == expected
    assert len(times_billed(server)) == count
    assert len(server.billed()) <= count + kills * UNCOMMITTED


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
