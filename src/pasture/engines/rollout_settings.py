"""Which server draws a policy's answers; read with a recipe, long before a server is asked."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pasture.core.redaction import refuse_key_in_address


class RolloutServerConfig(BaseModel):
    """Who draws a policy's answers in its place."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    engine: Literal["vllm"] = "vllm"
    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://")
    """Where the server is, without /v1."""
    model: str | None = None
    """The model's name there; None where the server has one alone."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key, where it wants one."""
    in_flight: Annotated[int, Field(ge=1)] = 128
    """Answers drawn at once."""
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 900.0
    """Longest wait for one answer, or for the server to read new weights."""
    most_difference: Annotated[float, Field(gt=0.0)] = 0.15
    """Nats per token by which its log-probabilities may differ from the policy's, on average over a few answers."""

    @field_validator("url")
    @classmethod
    def _holds_no_key(cls, url: str) -> str:
        refuse_key_in_address(url)
        return url
