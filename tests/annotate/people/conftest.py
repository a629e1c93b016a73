"""Journals of both kinds."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pasture.annotate.campaign.address import open_journal
from pasture.annotate.campaign.journal import Journal
from tests.annotate.people import postgres_server

OpenJournal = Callable[..., Journal]
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    reason = postgres_server.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres_server.server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a campaign can be made, on either kind of store."""
    if request.param == "sqlite":
        return str(tmp_path / "tests.campaign")
    return f"{request.getfixturevalue('postgres')}#tests-{next(_NUMBERS)}"


@pytest.fixture
def open_again(address: str) -> Iterator[OpenJournal]:
    """Opens one more journal on the same campaign; all are closed in the end."""
    opened = []

    def open_one(*, create: bool = False) -> Journal:
        opened.append(open_journal(address, create=create))
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()
