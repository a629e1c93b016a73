"""Who picks a method's step, in words; what a caption must say follows by hand from each recipe."""

from typing import Any

import pytest

from pasture.steps.judge_titles import selecting_judge

LABELS = {"noise": "labels"}
RECIPE: dict[str, Any] = {
    "selection": {"annotator": "gpt-4", "label_flip_probability": 0.1},
    "pools": {"gpt-4": {}, "weighed": LABELS},
    "campaigns": {"town": {}},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "gpt-4, 10% of whose labels are flipped"),
        ({"selection": {"label_flip_probability": 0.0}}, "gpt-4 without label noise"),
        ({"pools": {"gpt-4": LABELS}}, "gpt-4 with label noise of their own"),
        ({"selection": {"annotator": "pool"}}, "simulated annotators, 10% of whose labels are flipped"),
        ({"selection": {"annotator": "people"}}, "people (hidden)"),
        ({"selection": {"annotator": "greedy"}}, "one noiseless judge"),
        ({"selection": {"annotator": "town"}}, "town"),
        ({"selection": {"annotator": "village"}, "campaigns": {"village": {}}}, "village"),
    ],
)
def test_a_picker_is_told_with_the_noise_that_it_has(change: dict[str, Any], said: str) -> None:
    assert selecting_judge(RECIPE, change) == said
