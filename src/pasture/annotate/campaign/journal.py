"""Where a campaign's events are kept: lines of text, appended by one writer at a time, on disk before anyone is told.

`SqliteJournal` is a file for one machine; `postgres` holds the same for several. Whoever writes first locks, so that
what they decide rests on everything that was written before.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from pasture.core.errors import StoreError
from pasture.core.store import BUSY_SECONDS, FIRST_SAFE_WAL

SCHEMA_VERSION = 1
APPLICATION_ID = 0x50415354
"""In the header of the file, so that a campaign is told from a store of answers."""

_SCHEMA = """
CREATE TABLE events (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL, digest TEXT NOT NULL,
    written_at REAL NOT NULL
);
"""


class NoCampaignError(StoreError):
    """There is nothing where a campaign was looked for."""


class CampaignExistsError(StoreError):
    """There is a campaign where one was to be made."""


class Entry(NamedTuple):
    """An event as it stands in the journal."""

    position: int
    body: str
    written_at: float
    """Seconds since 1970."""


class Journal(Protocol):
    """Lines in order. Used by one thread at a time."""

    def read(self, after: int) -> Sequence[Entry]:
        """What stands behind position `after`, in order; all for 0."""
        ...

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Keeps all other writers out; what was appended in the block is on disk when it ends, or none of it is."""
        ...

    def append(self, key: str, body: str) -> Entry:
        """Add a line, within `writing`. A key can be used once."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class SqliteJournal:
    """A file that holds one campaign."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the file, or begin one, which only its owner can read.

        Raises:
            StoreError: if it is there and should not be, is not there and should, is none, or cannot be written.
        """
        self.path = path
        if create:
            _make_private(path)
        elif not path.is_file():
            raise NoCampaignError(
                f"{path}: no such campaign. Make one with: pasture people new PAIRS --campaign {path}"
            )
        with self._described():
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(create)
            except BaseException:
                self._database.close()
                raise

    def _prepare(self, create: bool) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        if not create and application != APPLICATION_ID:
            raise StoreError(f"{self.path} is a database of something else. Name the file of a campaign.")
        if not create and version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} is of version {version}, this Pasture reads {SCHEMA_VERSION}. Use the one that wrote it."
            )
        mode = "WAL" if sqlite3.sqlite_version_info >= FIRST_SAFE_WAL else "TRUNCATE"
        self._database.execute(f"PRAGMA journal_mode={mode}")
        self._database.execute("PRAGMA synchronous=FULL")
        if create:
            self._database.executescript(
                f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA application_id={APPLICATION_ID};"
                f"PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )

    def read(self, after: int) -> Sequence[Entry]:
        """What stands behind position `after`, in order.

        Raises:
            StoreError: if a line is not what was written, or one is missing.
        """
        with self._described():
            rows = self._database.execute(
                "SELECT position, body, written_at, digest FROM events WHERE position > ? ORDER BY position", (after,)
            ).fetchall()
        return checked(rows, after, str(self.path))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps all other writers out until the block ends."""
        with self._described():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def append(self, key: str, body: str) -> Entry:
        """Add a line."""
        (last,) = self._database.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        entry = Entry(last + 1, body, time.time())
        self._database.execute(
            "INSERT INTO events (position, key, body, digest, written_at) VALUES (?,?,?,?,?)",
            (entry.position, key, body, line_digest(entry.position, body), entry.written_at),
        )
        return entry

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            what = "make room on the disk" if full else "check that the file can be written and restore it if damaged"
            raise StoreError(f"{self.path}: {error}. Nothing that was confirmed is lost; {what}.") from error


def line_digest(position: int, body: str) -> str:
    """What a line is checked against when it is read."""
    return hashlib.sha256(f"{position}\n{body}".encode()).hexdigest()[:16]


def checked(rows: Sequence[tuple[int, str, float, str]], after: int, where: str) -> Sequence[Entry]:
    """Rows of position, body, time and digest as entries.

    Raises:
        StoreError: if one was changed or is missing.
    """
    for expected, (position, body, _, digest) in enumerate(rows, start=after + 1):
        if position != expected or digest != line_digest(position, body):
            raise StoreError(f"{where} is damaged: line {expected} is not what was written. Restore a backup.")
    return [Entry(position, body, written_at) for position, body, written_at, _ in rows]


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise CampaignExistsError(
            f"{path} is there already. Name another file, or go on with that campaign."
        ) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}. Choose another place for the campaign.") from error
