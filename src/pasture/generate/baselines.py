"""Systems to compare with: how they are asked, said beside what they answer.

A baseline is a model, a prompt and a limit; change one and it is another baseline. AlpacaFarm printed ChatGPT's and
GPT-4's win rates without saying that both had been told to be brief; here what they are told stands with the answers.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Baseline(BaseModel):
    """How a system is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """The name by which the service knows it."""
    system_prompt: str = ""
    """Said before the instruction; nothing where empty, and in `completion` style."""
    style: Literal["chat", "completion"] = "chat"
    """Whether the instruction is a user's message, or a text to be continued in the format of `template`."""
    template: str = "chat"
    """How an instruction becomes the text: one of `pasture.core.templates.TEMPLATES`."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_completion_tokens: Annotated[int, Field(ge=1)] = 300


BASELINES: Mapping[str, Baseline] = {
    "paper-gpt-4": Baseline(
        model="gpt-4-0314",
        system_prompt="You are a helpful assistant. Keep every answer under 500 characters.",
    ),
    "paper-chatgpt": Baseline(
        model="gpt-3.5-turbo-0301",
        system_prompt="You are a helpful assistant. Keep every answer under 1000 characters.",
    ),
    "paper-davinci-003": Baseline(model="text-davinci-003", style="completion", template="alpaca"),
}
"""The rows GPT-4, ChatGPT and Davinci003 of the paper's main table: models, limits and sampling are AlpacaFarm's
(examples/oai_baselines.py), the sentences are our own. The models are withdrawn: name another in their place.

Source: Dubois et al. 2023, Table 2, https://arxiv.org/abs/2305.14387
"""
