"""Which of a model's weights are trained, and in which numbers; free of torch, as recipes are checked without."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Lora(BaseModel):
    """Low-rank adapters: W + (alpha / rank) B A in place of W, of which A and B alone are trained.

    Without dropout, so that training and sampling see the same model.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rank: int = Field(16, ge=1)
    """Of B A: how many directions a layer may change in."""
    alpha: float = Field(32.0, gt=0)
    """B A counts alpha / rank times."""
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Names of the linear layers that get adapters, such as `q_proj`; `all-linear` is all but the output layer."""


class Weights(BaseModel):
    """How the weights of a model in training are held."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What forward and backward passes compute in. What is trained is always updated in float32."""
    lora: Lora | None = None
    """None trains all weights."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward pass rather than remembered: less memory, more time."""
