"""What a plan says of cards and of language models, held to numbers worked out by hand from the paper's recipe."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pasture import estimate, flow
from pasture.core.errors import ModelError
from pasture.plan import Step
from pasture.recipe import Recipe, parse

RECIPES = Path(__file__).parents[1] / "recipes"
WEIGHTS = 6.7e9
TRAINING, DRAWING = 8 * 1.2e14, 8 * 2.7e13
"""Operations a second of the recipe's eight cards."""
WHOLE = ("processes=1", "sharding=none")
ADAPTERS = ("model.weights.lora.rank=16", 'systems=["ppo"]')
ROW, PROMPT, ANSWER = 230, 80, 150
"""Tokens: sampling allows 300, of which half are reckoned with."""


def planned(name: str, *overrides: str) -> tuple[Recipe, dict[str, Step]]:
    run, _ = flow.preview(RECIPES / name, overrides)
    return run.recipe, {step.name: step for step in run.plan.steps}


@pytest.fixture(scope="module")
def paper() -> tuple[Recipe, dict[str, Step]]:
    return planned("paper/loop.toml")


def test_six_operations_a_weight_and_token_are_what_training_takes(paper):
    recipe, steps = paper
    # 10,000 demonstrations three times over.
    by_hand = 30_000 * ROW * 6 * WEIGHTS / TRAINING
    assert estimate.seconds(steps["4-learn/sft"], recipe) == pytest.approx(by_hand)
    # A pair's prompt is read once; DPO goes twice over the pairs and reads the reference once.
    pairs = 10_000 * (PROMPT + 2 * ANSWER)
    assert estimate.seconds(steps["4-learn/dpo"], recipe) == pytest.approx(pairs * (2 * 6 + 2) * WEIGHTS / TRAINING)


def test_ppo_draws_reads_three_models_and_trains_two_twice_over(paper):
    recipe, steps = paper
    answers = 390 * 512
    trained, read = 2 * 2 * ROW, 3 * ROW + PROMPT  # reference, reward and value model; the prompt before an answer
    by_hand = answers * WEIGHTS * ((6 * trained + 2 * read) / TRAINING + 2 * ANSWER / DRAWING)
    assert estimate.seconds(steps["4-learn/ppo"], recipe) == pytest.approx(by_hand)


def test_expert_iteration_draws_and_scores_every_answer_and_imitates_one_of_them(paper):
    recipe, steps = paper
    trained, read, drawn = 3 * ROW, 16 * (PROMPT + ROW), 16 * ANSWER
    by_hand = 20_000 * WEIGHTS * ((6 * trained + 2 * read) / TRAINING + 2 * drawn / DRAWING)
    assert estimate.seconds(steps["4-learn/expert_iteration"], recipe) == pytest.approx(by_hand)


def test_adapters_take_four_operations_and_layers_computed_again_two_more(paper):
    whole = estimate.seconds(paper[1]["4-learn/sft"], paper[0])
    for change, share in (
        (ADAPTERS, 4 / 6),
        (("model.weights.gradient_checkpointing=true",), 8 / 6),
    ):
        recipe, steps = planned("paper/loop.toml", *change)
        assert estimate.seconds(steps["4-learn/sft"], recipe) == pytest.approx(share * whole)


def test_what_no_training_shares_is_one_cards_work(paper):
    recipe, steps = paper
    # 20,000 answers: a prompt read, an answer drawn, on one card of eight.
    by_hand = 20_000 * WEIGHTS * (2 * PROMPT / TRAINING + 2 * ANSWER / DRAWING) * 8
    assert estimate.seconds(steps["2-generate/preference"], recipe) == pytest.approx(by_hand)
    whole = estimate.seconds(steps["4-learn/sft"], recipe)
    changes = ((WHOLE, 8), (("processes=4",), 2), (("cards.count=2",), 4), (("processes=16",), 1))
    for change, slower in changes:
        other, by_name = planned("paper/loop.toml", *change)
        assert estimate.seconds(by_name["4-learn/sft"], other) == pytest.approx(slower * whole)


@pytest.mark.parametrize(
    ("step", "change", "bytes_of_a_weight"),
    [
        # 2 of the weight, 4 of its copy, 8 of AdamW, 4 of the gradient.
        ("4-learn/sft", WHOLE, 18),
        ("4-learn/sft", ("sharding=none",), 18),  # by each of eight
        ("4-learn/sft", (), 18 / 8),
        ("4-learn/dpo", WHOLE, 18),
        # Policy and value model; reference and scorer as they were saved, in bfloat16.
        ("4-learn/ppo", WHOLE, 2 * 18 + 2 + 2),
        # Eighths of them, the whole scorer, and the whole policy while it draws.
        ("4-learn/ppo", (), (2 * 18 + 2) / 8 + 2 + 2),
        ("4-learn/ppo", (*WHOLE, "learn.ppo.value=shared"), 18 + 2 + 2),
        ("4-learn/quark", WHOLE, 18 + 2 + 2),
        # It draws with a policy of its own, then trains.
        ("4-learn/expert_iteration", WHOLE, 18 + 2),
        ("4-learn/expert_iteration", (), 18 / 8 + 2),
        ("4-learn/sft", (*WHOLE, "model.weights.dtype=float32"), 16),
        ("4-learn/sft", (*WHOLE, *ADAPTERS), 2),
        ("4-learn/ppo", (*WHOLE, *ADAPTERS), 2 * 2 + 2),
        # All on one trunk.
        ("4-learn/ppo", (*WHOLE, *ADAPTERS, "learn.ppo.value=shared", "learn.ppo.reward=shared"), 2),
        ("2-generate/preference", (), 2),
        ("2-generate/preference", ("model.weights.dtype=float32",), 4),
    ],
)
def test_memory_is_bytes_by_weight(step: str, change: tuple[str, ...], bytes_of_a_weight: float):
    recipe, steps = planned("paper/loop.toml", *change)
    held = estimate.memory_gigabytes(steps[step], recipe)
    assert held == pytest.approx(bytes_of_a_weight * WEIGHTS / 1e9)
    assert estimate.memory_gigabytes(steps["3-annotate/preference"], recipe) is None


def test_steps_side_by_side_have_cards_of_their_own_as_far_as_these_go(paper):
    recipe, steps = planned("paper/loop.toml", *WHOLE)
    two = [steps["4-learn/dpo"], steps["4-learn/feedme"]]
    each = [estimate.seconds(step, recipe) for step in two]
    assert estimate.span(two, recipe, 1) == pytest.approx(sum(each))
    assert estimate.span(two, recipe, 2) == pytest.approx(max(each))
    one_card, _ = planned("paper/loop.toml", *WHOLE, "cards.count=1")
    assert estimate.span(two, one_card, 2) == pytest.approx(2 * max(each))
    asked = [paper[1]["3-annotate/evaluation/sft"], paper[1]["3-annotate/evaluation/ppo"]]
    assert estimate.span(asked, one_card, 2) == pytest.approx(estimate.span(asked, one_card, 1) / 2)


def test_what_a_method_saves_on_its_way_is_judged_and_paid_for(paper):
    recipe, steps = paper
    # PPO saves every 20 of 390 steps and the last, and the SFT model is judged, too: 21 policies on 500 instructions.
    assert estimate.label_count(steps["3-annotate/validation/ppo"]) == 21 * 500
    # DPO: 9,500 pairs in steps of 64, twice over, are 298 steps: saved after 50, 100, ... 250 and the last.
    assert estimate.label_count(steps["3-annotate/validation/dpo"]) == 7 * 500
    assert estimate.label_count(steps["3-annotate/preference"]) == 10_000
    assert estimate.label_count(steps["4-learn/sft"]) == 0
    assert recipe.evaluate.judges == ("simulated",)


def test_the_meadows_methods_are_judged_as_often_as_a_run_was():
    # recipes/meadow/study.toml saves PPO after 8, 16, ... 40 steps, expert iteration after each of 2 rounds.
    _, steps = planned("meadow/study.toml")
    judged = {
        name.rpartition("/")[2].rpartition("-")[0]: step.units
        for name, step in steps.items()
        if step.work == "annotate.judge_checkpoints"
    }
    assert judged == {
        "ppo": 6 * 500,
        "rloo": 5 * 500,
        "quark": 5 * 500,
        "expert_iteration": 3 * 500,
        "dpo": 3 * 500,  # 94 steps: 50 and the last
    }


def test_people_cost_what_the_paper_paid_them():
    # $3,000 for 10,000 labels, and 36,800 s for 1,000 (AlpacaEval's table of evaluators).
    people = estimate.people(10_000)
    assert people.usd == pytest.approx(3_000)
    assert people.hours == pytest.approx(368_000 / 3600)


def test_waiting_is_two_seconds_a_call_by_as_many_calls_as_are_in_flight():
    service: dict[str, Any] = {"pool": "greedy", "models": ["gpt-4.1"]}

    def waiting(**settings: int) -> float:
        changes = {"pools": {"judge": {**service, "engine_settings": settings}}, "feedback": {"annotator": "judge"}}
        recipe = parse({"name": "x", **changes}, "x.toml")
        step = Step("3-annotate/preference", "annotate.label", {"annotator": "judge"}, units=5_000)
        return estimate.waiting_seconds(step, recipe)

    # The greedy pool puts five comparisons into a call.
    assert waiting(in_flight=50) == pytest.approx(1_000 * 2.0 / 50)
    assert waiting(in_flight=10) == pytest.approx(5 * waiting(in_flight=50))


def test_a_price_that_the_recipe_states_is_the_one_that_is_shown(paper):
    recipe, _ = planned(
        "paper/loop.toml",
        "pools.simulated.engine_settings.price={input_per_million=3.0, output_per_million=12.0}",
    )
    prices = estimate.model_prices(recipe.pools["simulated"])
    assert [price.model for price in prices] == ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert {price[1:] for price in prices} == {(3.0, 12.0)}
    unknown = parse({"name": "x", "pools": {"j": {"pool": "greedy", "models": ["made-up-model"]}}}, "x.toml")
    assert estimate.model_prices(unknown.pools["j"]) == [("made-up-model", None, None)]


def test_a_judge_on_this_machine_costs_time_and_no_money():
    recipe, steps = planned("smol/loop.toml")
    labels = steps["3-annotate/preference"]
    assert estimate.price(labels, recipe) == (0, 0)
    assert estimate.waiting_seconds(labels, recipe) == 0
    assert estimate.seconds(labels, recipe) > 60  # 256 prompts of some 1,200 tokens, read by 135M weights on two cores


def test_the_files_of_a_model_are_counted_by_the_type_of_its_weights(tmp_path: Path):
    weights = struct.pack("<Q", 2) + b"{}"
    (tmp_path / "model.safetensors").write_bytes(weights.ljust(4_000, b"\0"))
    recipe = parse({"name": "x", "model": {"start": str(tmp_path), "parameter_count": 7}}, "x.toml")
    assert estimate.parameter_count(recipe) == 1_000  # of four bytes, where nothing says otherwise
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    assert estimate.parameter_count(recipe) == 2_000
    (tmp_path / "model.safetensors").unlink()
    assert estimate.parameter_count(recipe) == 7


def test_a_model_of_unknown_size_is_asked_for():
    recipe = parse({"name": "x", "model": {"start": "models/none"}}, "x.toml")
    with pytest.raises(ModelError, match=r"nothing says how large the model is.*model\.parameter_count=6\.7e9"):
        estimate.parameter_count(recipe)
