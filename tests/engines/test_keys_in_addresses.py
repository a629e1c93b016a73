"""An address with a key in front of its host is refused before anything is asked or written, and not repeated."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pasture import flow
from pasture.annotate.stored import Access
from pasture.cli import application
from pasture.core.errors import RecipeError
from pasture.core.redaction import refuse_key_in_address
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.engines.settings import Address, checked_settings

KEY = "sk-hidden-in-an-address"
URL = f"https://me:{KEY}@models.example.org/v1"
NO_NAME = f"http://{KEY}@127.0.0.1:9/v1"

TAKERS: list[Callable[[str], object]] = [
    lambda url: Address(base_url=url),
    lambda url: checked_settings("api", {"endpoints": [{"base_url": url}]}),
    lambda url: checked_settings("batch", {"folder": "b", "address": {"base_url": url}}),
    lambda url: Access(engine_settings={"endpoints": [{"base_url": url}]}),
    lambda url: RolloutServerConfig(url=url),
]


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize("url", [URL, NO_NAME])
def test_an_address_with_a_key_is_refused_wherever_one_is_read(take: Callable[[str], object], url: str):
    with pytest.raises(
        RecipeError, match=r"\[key\]@(models\.example\.org|127\.0\.0\.1:9) holds .*api_key_env"
    ) as caught:
        take(url)
    assert KEY not in str(caught.value)
    assert take("https://models.example.org/v1?deployment=a@b") is not None


@pytest.mark.parametrize("address", [f"me:{KEY}@host/v1", f"https://me%40home:{KEY}@host", f"HTTPS://{KEY}@[::1]:8000"])
def test_unusual_addresses_hide_no_key(address: str):
    with pytest.raises(RecipeError) as caught:
        refuse_key_in_address(address)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["https://host/v1", "http://host:8000/a@b", "https://host?x=a@b", "https://host#a@b"]
)
def test_an_at_sign_behind_the_host_is_none_of_that(address: str):
    refuse_key_in_address(address)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("used", [True, False])
def test_a_recipe_with_such_an_address_leaves_no_folder_whether_the_pool_is_asked_or_not(tmp_path: Path, used: bool):
    recipe = tmp_path / "keyed.toml"
    judges = '["service"]' if used else '["pool"]'
    recipe.write_text(
        f'name = "keyed"\nevaluate.judges = {judges}\n[pools.service]\npool = "greedy"\nmodels = ["m"]\n'
        f'engine_settings = {{endpoints = [{{base_url = "{URL}"}}]}}\n'
    )
    for verb in ("run", "plan"):
        done = CliRunner().invoke(application(verb), [verb, str(recipe), "--out", str(tmp_path / "run")])
        assert isinstance(done.exception, RecipeError)
        assert KEY not in str(done.exception) + done.output
    assert not (tmp_path / "run").exists()


def test_a_training_does_not_take_it_for_the_address_of_its_rollouts(tmp_path: Path):
    recipe = tmp_path / "keyed.toml"
    recipe.write_text(
        f'name = "keyed"\n[learn.sft]\n[learn.reward_model]\n[learn.rloo]\nrollouts = {{url = "{URL}"}}\n'
    )
    with pytest.raises(RecipeError, match="api_key_env") as caught:
        flow.prepare(recipe, (), tmp_path / "run")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("verb", ["annotate", "evaluate"])
def test_a_command_with_such_an_address_writes_nothing(tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    pairs = tmp_path / "pairs.json"
    pairs.write_text('[{"instruction": "a", "output_1": "b", "output_2": "c"}]')
    outputs = tmp_path / "outputs.json"
    outputs.write_text('[{"instruction": "a", "output": "b", "generator": "g"}]')
    reference = tmp_path / "reference.json"
    reference.write_text('[{"instruction": "a", "output": "c", "generator": "h"}]')
    asked = {
        "annotate": [str(pairs), "--judge", "greedy", "--models", "m", "--base-url", URL],
        "evaluate": [
            *(str(outputs), "--reference", str(reference)),
            *("--judge", "greedy", "--judge", "models=m", "--judge", f"base_url={URL}", "--out", "out"),
        ],
    }[verb]
    done = CliRunner().invoke(application(verb), [verb, *asked])
    assert isinstance(done.exception, RecipeError)
    assert "api_key_env" in str(done.exception)
    assert KEY not in str(done.exception) + done.output
    assert KEY.encode() not in everything_in(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs.json", "pairs.json", "reference.json"]
