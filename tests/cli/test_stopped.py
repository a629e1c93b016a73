"""Ctrl-C: one line, and the code that shells know it by."""

import sys

import pytest

import pasture.cli

GOES_ON = " What is finished is safe; the same command goes on from here."


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "stopped_in", "said"),
    [
        (["run", "loop.toml"], "pasture.flow.prepare", f"Stopped.{GOES_ON}\n"),
        (["train", "sft"], "pasture.cli.train.training_module", f"Stopped.{GOES_ON}\n"),
        (["doctor"], "pasture.flow.describe_device", "Stopped.\n"),
    ],
)
def test_a_stopped_command_says_so_and_whether_it_goes_on(
    command: list[str],
    stopped_in: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(stopped_in, stop)
    monkeypatch.setattr(sys, "argv", ["pasture", *command])
    with pytest.raises(SystemExit) as left:
        pasture.cli.main()
    assert left.value.code == 130
    assert capsys.readouterr() == ("", said)
