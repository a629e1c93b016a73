"""Kills a piece of work at each of its file operations in turn."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

FILE_OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.truncate", "os.link"}


def every_operation(event: str, paths: Sequence[str]) -> bool:
    """Counts all that is done to files."""
    return True


def survives_kill_at(
    number: int, work: Callable[[], object], counts: Callable[[str, Sequence[str]], bool] = every_operation
) -> bool:
    """Whether `work` ended before its file operation `number`, right before which it is killed -9; in a child process.

    `counts` is told an operation's audit event and its arguments as text, and says whether it is one to be counted.

    Raises:
        AssertionError: if the child ended in any other way than done or killed.
    """
    with warnings.catch_warnings():
        # Python 3.12 warns where other threads run; the child below takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(_killer(number, counts))
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def _killer(number: int, counts: Callable[[str, Sequence[str]], bool]) -> Callable[[str, tuple[Any, ...]], None]:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in FILE_OPERATIONS and counts(event, [str(argument) for argument in arguments]):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
