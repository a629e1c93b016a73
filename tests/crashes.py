"""Kills a piece of work at each of its file operations in turn."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

FILE_OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.truncate", "os.link"}


def survives_kill_at(number: int, work: Callable[[], object]) -> bool:
    """Whether `work`, done in a child that is killed -9 right before its file operation `number`, ended before that.

    Raises:
        AssertionError: if the child ended in any other way than done or killed.
    """
    with warnings.catch_warnings():
        # Python 3.12 warns where other threads run; the child below takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(_killer(number))
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


def _killer(number: int) -> Callable[[str, tuple[Any, ...]], None]:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in FILE_OPERATIONS:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
