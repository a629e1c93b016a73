"""How answers are drawn from a model; free of torch, so that recipes can be read without it."""

from pydantic import BaseModel, ConfigDict, Field


class SamplerConfig(BaseModel):
    """Settings of `pasture.models.sample.sample`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, ge=0.0)
    """Logits are divided by it; 0 takes the likeliest token (greedy)."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Draw from the fewest likeliest tokens whose probabilities sum to at least this (after temperature)."""
    max_new_tokens: int = Field(default=64, ge=1)
    """The end token counts."""
    batch_tokens: int = Field(default=32_768, ge=1)
    """Cache positions (prompt and new tokens) of the answers under way; the others wait. Lower it where memory runs
    out. Results do not depend on it but for float rounding."""
