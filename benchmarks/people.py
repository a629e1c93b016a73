"""How long people wait: votes and pages of a served campaign under a steady load, on SQLite and on Postgres.

    python benchmarks/people.py                       20 annotators, 200 pairs each, 50 votes a second, on SQLite
    python benchmarks/people.py --postgres ADDRESS    the same on postgresql://USER@HOST/DATABASE
    python benchmarks/people.py --own-postgres        the same on a server of Debian's PostgreSQL, started for it

The server is `pasture people serve` in a process of its own; clients keep their connections, as browsers do. A vote's
time ends with its confirmation, when it is on disk; a page's with its last byte.
"""

import argparse
import asyncio
import contextlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.annotate.people import postgres_server  # noqa: E402
from tests.annotate.people.campaigns import opening_events  # noqa: E402
from tests.annotate.people.served import hidden_fields  # noqa: E402

from pasture.annotate.campaign.address import open_journal  # noqa: E402
from pasture.annotate.campaign.desk import Desk, begin  # noqa: E402


@contextlib.contextmanager
def serving(address: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The page's address and the token of each annotator."""
    command = [sys.executable, "-m", "pasture", "people", "serve", address, "--port", "0"]
    environment = {**os.environ, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    origin, tokens = "", {}
    while "Ctrl-C" not in (line := process.stdout.readline()):
        if found := re.match(r"Serving at (\S+?)\. ", line):
            origin = found[1]
        if found := re.match(r"  (p\d+) +\S+/enter/(\S+)", line):
            tokens[found[1]] = found[2]
    try:
        yield origin, tokens
    finally:
        process.terminate()
        process.wait()


class Times:
    """Seconds that people waited."""

    def __init__(self) -> None:
        self.votes: list[float] = []
        self.pages: list[float] = []
        self.late = 0.0
        """How far the load fell behind its pace at worst, in seconds."""


async def annotator(origin: str, token: str, seconds_a_vote: float, first: float, times: Times) -> None:
    """Everything before one annotator, at a steady pace."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": origin}) as session:
        async with session.get(f"{origin}/enter/{token}") as reply:
            assert reply.status == 200
        due = first
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            times.late = max(times.late, time.perf_counter() - due)
            due += seconds_a_vote
            begun = time.perf_counter()
            async with session.get(f"{origin}/pair", allow_redirects=False) as reply:
                page = await reply.text()
            if reply.status == 303:
                return
            times.pages.append(time.perf_counter() - begun)
            fields = hidden_fields(page.partition('action="/vote"')[2].partition("</form>")[0])
            begun = time.perf_counter()
            async with session.post(f"{origin}/vote", data={**fields, "said": "first"}, allow_redirects=False) as reply:
                assert reply.status == 303, await reply.text()
            times.votes.append(time.perf_counter() - begun)


async def load(origin: str, tokens: dict[str, str], votes_per_second: float) -> Times:
    """All annotators at once, their votes spread evenly over time."""
    times = Times()
    seconds_a_vote = len(tokens) / votes_per_second
    start = time.perf_counter() + 1
    people = [
        annotator(origin, token, seconds_a_vote, start + number / votes_per_second, times)
        for number, token in enumerate(tokens.values())
    ]
    await asyncio.gather(*people)
    return times


def run(address: str, annotators: int, pairs: int, votes_per_second: float) -> None:
    """Make, serve, load, print."""
    journal = open_journal(address, create=True)
    begin(journal, opening_events(pairs, [f"p{n}" for n in range(annotators)], overlap=annotators))
    journal.close()
    begun = time.perf_counter()
    with serving(address) as (origin, tokens):
        times = asyncio.run(load(origin, tokens, votes_per_second))
    took = time.perf_counter() - begun
    with Desk(open_journal(address)) as desk:
        missing = desk.look(lambda campaign: campaign.missing_labels()).result()
    print(f"{len(times.votes)} votes in {took:.0f} s, {missing} missing; at most {times.late:.2f} s behind the pace")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy, crowd = used.ru_utime + used.ru_stime, os.getloadavg()[0]
    print(f"server: {busy:.1f} s of CPU, its start included; load of the machine: {crowd:.1f}")
    for name, seconds in (("vote", times.votes), ("page", times.pages)):
        low, middle, high, most = 1000 * np.percentile(seconds, [50, 95, 99, 100])
        print(f"{name}: median {low:.1f} ms, p95 {middle:.1f} ms, p99 {high:.1f} ms, longest {most:.1f} ms")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=200, help="for each annotator")
    parser.add_argument("--votes-per-second", type=float, default=50.0)
    parser.add_argument("--postgres", help="an address without a campaign's name")
    parser.add_argument("--own-postgres", action="store_true")
    options = parser.parse_args()
    size = options.annotators, options.pairs, options.votes_per_second
    with contextlib.ExitStack() as stack:
        database = options.postgres
        if options.own_postgres:
            database = stack.enter_context(postgres_server.server())
        if database:
            run(f"{database}#benchmark-{time.time_ns()}", *size)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            run(f"{folder}/benchmark.campaign", *size)


if __name__ == "__main__":
    main()
