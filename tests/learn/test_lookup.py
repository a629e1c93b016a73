"""A method is found by its name, or is a file that is whole, unchanged and allowed."""

import hashlib
from pathlib import Path

import pytest

from pasture.core.errors import RecipeError
from pasture.core.own_file import file_hash
from pasture.learn import METHODS, dpo
from pasture.learn.lookup import keywords_of, method_named

WHOLE = """
from pydantic import BaseModel

LEARNS_FROM = "preferences"


class Config(BaseModel):
    rate: float = 0.5


def train(config, **what):
    return config.rate
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(WHOLE)
    return path


def test_a_name_means_pasture_s_own_method() -> None:
    assert method_named("dpo") is dpo


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match="there is no method 'dpoo'") as caught:
        method_named("dpoo")
    assert all(name in str(caught.value) for name in METHODS)
    assert "Did you mean 'dpo'?" in str(caught.value)


def test_a_file_is_a_method_with_its_own_settings(file: Path) -> None:
    method = method_named(str(file))
    assert method.LEARNS_FROM == "preferences"
    assert method.train(method.Config()) == 0.5


def test_a_file_that_was_changed_is_read_anew(file: Path) -> None:
    before = method_named(str(file))
    file.write_text(WHOLE.replace("0.5", "0.75"))
    assert method_named(str(file)).Config().rate == 0.75
    assert before.Config().rate == 0.5


def test_a_file_that_was_changed_after_the_plan_is_not_run(file: Path) -> None:
    planned = file_hash(file)
    assert planned == hashlib.sha256(WHOLE.encode()).hexdigest()
    assert method_named(str(file), planned).Config().rate == 0.5
    file.write_text(WHOLE + "raise SystemExit\n")
    with pytest.raises(RecipeError, match=r"has changed since the run was planned\. Start the run again"):
        method_named(str(file), planned)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.py' cannot be read \(No such file"):
        method_named(str(tmp_path / "absent.py"))


CONFIG = r"a class Config that derives from pydantic\.BaseModel"
TRAIN = "a function train"
KIND = 'LEARNS_FROM = "scores" or LEARNS_FROM = "preferences"'


@pytest.mark.parametrize(
    ("old", "new", "lacking"),
    [
        ("class Config(BaseModel)", "class Settings(BaseModel)", f"{CONFIG}, and found none"),
        ("class Config(BaseModel)", "class Config", f"{CONFIG}, and found <class .*Config'>"),
        (
            "class Config(BaseModel):\n    rate: float = 0.5",
            "Config = BaseModel.model_validate",
            f"{CONFIG}, and found <bound method .*>",
        ),
        ("def train(", "def learn(", f"{TRAIN}, and found none"),
        ("def train(config, **what):\n    return config.rate", "train = 1", f"{TRAIN}, and found 1"),
        ('LEARNS_FROM = "preferences"', "", f"{KIND}, and found none"),
        ('LEARNS_FROM = "preferences"', 'LEARNS_FROM = "candidates"', f"{KIND}, and found 'candidates'"),
    ],
)
def test_a_file_that_lacks_a_part_is_told_which_each_time(file: Path, old: str, new: str, lacking: str) -> None:
    assert old in WHOLE
    file.write_text(WHOLE.replace(old, new))
    for _ in range(2):  # what was refused once is not taken from a cache
        with pytest.raises(RecipeError, match=rf"own\.py'?: expected {lacking}\."):
            method_named(str(file))


@pytest.mark.parametrize(
    ("signature", "wrong"),
    [
        ("config, *, start, feedback, template, folder, seed", "got an unexpected keyword argument 'progress'"),
        ("config, *, start, environment, **more", "missing a required( keyword-only)? argument: 'environment'"),
        ("config, learning_rate, **more", "missing a required argument: 'learning_rate'"),
        ("start, feedback, template, folder, seed, progress", "multiple values for argument 'start'"),
        ("*, config, **more", "too many positional arguments"),
    ],
)
def test_a_train_that_could_not_be_called_is_refused_before_anything_runs(
    file: Path, signature: str, wrong: str
) -> None:
    file.write_text(WHOLE.replace("config, **what", signature))
    called = (
        r"learns from preferences is called as train\(config, \*, start, feedback, template, folder, seed, progress\)"
    )
    with pytest.raises(RecipeError, match=rf"own\.py'?: train cannot be called as it will be \({wrong}\)\..*{called}"):
        method_named(str(file))


@pytest.mark.parametrize(
    "signature",
    [
        "config, start, feedback, template, folder, seed, progress, rate=1",
        "config, *, start, feedback, template, folder, seed, progress",
        "*places, **more",
        "config, /, **config_too",
    ],
)
def test_a_train_that_can_be_called_is_taken_however_it_is_written(file: Path, signature: str) -> None:
    file.write_text(WHOLE.replace("config, **what", signature))
    method_named(str(file))


def test_what_a_train_takes_as_any_keyword_is_all_that_its_kind_is_handed(file: Path) -> None:
    assert {"start", "feedback", "template", "folder", "seed", "progress"} <= keywords_of(method_named(str(file)))
    assert "feedback" in keywords_of(dpo)
    assert "environment" not in keywords_of(dpo)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("Config(rate='fast')", "ValidationError: 1 validation error"),
        ("raise SystemExit('no card')", "SystemExit: no card"),
    ],
)
def test_what_running_a_file_raises_is_told_with_file_and_line(file: Path, more: str, said: str) -> None:
    file.write_text(f"{WHOLE}\n{more}\n")
    line = len(WHOLE.splitlines()) + 2
    for _ in range(2):
        with pytest.raises(RecipeError, match=rf"own\.py'?: line {line} raised {said}"):
            method_named(str(file))
