"""A campaign's journal on Postgres, for several machines or many annotators; several campaigns share a database.

Writers take a lock that belongs to the campaign's name and is let go with the transaction, so no line can be written
between the reading and the deciding. A commit waits for the disk of the server.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import cast

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pasture.annotate.campaign.journal import Entry, NoCampaignError, checked, line_digest
from pasture.core.errors import RecipeError, StoreError

_METADATA = MetaData()
_EVENTS = Table(
    "pasture_events",
    _METADATA,
    Column("campaign", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("key", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("written_at", Double, nullable=False),
    UniqueConstraint("campaign", "key"),
)


class PostgresJournal:
    """The lines of one campaign, in a table that campaigns share."""

    def __init__(self, address: str, *, create: bool = False) -> None:
        """Open `postgresql://USER@HOST/DATABASE#CAMPAIGN`; with `create`, make the table where there is none.

        Raises:
            RecipeError: if the address names no campaign, or holds a password.
            StoreError: if the database cannot be reached or used.
        """
        location, _, self.name = address.partition("#")
        url = make_url(location)
        if not self.name:
            raise RecipeError(f"{location}: add the campaign's name, as in postgresql://me@host/labels#first-round")
        if url.password is not None:
            raise RecipeError(
                "keep the password out of the address, where every process of the machine can read it: put it into "
                "~/.pgpass or the variable PGPASSWORD."
            )
        self._where = f"{url.render_as_string()}#{self.name}"
        self._engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_size=2, pool_pre_ping=True)
        self._connection: Connection | None = None
        try:
            with self._described():
                if create:
                    _METADATA.create_all(self._engine)
                elif not inspect(self._engine).has_table(_EVENTS.name) or not self.read(0):
                    raise NoCampaignError(f"{self._where}: no such campaign. Make one with: pasture people new PAIRS")
        except BaseException:
            self._engine.dispose()
            raise

    def read(self, after: int) -> Sequence[Entry]:
        """What stands behind position `after`, in order.

        Raises:
            StoreError: if a line is not what was written, or one is missing.
        """
        columns = (_EVENTS.c.position, _EVENTS.c.body, _EVENTS.c.written_at, _EVENTS.c.digest)
        mine = (_EVENTS.c.campaign == self.name, _EVENTS.c.position > after)
        query = select(*columns).where(*mine).order_by(_EVENTS.c.position)
        with self._described():
            if self._connection is not None:
                rows = self._connection.execute(query).all()
            else:
                with self._engine.connect() as connection:
                    rows = connection.execute(query).all()
        return checked(cast("Sequence[tuple[int, str, float, str]]", rows), after, self._where)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps all other writers of the campaign out until the block ends."""
        with self._described(), self._engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = on"))
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"pasture/{self.name}", 0))))
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None

    def append(self, key: str, body: str) -> Entry:
        """Add a line, within `writing`."""
        if self._connection is None:
            raise StoreError("lines are appended within writing() alone.")
        last = self._connection.execute(
            select(func.coalesce(func.max(_EVENTS.c.position), 0)).where(_EVENTS.c.campaign == self.name)
        ).scalar_one()
        entry = Entry(int(last) + 1, body, time.time())
        digest = line_digest(entry.position, body)
        row = {"campaign": self.name, "key": key, "digest": digest, **entry._asdict()}
        self._connection.execute(insert(_EVENTS).values(row))
        return entry

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise StoreError(
                f"{self._where}: {reason}. Nothing that was confirmed is lost; check that the server can be reached "
                "and that you may write there."
            ) from error
