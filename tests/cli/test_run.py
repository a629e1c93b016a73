"""What `pasture run` says when it is done."""

import contextlib
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from pasture import flow
from pasture.cli import run
from pasture.core.run_folder import RunFolder


@pytest.mark.parametrize("name", ["b[/b]", "d[red]x", "a[lr=1]"])
def test_a_folder_whose_name_looks_like_markup_is_named_as_it_is(tmp_path, monkeypatch, name):
    summary = tmp_path / name / run.BOARD_SUMMARY
    summary.parent.mkdir(parents=True)
    summary.write_text("the board")
    done = SimpleNamespace(recipe=SimpleNamespace(study=None), folder=RunFolder(tmp_path / name), superseded_looks=list)
    monkeypatch.setattr(flow, "prepare", lambda *_, **__: done)
    monkeypatch.setattr(flow, "execute", lambda *_, **__: None)
    monkeypatch.setattr(run, "LiveScreen", lambda *_: contextlib.nullcontext())
    app = typer.Typer()
    app.command()(run.run)
    result = CliRunner().invoke(app, ["any.toml"], catch_exceptions=False)
    assert f"Report: {tmp_path / name}/7-report/index.html" in result.output
