"""Reading and writing records so that a reader never meets half a file."""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ValidationError

from pasture.core.errors import DataError, RecordError, RunFolderError
from pasture.core.records import Record

R = TypeVar("R", bound=Record)

PlaceName = Annotated[str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)]
"""A setting that names a file or where else something lies: a text in a recipe, from Python also a `Path`."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which becomes `path` when the block ends without an error.

    The bytes are on disk before the name is: after a crash `path` is whole, old or absent. A kill can leave the draft
    behind; see `remove_drafts`.

    What the block raises comes out as it is, but for errors of writing the draft.

    Raises:
        RunFolderError: if the disk is full or the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DRAFT}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are the owner's alone, whatever the umask says.
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            yield draft
        except OSError as error:
            if is_no_room(error) or str(error.filename) == str(draft):
                raise unwritable(path, error) from error
            raise
        _put_in_place(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


_DRAFT = ".draft"


def _put_in_place(draft: Path, path: Path) -> None:
    try:
        flush_to_disk(draft)
        draft.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left half written in `folder`; nobody else may be writing there."""
    for draft in folder.glob(f".*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Return when the file's bytes, or the folder's names, would outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_no_room(error: OSError) -> bool:
    """Whether a disk refused what was written: it is full, a quota is spent, or it takes nothing at all."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def unwritable(path: Path, error: OSError) -> RunFolderError:
    """The error that says why `path` was not written, and that nothing finished is lost."""
    return RunFolderError(
        f"cannot write {path}: {error.strerror or error}. "
        "Finished steps are safe; make room or choose another folder, and run the same command again."
    )


MIB = 2**20
WHOLE_FILE_BYTES = 64 * MIB


def fingerprint(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_fingerprint(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file's bytes; above 64 MiB of its size and of 64 evenly spaced MiB of it.

    A model of many gigabytes is so told from another one without reading it whole at every start. The first and the
    last MiB are among those read. A change of a few bytes can go unnoticed: a training moves all weights, but of data
    somebody may mend one line, so they are told apart by `fingerprint`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(f"{size};".encode())
        for number in range(64):
            file.seek((size - MIB) * number // 63)
            digest.update(file.read(MIB))
        return digest.hexdigest()


def require_writable(path: Path) -> None:
    """See that a file can be written at `path`, before work is done or paid whose results are to go there.

    Nothing is left behind: of folders that are still to be made, the one that they are made in is looked at.

    Raises:
        RunFolderError: if it is a folder, or no file can be made where it is to lie.
    """
    if path.is_dir():
        raise RunFolderError(f"cannot write {path}: it is a folder. Name a file.")
    folder = next(one for one in path.absolute().parents if one.exists())
    draft = folder / f".{path.name}.{secrets.token_hex(4)}{_DRAFT}"
    try:
        draft.touch(exist_ok=False)
        draft.unlink()
    except OSError as error:
        raise unwritable(path, error) from error


def require_apart(target: Path, *sources: Path) -> None:
    """See that a result is not to be written over a file that it is made of, before work is done.

    Raises:
        DataError: naming the file.
    """
    for source in sources:
        if _same(target, source):
            raise DataError(f"{target} is what is read, and it is not overwritten. Name another file.")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or will once there is one."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def require_path(place: object, what: str) -> None:
    """See that the folder that `what` names came as a path, where a text would fail amid the work.

    Raises:
        DataError: saying how a text becomes one.
    """
    if not isinstance(place, Path):
        raise DataError(f"{what}={place!r}: expected a Path, got {type(place).__name__}. Write {what}=Path({place!r}).")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def write_records(path: str | Path, records: Iterable[Record]) -> int:
    """Write one record a line, whole or not at all; the number of records comes back."""
    count = 0
    with atomic_file(Path(path)) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(record.to_json() + "\n")
            count += 1
    return count


def write_json_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Write one JSON object a line, whole or not at all; for tables that are no records, such as metrics."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, object]]:
    """The JSON objects of a file that `write_json_lines` wrote.

    Raises:
        RecordError: naming file and line, if a line is not a JSON object.
    """
    rows = []
    for number, line in _numbered_lines(path):
        try:
            row = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        except ValueError as error:
            raise RecordError(f"{path}:{number}: not JSON ({error}). Mend or remove the line.") from error
        if not isinstance(row, dict):
            raise RecordError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}.")
        rows.append(row)
    return rows


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_records(path: str | Path, kind: type[R]) -> list[R]:
    """The records of a JSONL file, in order.

    Raises:
        RecordError: naming file, line and field, at the first line that is no valid `kind`.
        DataError: if the file is missing or cannot be read.
    """
    place, records = Path(path), []
    for number, line in _numbered_lines(place):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise RecordError(_describe(place, number, kind, line, error)) from error
    return records


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip(b"\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check the path, or run the step that makes it.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _describe(path: Path, number: int, kind: type[Record], line: bytes, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field, message = ".".join(str(part) for part in first["loc"]) or "the line", first["msg"]
    if first["type"] == "json_invalid":
        garbled = _garbled_field(line)
        # The JSON parser counts lines within the line that it was given.
        message = _BAD_TEXT if garbled else message.replace("at line 1 column", "at column")
        field = garbled or field
    known = f" Fields of {kind.__name__}: {', '.join(kind.model_fields)}." if first["type"] in _FIELD_SET else ""
    more = f" ({error.error_count() - 1} more in this line.)" if error.error_count() > 1 else ""
    return f"{path}:{number}: {kind.__name__}, {field}: {message}.{known}{more} Mend or remove the line."


_FIELD_SET = {"extra_forbidden", "missing"}
_BAD_TEXT = "Bytes that are no UTF-8, or a lone surrogate, which no text may hold"
_SURROGATE = re.compile("[\ud800-\udfff]")


def _garbled_field(line: bytes) -> str | None:
    """Dotted name of the first field with a lone surrogate or invalid UTF-8; None where neither is the trouble."""
    try:
        # Python's parser lets lone surrogates pass, and "surrogateescape" makes them of invalid bytes.
        return _first_garbled(json.loads(line.decode("utf-8", "surrogateescape")), ())
    except (ValueError, RecursionError):
        return None


def _first_garbled(value: object, path: tuple[str, ...]) -> str | None:
    if isinstance(value, str):
        return ".".join(path) if _SURROGATE.search(value) else None
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, item in inner:
        name = str(key)
        found = ".".join((*path, repr(name))) if _SURROGATE.search(name) else _first_garbled(item, (*path, name))
        if found is not None:
            return found
    return None
