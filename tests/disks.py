"""Disks that are too small or cannot be written, for tests; nothing is mounted where other processes would see it."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A tmpfs in a mount namespace of its own, reached through /proc; it is gone when its shell ends."""

    shell: subprocess.Popen[str]
    mount_point: Path

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.shell.pid}/root{self.mount_point}")

    def remount(self, options: str) -> None:
        assert self.tell(f"mount -o remount,{options} '{self.mount_point}'")

    def tell(self, command: str) -> bool:
        """Whether the shell inside could do `command`."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        try:
            self.shell.stdin.write(f"{command} >/dev/null 2>&1 && echo yes || echo no\n")
            self.shell.stdin.flush()
        except BrokenPipeError:
            return False
        return self.shell.stdout.readline() == "yes\n"


@contextlib.contextmanager
def mounted(mount_point: Path, size: str) -> Iterator[Disk]:
    """A disk of `size`, such as "64k"; skips the test where this system lets nobody mount one."""
    if shutil.which("unshare") is None:
        pytest.skip("no `unshare` (util-linux) here, so no small disk can be mounted")
    mount_point.mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as shell:
        disk = Disk(shell, mount_point)
        try:
            if not disk.tell(f"mount -t tmpfs -o size={size} tmpfs '{mount_point}'") or not disk.path.is_dir():
                pytest.skip("this system does not let a test mount a small disk in a namespace of its own")
            yield disk
        finally:
            shell.kill()
