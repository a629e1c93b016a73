"""Where a campaign lies, from what the user writes: the path of a file, or a database's address and a name."""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pasture.annotate.campaign.desk import begin
from pasture.annotate.campaign.events import Event
from pasture.annotate.campaign.journal import CampaignExistsError, Journal, SqliteJournal
from pasture.core.errors import DependencyError, StoreError
from pasture.core.files import require_apart
from pasture.core.records import content_id

SUFFIX = ".campaign"
"""What the names of campaigns' files end in."""
_DATABASES = ("postgresql://", "postgres://")
_BESIDE = ("", "-wal", "-shm", "-journal")
"""What the names of SQLite's files add to a campaign's."""


def open_journal(address: str, *, create: bool = False) -> Journal:
    """The journal at `address`: a path, or `postgresql://USER@HOST/DATABASE#CAMPAIGN`.

    Raises:
        StoreError: if it cannot be opened, or is there where a new one is to be made.
        DependencyError: for a database where the extra [postgres] is not installed.
    """
    if not address.startswith(_DATABASES):
        return SqliteJournal(Path(address), create=create)
    try:
        postgres = importlib.import_module("pasture.annotate.campaign.postgres")
    except ImportError as error:
        raise DependencyError(
            f"{address.partition('@')[2] or 'a database'}: a campaign in a database needs SQLAlchemy and psycopg. "
            "Install them with: pip install 'pasture[postgres]'"
        ) from error
    journal: Journal = postgres.PostgresJournal("postgresql://" + address.partition("://")[2], create=create)
    return journal


def new_campaign(address: str, events: Sequence[Event]) -> None:
    """Make a campaign that begins with `events`: whole or not at all, whenever the program may be killed.

    Raises:
        CampaignExistsError: if there is one at `address`.
        StoreError: if it cannot be written.
        DependencyError: as `open_journal`.
    """
    if address.startswith(_DATABASES):
        _begin(address, events)
        return
    path = Path(address)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as unfinished:
            whole = Path(unfinished) / path.name
            _begin(str(whole), events)
            os.link(whole, path)  # unlike a renaming, this takes nobody's place
    except FileExistsError as error:
        raise CampaignExistsError(f"{path} is there already. Name another file, or go on with this one.") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}. Choose another place for the campaign.") from error


def _begin(address: str, events: Sequence[Event]) -> None:
    with contextlib.closing(open_journal(address, create=True)) as journal:
        begin(journal, events)


def require_apart_from(address: str, *targets: Path) -> None:
    """See that nothing is to be written over a campaign's file, or where SQLite keeps its files beside it.

    Raises:
        DataError: naming the target, by whatever path or link it leads there.
    """
    if address.startswith(_DATABASES):
        return
    campaign = Path(address)
    own = [path.with_name(path.name + end) for path in (campaign, campaign.resolve()) for end in _BESIDE]
    for target in targets:
        require_apart(target, *own)


def is_campaign(address: str) -> bool:
    """Whether an address is that of a campaign, and not of some other file."""
    return address.startswith(_DATABASES) or address.endswith(SUFFIX)


def identity_at(address: str) -> str:
    """The identity of a campaign that a run makes at `address`, known before it is made; it stays when that moves."""
    place = (
        address.partition("://")[2].rpartition("@")[2] if address.startswith(_DATABASES) else Path(address).resolve()
    )
    return content_id("campaign", str(place))


def name_of(address: str) -> str:
    """What the campaign is called in its address."""
    return address.partition("#")[2] if address.startswith(_DATABASES) else Path(address).name.removesuffix(SUFFIX)
