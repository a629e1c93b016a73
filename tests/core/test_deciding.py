"""What of the settings of a method, and of drawing, makes another result."""

from typing import Any

from pasture.core.deciding import NO_PART_OF_THE_RESULT, deciding, deciding_answers
from pasture.learn import rloo
from pasture.models.sampler_config import SamplerConfig


def names(table: dict[str, Any], prefix: str = "") -> set[str]:
    return {
        path
        for name, inner in table.items()
        for path in (names(inner, f"{prefix}{name}.") if isinstance(inner, dict) else {f"{prefix}{name}"})
    }


def test_all_but_how_it_is_computed_decides():
    config = {
        "learning_rate": 1e-3,
        "micro_batch_tokens": 64,
        "weights": {"dtype": "bfloat16", "gradient_checkpointing": True, "lora": None},
        "rollouts": {"url": "http://there", "model": "mine", "in_flight": 3},
    }
    assert deciding(config) == {
        "learning_rate": 1e-3,
        "weights": {"dtype": "bfloat16", "lora": None},
        "rollouts": {"model": "mine"},
    }
    assert deciding({"rollouts": None, "steps": 3}) == {"rollouts": None, "steps": 3}


def test_all_but_how_many_are_drawn_at_once_decides_what_is_answered():
    decoding = SamplerConfig().model_dump()
    kept = deciding_answers(decoding)
    assert decoding == {**kept, "batch_tokens": SamplerConfig().batch_tokens}
    assert kept.keys() == {"temperature", "top_p", "max_new_tokens"}


def test_what_is_left_out_are_settings_that_there_are():
    config = rloo.Config(rollouts={"url": "http://there"}, sampler_ratio_cap=2.0)
    assert names(NO_PART_OF_THE_RESULT) <= names(config.model_dump())
