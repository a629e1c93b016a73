"""What a plan says of time and cost."""

from pathlib import Path

import pytest

from pasture import estimate
from pasture.plan import Step
from pasture.recipe import parse
from tests.test_plan import judged, planned


@pytest.fixture
def tiny():
    return parse({"name": "tiny"}, "tiny.toml")


def test_every_step_of_the_loop_has_an_estimate_and_a_price(tiny):
    for step in planned().steps:
        assert estimate.seconds(step, tiny) > 0
        assert estimate.price(step, tiny) == (0, 0)


def test_twice_the_pairs_take_twice_as_long_to_label(tiny):
    def labelling(pairs: int) -> float:
        steps = {step.name: step for step in planned(data={"preference": pairs}).steps}
        return estimate.seconds(steps["3-annotate/preference"], tiny)

    assert labelling(2000) == pytest.approx(2 * labelling(1000))


def test_a_model_of_ten_times_the_weights_trains_ten_times_as_long_and_labels_cost_the_same(tmp_path: Path):
    # The built-in model's file has 2.8 MB; the estimate goes by file size alone.
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(28_000_000)
    small, large = (
        parse({"name": "x", "model": {"start": str(start)}}, "x.toml") for start in ("meadow-base", tmp_path)
    )
    steps = {step.name: step for step in planned().steps}
    for name, factor in (("4-learn/sft", 10), ("2-generate/preference", 10), ("3-annotate/preference", 1)):
        seconds = [estimate.seconds(steps[name], recipe) for recipe in (small, large)]
        assert seconds[1] == pytest.approx(factor * seconds[0], rel=1e-3)


PAID = {"pool": "greedy", "models": ["gpt-4o-mini"]}


def test_labels_of_a_service_have_a_price_that_grows_with_their_number_and_flips_halve_it():
    def labelling(pairs: int, flips: float) -> estimate.Price:
        feedback = {"annotator": "judges", "label_flip_probability": flips}
        changes = {"pools": {"judges": PAID}, "feedback": feedback, "data": {"preference": pairs}}
        recipe = parse({"name": "paid", **changes}, "paid.toml")
        step = {step.name: step for step in planned(**changes).steps}["3-annotate/preference"]
        found = estimate.price(step, recipe)
        assert found is not None
        return found

    assert 0 < labelling(1000, 0.0).low < labelling(1000, 0.0).high
    assert labelling(2000, 0.0).low == pytest.approx(2 * labelling(1000, 0.0).low)
    # A flip at rate 0.25 replaces the call in half of all cases.
    assert labelling(5200, 0.25).low == pytest.approx(labelling(5200, 0.0).low / 2, rel=0.15)


def test_a_price_that_nobody_knows_is_unknown_and_never_nothing():
    changes = {"pools": {"judges": {**PAID, "models": ["made-up-model"]}}, "feedback": {"annotator": "judges"}}
    recipe = parse({"name": "paid", **changes}, "paid.toml")
    step = {step.name: step for step in planned(**changes).steps}["3-annotate/preference"]
    assert estimate.price(step, recipe) is None


def test_workers_share_the_steps_and_wait_for_what_these_need(tiny, monkeypatch):
    monkeypatch.setattr(estimate, "seconds", lambda step, recipe: step.units)
    steps = [
        Step("a", "x.x", {}, {"data": "done before"}, units=3),
        Step("b", "x.x", {}, {"a": "a"}, units=4),
        Step("c", "x.x", {}, {"a": "a"}, units=2),
        Step("d", "x.x", {}, {"c": "c"}, units=5),
        Step("e", "x.x", {}, {}, units=1),
    ]
    assert estimate.span(steps, tiny, 1) == 15
    # By hand, two workers: a 0-3 beside e 0-1; b 3-7 beside c 3-5; d 5-10.
    assert estimate.span(steps, tiny, 2) == 10
    assert estimate.span(steps, tiny, 5) == 10  # a, c and d one after the other
    assert estimate.span([], tiny, 2) == 0


def test_judging_while_learning_is_paid_for_by_the_pair_of_answers():
    changes = {"pools": {"judges": PAID}, "feedback": {"annotator": "judges", "label_flip_probability": 0.0}}
    recipe = parse({"name": "paid", **changes}, "paid.toml")
    learning = {step.name: step for step in judged(**changes).steps}["4-learn/online_dpo"]
    # 4 steps of 8 answers are 16 pairs; the price of labelling as many is the independent number.
    labelling = {step.name: step for step in planned(**changes, data={"preference": 16}).steps}["3-annotate/preference"]
    assert estimate.price(learning, recipe) == estimate.price(labelling, recipe)
    assert estimate.seconds(learning, recipe) > 0
