"""How long prompts and answers are taken to be, before there are any."""

from typing import Any

from pasture.recipe import Recipe

PROMPT_TOKENS = 80.0
"""AlpacaEval's 805 instructions have 3 to 192 tokens (docs/speed.md), and Alpaca's templates put some 30 to 45 around
them."""
_SHARE_OF_LIMIT = 0.5


def answer_tokens(recipe: Recipe, config: dict[str, Any] | None = None) -> float:
    """Tokens of an answer: half of what sampling, or a method that draws its own, allows."""
    limit = recipe.sampling.max_new_tokens if config is None else config.get("max_new_tokens")
    return _SHARE_OF_LIMIT * (recipe.sampling.max_new_tokens if limit is None else limit)
