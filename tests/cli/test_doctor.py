"""What `pasture doctor` says of a machine."""

import re
import sqlite3

from typer.testing import CliRunner

from pasture.cli import application, doctor
from tests.house.house import PYPROJECT


def test_a_missing_extra_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr(doctor, "PURPOSES", {"train": "training"})
    monkeypatch.setattr(doctor, "packages_of", lambda extra: ["no_such_package"])
    monkeypatch.setenv("COLUMNS", "200")
    said = CliRunner().invoke(application("doctor"), ["doctor"]).output
    # Square brackets are markup to rich: they must come out as they are.
    assert "for training: missing no_such_package; pip install 'pasture[train]'" in said


def test_every_extra_is_listed_with_its_packages_and_what_it_is_for(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    said = CliRunner().invoke(application("doctor"), ["doctor"]).output
    extras = PYPROJECT["project"]["optional-dependencies"]
    packages = {name: {re.split(r"[\[><=; ]", line)[0] for line in lines} for name, lines in extras.items()}
    assert {name: set(doctor.packages_of(name)) for name in doctor.PURPOSES} == packages
    assert all(re.search(rf"extra {name} +for {re.escape(doctor.PURPOSES[name])}: ", said) for name in extras)


def test_the_sqlite_in_use_and_a_key_are_told_without_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sentinel-of-a-key")
    monkeypatch.setenv("COLUMNS", "200")
    said = CliRunner().invoke(application("doctor"), ["doctor"]).output
    assert sqlite3.sqlite_version in said
    assert "sentinel-of-a-key" not in said
    assert "OPENAI_API_KEY" in said
