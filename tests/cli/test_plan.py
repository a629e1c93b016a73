"""`pasture plan` as it is typed: recipes for real models, before anything of them is here."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pasture.cli import application
from pasture.core.errors import ModelError, RecipeError
from pasture.flow import prepare

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted(
    path for folder in ("paper", "modern", "smol") for path in (REPOSITORY / "recipes" / folder).glob("*.toml")
)
WHOLE = ("processes=1", "sharding=none")
PAPER = str(REPOSITORY / "recipes" / "paper" / "loop.toml")


def said(verb: str, *arguments: object) -> str:
    """What the command prints, its line breaks as blanks."""
    result = CliRunner().invoke(
        application(verb), [verb, *map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_is_planned_without_its_model_and_its_data_and_not_run(recipe: Path, tmp_path: Path, out: Path):
    here = tmp_path / "none"
    plan = said("plan", recipe, f"model.start={here}", "--out", out)
    assert f"model.start: {here}. Put a model there (hf download ORG/NAME --local-dir {here})" in plan
    assert "Not here" in plan
    assert "data.source: " in plan
    assert "unknown" not in plan
    with pytest.raises(ModelError, match=r"model\.start: .* is no folder"):
        said("run", recipe, f"model.start={here}", "--out", out)
    assert not out.exists()


def test_the_papers_recipe_says_what_it_costs_beside_people_and_the_papers_own_claim(out: Path):
    plan = said("plan", PAPER, "--out", out)
    assert "model 6.7 billion weights, model.parameter_count" in plan
    assert "cards 8 of 80 GB; 1.2e14 operations a second each in training, 2.7e13 in drawing; $2.00 an hour" in plan
    assert "gpt-4.1: $" in plan
    # 10,000 for training; PPO's and Quark's 21 policies and DPO's 7 on 500; 9 systems on 805. At 30 cents a label.
    labels = 10_000 + (21 + 21 + 7) * 500 + 9 * 805
    assert f"labels from people, at the paper's rate {labels:,} ${0.3 * labels:.2f}" in plan
    assert "less than 24 hours, on eight cards of 80 GB, and less than $200" in plan
    assert "hf download tatsu-lab/alpaca_farm --repo-type dataset --include 'alpaca_instructions/*.json'" in plan


def test_prices_and_cards_are_the_users_to_state(out: Path):
    free = "pools.simulated.engine_settings.price={input_per_million=0.0, output_per_million=0.0}"
    plan = said("plan", PAPER, free, "cards.count=1", "cards.usd_per_hour=0.0", "--out", out)
    assert "gpt-4.1: $0.00 for a million tokens read, $0.00 for a million written" in plan
    assert "on one card, one step at a time; $0.00 for labels" in plan
    assert "both $0.00" in plan


def test_steps_that_need_more_memory_than_a_card_has_are_named(out: Path):
    assert "Too large" not in said("plan", PAPER, "--out", out)  # eight cards share each training
    plan = said("plan", PAPER, *WHOLE, "--out", out)
    # A policy that is trained whole holds 18 bytes a weight of 6.7 billion, and a card has room for 80e9.
    assert "Too large for a card of 80 GB: 4-learn/sft (121 GB), 4-learn/reward_model (121 GB)" in plan
    assert "4-learn/ppo (268 GB)" in plan
    assert "processes=8 sharding=fsdp2" in plan
    adapters = ("model.weights.lora.rank=16", 'systems=["ppo", "dpo"]')
    assert "Too large" not in said("plan", PAPER, *WHOLE, *adapters, "-j", "8", "--out", out)


def test_a_plan_refuses_what_a_run_would(out: Path):
    with pytest.raises(RecipeError, match=r"trains with 8 processes, and 2 steps at once"):
        said("plan", PAPER, "-j", "2", "--out", out)


def test_a_model_of_unknown_size_is_one_error(tmp_path: Path, out: Path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[model]\nstart = "models/none"\n')
    with pytest.raises(ModelError, match=r"model\.parameter_count=6\.7e9"):
        said("plan", recipe, "--out", out)


def test_the_meadows_plan_says_nothing_of_cards_or_memory(out: Path):
    plan = said("plan", REPOSITORY / "recipes" / "meadow" / "loop.toml", "--out", out)
    for word in ("memory", "cards", "Not here", "people, at"):
        assert word not in plan


def test_settings_that_do_not_go_together_are_one_sentence() -> None:
    with pytest.raises(RecipeError) as error:
        prepare(REPOSITORY / "recipes" / "meadow" / "loop.toml", ["learn.ppo.reward=shared"])
    assert "Value error" not in str(error.value)
    assert str(error.value).endswith('set weights.lora, or reward = "own".')
