"""How far a command has come, where a log file listens: lines on standard error, and nothing among the results."""

import pytest
from rich.console import Console

from pasture.cli import progress


def told(captured: pytest.CaptureFixture[str]) -> list[str]:
    out, err = captured.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_log_file_gets_a_line_at_once_and_then_one_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr("pasture.cli.progress.time.monotonic", lambda: clock[0])
    with progress.shown_progress(Console(), "training") as advanced:
        for done in range(10, 71, 10):
            advanced(done, 200, loss=0.51234)
            clock[0] += 10
    # By hand: at 0, 30 and 60 seconds, when 10, 40 and 70 are done; one a second, 160 and 130 to go.
    assert told(capsys) == [
        "training 10/200  loss 0.512",
        "training 40/200  loss 0.512  2 min 40 s left",
        "training 70/200  loss 0.512  2 min 10 s left",
    ]


def test_the_other_processes_say_nothing(capsys: pytest.CaptureFixture[str]):
    with progress.shown_progress(Console(quiet=True), "training") as advanced:
        advanced(1, 2)
    assert told(capsys) == []
