"""What a method of the user's own raises while it trains, told with the line that raised it."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from pasture.core.errors import PastureError, TrainingError
from pasture.core.files import write_text
from pasture.core.own_file import OWN_FILE_SUFFIX, raised_at

_SIGNALLED = 128
"""Exit codes above it say which signal ended a process."""
TRACEBACK_FILE = "traceback.txt"
"""Where in a training's folder the whole of an error of a method of one's own lies."""


@contextlib.contextmanager
def explained(method: str, folder: Path) -> Iterator[None]:
    """Say which line of a method of one's own ended its training; that it left by `sys.exit` is an error, too.

    Raises:
        TrainingError: if the block raises what is no error of ours; the whole of it lies in `folder`.
    """
    if not method.endswith(OWN_FILE_SUFFIX):
        yield
        return
    place = folder / TRACEBACK_FILE
    try:
        yield
    except PastureError:
        raise
    except (Exception, SystemExit) as error:
        if _stopped(error):
            raise
        write_text(place, "".join(traceback.format_exception(error)))
        raise TrainingError(
            f"method {method!r}: {raised_at(error, Path(method))}, while it trained. All of it stands in {place}; "
            "what was finished before is safe, and the same command goes on."
        ) from error
    place.unlink(missing_ok=True)


def _stopped(error: BaseException) -> bool:
    """Whether it ends the process by a signal's number, as somebody asked for."""
    return isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > _SIGNALLED
