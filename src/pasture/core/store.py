"""Paid answers on disk, each committed before anyone sees it.

One SQLite file, append only: a row is never changed and never removed. All traffic of a process goes through one
thread, which takes whatever has gathered and commits it together: fifty answers that arrive at once cost one flush of
the disk, not fifty, and none is handed out before it.

Several processes may share the file. Before a question is paid for it is claimed; whoever finds it claimed waits for
the answer. A claim is a lock on one byte of a file beside the store, so the system itself ends it with its process.
"""

import contextlib
import fcntl
import hashlib
import os
import queue
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pasture.core.errors import StoreError

SCHEMA_VERSION = 1
RESERVE_BYTES = 16 * 2**20
"""Kept beside the store and given up when the disk is full, so that the answers in flight still find room."""
BUSY_SECONDS = 60.0
KEYS_A_LOOK = 500
"""Keys that one query names; builds of SQLite from before 3.32 take no more than 999."""
FIRST_SAFE_WAL = (3, 51, 3)
"""Older SQLite can corrupt a WAL database in a rare race of two checkpoints."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, failed INTEGER NOT NULL, asked TEXT NOT NULL, answer TEXT NOT NULL,
    digest TEXT NOT NULL, written_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_key ON answers (key);
"""


@dataclass(frozen=True)
class Answer:
    """What is stored for a key."""

    text: str
    """JSON, as it was put."""
    failed: bool
    """Whether it is the record of a failure rather than an answer."""


Claimed = Literal["claimed", "taken"]
"""What comes back in place of an answer: the key is now ours to pay for, or another process is at it."""


@dataclass
class _Job:
    kind: Literal["find", "claim", "put", "release", "close"]
    key: str = ""
    asked: str = ""
    text: str = ""
    failed: bool = False
    retry_failed: bool = False
    keys: Sequence[str] = ()
    done: Future[Any] = field(default_factory=Future)

    def is_taken(self) -> bool:
        """Whether the job is to be done; from now on it cannot be cancelled.

        What ends a claim is done even where nobody waits for it any more, or the key would stay claimed.
        """
        return self.done.set_running_or_notify_cancel() or self.kind in ("put", "release")


_Outcome: TypeAlias = tuple[_Job, Answer | Mapping[str, Answer] | Claimed | BaseException | None]


class AnswerStore:
    """A file of answers by key; safe for many threads and many processes."""

    def __init__(self, path: Path) -> None:
        """Open the store, or begin one.

        Raises:
            StoreError: if the file is no store, is damaged or cannot be written, or the disk has no room left.
        """
        self.path = path
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._broken: StoreError | None = None
        self._closing = self._closed = False
        with _described(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            try:
                self._prepare()
                _keep_reserve(_reserve_path(path))
                self._locks = _ByteLocks(path.with_name(f"{path.name}.claims"))
            except BaseException:
                self._database.close()
                raise
        self._thread = threading.Thread(target=self._serve, name=f"store {path.name}", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise StoreError(
                f"{self.path} is of version {version}, this Pasture reads {SCHEMA_VERSION}. "
                "Use the Pasture that wrote it, or name another store."
            )
        if version == 0 and self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{self.path} is a database of something else. Name another file for the store.")
        mode = "WAL" if sqlite3.sqlite_version_info >= FIRST_SAFE_WAL else "TRUNCATE"
        self._database.execute(f"PRAGMA journal_mode={mode}")
        self._database.execute("PRAGMA synchronous=FULL")
        if version == 0:
            self._database.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")

    def get(self, key: str) -> Answer | None:
        """The answer, the last failure where there is none, or None."""
        return self.find([key]).get(key)

    def find(self, keys: Sequence[str]) -> Mapping[str, Answer]:
        """What is stored for `keys`, by key; those without an answer or a failure are left out."""
        found: Mapping[str, Answer] = self._submit(_Job("find", keys=keys)).result()
        return found

    def claim(self, key: str, *, retry_failed: bool = False) -> Future[Answer | Claimed | None]:
        """The stored answer, or the right to pay for one ('claimed'), or 'taken' while another process has it.

        A stored failure counts as an answer unless `retry_failed`. Whoever claims must `put` or `release`. A claim
        that could be cancelled claims nothing; where `cancel` comes too late it still has to be released.
        """
        return self._submit(_Job("claim", key, retry_failed=retry_failed))

    def put(self, key: str, asked: str, text: str, *, failed: bool = False) -> Future[Answer | Claimed | None]:
        """Append an answer and end the claim; what comes back, once it is on disk, is the answer to use.

        That is the first one ever stored for the key, so that two processes that paid twice still agree.
        """
        return self._submit(_Job("put", key, asked, text, failed))

    def release(self, key: str) -> Future[Answer | Claimed | None]:
        """End a claim without an answer."""
        return self._submit(_Job("release", key))

    def rows(self) -> Iterator[tuple[str, str, Answer]]:
        """Key, question and answer of every row, failures included, in the order in which they were written."""
        with _described(self.path), contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as database:
            for key, asked, text, failed, digest in database.execute(
                "SELECT key, asked, answer, failed, digest FROM answers ORDER BY id"
            ):
                yield key, asked, _checked(self.path, key, text, failed, digest)

    def backup(self, target: Path) -> None:
        """Write a whole copy to `target` while others read and write."""
        with (
            _described(target),
            contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)

    def close(self, *, wait_seconds: float = 120.0) -> None:
        """Give out no more claims, wait for the answers to those given, then let go of the file."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(StoreError):
            self._submit(_Job("find")).result()  # behind every claim that was asked for before
        deadline = time.monotonic() + wait_seconds
        while self._locks.held and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed = True
        self._jobs.put(_Job("close"))
        self._thread.join()

    def __enter__(self) -> "AnswerStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _submit(self, job: _Job) -> Future[Any]:
        if self._closed or (self._closing and job.kind == "claim"):
            key = job.key or next(iter(job.keys), "")
            raise StoreError(f"{self.path} was closed before key {key[:12]} was asked for.")
        self._jobs.put(job)
        return job.done

    def _serve(self) -> None:
        """The thread: take what has gathered, do it in one transaction, hand out the results."""
        open_for_more = True
        while open_for_more:
            jobs = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < 1000:
                    jobs.append(self._jobs.get_nowait())
            open_for_more = all(job.kind != "close" for job in jobs)
            taken = [job for job in jobs if job.kind != "close" and job.is_taken()]
            try:
                outcomes = self._perform(taken)
            except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, or waits for ever
                outcomes = [(job, error) for job in taken]
            for job, outcome in outcomes:
                if job.done.cancelled():
                    continue
                if isinstance(outcome, BaseException):
                    job.done.set_exception(outcome)
                else:
                    job.done.set_result(outcome)
        self._database.close()
        self._locks.close()

    def _perform(self, jobs: Sequence[_Job]) -> list[_Outcome]:
        """What each job comes to."""
        outcomes: list[_Outcome] = []
        puts = []
        for job in jobs:
            if job.kind == "put":
                puts.append(job)
                continue
            try:
                with _described(self.path):
                    outcomes.append((job, self._look(job)))
            except StoreError as error:
                outcomes.append((job, error))
        if puts:
            try:
                with _described(self.path):
                    outcomes += self._write(puts)
            except StoreError as error:
                outcomes += [(job, error) for job in puts]
            for job in puts:
                self._locks.unlock(job.key)
        return outcomes

    def _look(self, job: _Job) -> Answer | Mapping[str, Answer] | Claimed | None:
        if job.kind == "find":
            return self._found(job.keys)
        if job.kind == "release":
            self._locks.unlock(job.key)
            return None
        ours = self._locks.lock(job.key)  # before the look, or it might be answered between the look and the lock
        found = self._found([job.key]).get(job.key)
        if ours and not _serves(found, job) and self._broken is None:
            return "claimed"
        if ours:
            self._locks.unlock(job.key)
        if _serves(found, job):
            return found
        if self._broken is not None:
            raise self._broken
        return "taken"

    def _write(self, jobs: Sequence[_Job]) -> list[_Outcome]:
        """Commit answers; on a full disk, with the room of the reserve."""
        try:
            return self._commit(jobs)
        except sqlite3.Error as error:
            if not _is_full(error) or self._broken is not None:
                raise
        self._broken = _full(self.path)
        with contextlib.suppress(OSError):
            _reserve_path(self.path).unlink()
        return self._commit(jobs)

    def _commit(self, jobs: Sequence[_Job]) -> list[_Outcome]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for job in jobs:
                row = (job.key, job.failed, job.asked, job.text, _digest(job.key, job.text), time.time())
                self._database.execute(
                    "INSERT INTO answers (key, failed, asked, answer, digest, written_at) VALUES (?,?,?,?,?,?)", row
                )
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        found = self._found([job.key for job in jobs])
        return [(job, found[job.key]) for job in jobs]

    def _found(self, keys: Sequence[str]) -> dict[str, Answer]:
        """By key, the first answer; where there is none, the last failure."""
        rows: dict[str, tuple[str, int, str]] = {}
        for start in range(0, len(keys), KEYS_A_LOOK):
            some = keys[start : start + KEYS_A_LOOK]
            for key, *row in self._database.execute(
                f"SELECT key, answer, failed, digest FROM answers WHERE key IN ({','.join('?' * len(some))}) "  # noqa: S608
                "ORDER BY id",
                some,
            ):
                if key not in rows or rows[key][1]:
                    rows[key] = (row[0], row[1], row[2])
        return {key: _checked(self.path, key, *row) for key, row in rows.items()}


class _ByteLocks:
    """Locks by key that end with the process: one byte of an empty file each, at an offset drawn from the key."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self.held: set[str] = set()

    def lock(self, key: str) -> bool:
        """Whether the key is ours now; False where it is held, by us or by another process."""
        if key in self.held:
            return False
        try:
            self._set(key, fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):
            return False
        self.held.add(key)
        return True

    def unlock(self, key: str) -> None:
        """Let go of the key, if it is ours."""
        if key in self.held:
            self._set(key, fcntl.F_UNLCK)
            self.held.discard(key)

    def close(self) -> None:
        """Let go of all."""
        self._file.close()

    def _set(self, key: str, kind: int) -> None:
        offset = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 2
        if sys.platform == "linux":  # these belong to the open file: two stores in one process exclude each other too
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0))
        else:
            operation = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._file, operation, 1, offset)


def _serves(found: Answer | None, job: _Job) -> bool:
    """Whether what is stored spares the asking."""
    return found is not None and not (found.failed and job.retry_failed)


def salvage(damaged: Path, target: AnswerStore) -> tuple[int, int]:
    """Copy every row of a damaged store that still reads and checks into `target`; counts saved and lost rows.

    Lost counts the rows between the first and the last number that could be read; what lay beyond is not known.
    """
    saved, numbers = 0, []
    with contextlib.closing(sqlite3.connect(f"file:{damaged}?mode=ro", uri=True)) as database:
        for number, row in _readable_rows(database):
            numbers.append(number)
            key, asked, text, failed, digest = row
            if digest == _digest(key, text):
                target.put(key, asked, text, failed=bool(failed)).result()
                saved += 1
    return saved, (max(numbers) - min(numbers) + 1 if numbers else 0) - saved


def _readable_rows(database: sqlite3.Connection) -> Iterable[tuple[int, tuple[str, str, str, int, str]]]:
    """Rows from the front until the damage, then from the back until it."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            for number, *row in database.execute(
                f"SELECT id, key, asked, answer, failed, digest FROM answers NOT INDEXED ORDER BY id {order}"  # noqa: S608
            ):
                if number in seen:
                    break
                seen.add(number)
                yield number, (row[0], row[1], row[2], row[3], row[4])


@contextlib.contextmanager
def _described(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into what the user can do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _is_full(error):
            raise _full(path) from error
        raise StoreError(
            f"{path}: {error}. Check that the folder can be written and that no program holds it."
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}. Choose another place for the store.") from error


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _full(path: Path) -> StoreError:
    return StoreError(
        f"no room left on the disk of {path}. Answers that were bought before are safe and nothing more is asked. "
        "Make room and run the same command again."
    )


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path} is damaged ({reason}). Move it away and restore a backup, or save what still reads into a new store "
        "with pasture.core.store.salvage(damaged, target)."
    )


def _digest(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()[:16]


def _checked(path: Path, key: str, text: str, failed: int, digest: str) -> Answer:
    if digest != _digest(key, text):
        raise _damaged(path, f"the answer under key {key[:12]} is not what was written")
    return Answer(text, bool(failed))


def _reserve_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.reserve")


def _keep_reserve(path: Path) -> None:
    """Fill a file with nothing, so that its room can be given up in need."""
    if path.exists() and path.stat().st_size == RESERVE_BYTES:
        return
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            else:
                file.write(bytes(RESERVE_BYTES))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(
            f"cannot keep {RESERVE_BYTES // 2**20} MiB in reserve beside {path}: {error.strerror}. "
            "Without it a full disk would lose paid answers; make room or choose another place for the store."
        ) from error
