"""What a plan says of time and cost."""

from pathlib import Path

import pytest

from pasture import estimate
from pasture.recipe import parse
from tests.test_plan import planned


@pytest.fixture
def tiny():
    return parse({"name": "tiny"}, "tiny.toml")


def test_every_step_of_the_loop_has_an_estimate_and_a_price(tiny):
    for step in planned().steps:
        assert estimate.seconds(step, tiny) > 0
        assert estimate.cost_usd(step) == 0


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
