"""A run that was killed -9 amid each of its steps ends with the bytes of one that was left in peace."""

import json
from pathlib import Path

import pytest

from tests.flows.tiny import run, run_tiny

TIMES = {"step.json", "manifest.json", "index.html"}
"""Where times and costs lie, the report among them; everything else is a result."""


def results(out: Path) -> dict[str, bytes]:
    """Content by name of every result in a run folder."""
    paths = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in TIMES)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_amid_each_step_in_turn_changes_no_byte_of_the_results(tmp_path: Path) -> None:
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    done = run_tiny(quiet)
    assert done.returncode == 0, done.stderr
    kills = run(str(killed), program="tests.flows.killing")
    assert kills.returncode == 0, kills.stderr + kills.stdout
    steps = list(json.loads((quiet / "manifest.json").read_text())["steps"])
    assert {line.partition(":")[0] for line in kills.stdout.splitlines()} == set(steps)
    assert len(kills.stdout.splitlines()) == 2 * len(steps) + 3  # three trainings are killed at a checkpoint as well

    done = run_tiny(killed)
    assert done.returncode == 0, done.stderr
    undisturbed, survived = results(quiet), results(killed)
    assert set(survived) == set(undisturbed)
    assert [name for name, content in survived.items() if content != undisturbed[name]] == []

    again = run_tiny(killed)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == len(steps)
    assert results(killed) == survived
