"""Where a campaign lies, from what the user writes: the path of a file, or a database's address and a name."""

import importlib
from pathlib import Path

from pasture.annotate.campaign.journal import Journal, SqliteJournal
from pasture.core.errors import DependencyError

SUFFIX = ".campaign"
"""What the names of campaigns' files end in."""
_DATABASES = ("postgresql://", "postgres://")


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


def is_campaign(address: str) -> bool:
    """Whether an address is that of a campaign, and not of some other file."""
    return address.startswith(_DATABASES) or address.endswith(SUFFIX)


def name_of(address: str) -> str:
    """What the campaign is called in its address."""
    return address.partition("#")[2] if address.startswith(_DATABASES) else Path(address).name.removesuffix(SUFFIX)
