"""Debian's PostgreSQL for the tests: a server of our own on a socket in a private folder, gone with the test."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and postgres; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def missing() -> str | None:
    """Why there can be no server; None where there can."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian's package postgresql)"
    if os.geteuid() == 0 and not _is_user("postgres"):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of an empty database, without the campaign's name."""
    found = programs()
    assert found is not None
    # Not under pytest's folder: that is root's alone, and the server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="pasture-postgres-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data = folder / "data"
    try:
        _run(
            [found / "initdb", "-D", data, "-U", "pasture", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            user,
        )
        settings = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        _run([found / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", settings, "start"], user)
        try:
            yield f"postgresql://pasture@/postgres?host={folder}"
        finally:
            _run([found / "pg_ctl", "-D", data, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[object], user: str | None) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=user,
        cwd="/",
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the server inherits it: a pipe would never end
        stderr=subprocess.PIPE if "start" not in command else subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, (done.stderr or b"").decode()


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
