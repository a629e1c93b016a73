"""What a method may be told: every setting listed, as it can be written, with what its source says of it."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from pasture.cli import application
from pasture.cli.method_settings import Setting, settings_of
from pasture.core.errors import RecipeError
from pasture.core.sections import check_section
from pasture.learn import METHODS
from pasture.recipe import apply_override

TRAINED = [name for name, module in METHODS.items() if hasattr(module, "train")]


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


@pytest.mark.parametrize("method", TRAINED)
def test_each_setting_of_a_method_is_listed_as_it_can_be_written(method: str) -> None:
    config = METHODS[method].Config
    listed = {setting.name: setting for setting in settings_of(config)}
    assert flat(config().model_dump(mode="json")).keys() <= listed.keys()
    absent = [name for name, setting in listed.items() if setting.default == "none"]
    table: dict[str, Any] = {}
    for name, setting in listed.items():
        if not any(name.startswith(f"{outer}.") for outer in absent):
            apply_override(table, f"{name}={setting.default}")
    assert check_section(config, table, method) == config()


def test_a_table_that_is_absent_is_listed_with_what_it_may_hold() -> None:
    config = METHODS["dpo"].Config
    table: dict[str, Any] = {}
    for setting in settings_of(config):
        if setting.name.startswith("weights.lora."):
            apply_override(table, f"{setting.name}={setting.default}")
    assert check_section(config, table, "dpo") == config(weights={"lora": {}})


class Inner(BaseModel):
    """A table."""

    size: int | None = Field(None, multiple_of=2, ge=2)


class Config(BaseModel, use_attribute_docstrings=True):
    """Settings of every kind."""

    rate: float = Field(1e-6, gt=0, lt=1)
    """How fast;
    None too fast. None else."""
    keep: Literal["few"] | Annotated[int, Field(ge=1)] = 3
    deep: bool = True
    name: str
    inner: Inner | None = None
    """None goes without."""


def test_a_setting_is_shown_with_what_it_may_be_and_what_its_source_says() -> None:
    assert settings_of(Config) == [
        Setting("rate", "1e-06", "number > 0, < 1", "How fast; none too fast. None else."),
        Setting("keep", "3", "few, integer ≥ 1", ""),
        Setting("deep", "true", "true, false", ""),
        Setting("name", "", "text", ""),
        Setting("inner", "none", "a table of what follows", "None goes without."),
        Setting("inner.size", "none", "integer ≥ 2", ""),
    ]


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(application("train"), ["train", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return str(done.output)


def test_the_command_lists_them_and_trains_nothing() -> None:
    said = shown("dpo", "--settings")
    assert said.startswith("dpo learns from --feedback.\n")
    lines = [line.rstrip() for line in said.splitlines()]
    place = next(number for number, line in enumerate(lines) if line.startswith("beta = 0.1 "))
    assert lines[place].endswith("number > 0")
    assert lines[place + 1] == "    How strongly the policy is held to the reference."
    assert max(map(len, lines)) <= 80
    assert shown("ppo", "--settings").startswith("ppo learns from --instructions and --scorer.")
    assert "(with judge=annotator, --judge)" in " ".join(shown("online_dpo", "--settings").split())


def test_a_file_of_ones_own_is_asked_in_the_same_way() -> None:
    said = shown("examples/my_method.py", "--settings", "--allow-code")
    assert "learns from --instructions and --scorer" in said
    assert "By how much an answer must beat the mean of the others, in the scorer's units." in " ".join(said.split())
    with pytest.raises(RecipeError, match="--allow-code"):
        shown("examples/my_method.py", "--settings")


@pytest.mark.parametrize(("method", "said"), [("dpoo", "Did you mean 'dpo'"), ("best_of_n", "trains nothing")])
def test_what_trains_nothing_has_no_settings_to_list(method: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        shown(method, "--settings")
