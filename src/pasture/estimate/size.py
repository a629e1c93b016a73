"""How many weights a model has, from its files or from what a recipe says of it."""

import json
from pathlib import Path

from pasture.core.errors import ModelError, RecipeError
from pasture.recipe import BUILT_IN, UNTRAINED, Recipe, start_folder

_BYTES_OF_A_WEIGHT = {"float32": 4, "bfloat16": 2, "float16": 2}
_USUAL_BYTES = 4


def parameter_count(recipe: Recipe) -> float:
    """Weights of the model that a recipe starts from: counted in its folder, else `model.parameter_count`.

    Raises:
        ModelError: if the folder is not here and the recipe does not say how large the model is.
    """
    start = recipe.model.start
    if start in (BUILT_IN, UNTRAINED):
        return _weights_in(start_folder(BUILT_IN))
    found = _weights_in(Path(start))
    if found:
        return found
    if recipe.model.parameter_count is None:
        raise ModelError(
            f"model.start: there are no weights in {start!r}, and nothing says how large the model is. For a plan "
            "without the model, say it: model.parameter_count=6.7e9."
        )
    return recipe.model.parameter_count


def is_counted(recipe: Recipe) -> bool:
    """Whether the model's weights are here to be counted."""
    return recipe.model.start in (BUILT_IN, UNTRAINED) or _weights_in(Path(recipe.model.start)) > 0


def judge_parameter_count(recipe: Recipe, pool: str) -> float:
    """Weights of the model of one's own that a pool asks; as many as the recipe's model where they are not here.

    Raises:
        ModelError: as `parameter_count` does.
        RecipeError: if there is no such pool.
    """
    if pool not in recipe.pools:
        raise RecipeError(f"the recipe has no table [pools.{pool}].")
    settings = recipe.pools[pool]
    folders = [str(settings.engine_settings.get("folder", "")), *settings.models]
    return next((found for folder in folders if folder and (found := _weights_in(Path(folder)))), 0.0) or (
        parameter_count(recipe)
    )


def _weights_in(folder: Path) -> float:
    """Size of the files by the bytes of a weight; 0 where there are none."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return size / _bytes_of_a_weight(folder / "config.json")


def _bytes_of_a_weight(config: Path) -> int:
    try:
        facts = json.loads(config.read_bytes())
        return _BYTES_OF_A_WEIGHT.get(facts.get("dtype") or facts.get("torch_dtype"), _USUAL_BYTES)
    except (OSError, ValueError, AttributeError, TypeError):
        return _USUAL_BYTES  # what is wrong with the folder is said by who loads it
