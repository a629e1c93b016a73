"""Filling text into prompts in a single pass, so that no filled-in text can be taken for a slot."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pasture.core.records import Instruction

SLOT = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""A slot `{name}` of a template, the name its first group."""


def slots(template: str) -> list[str]:
    """Names of the slots `{name}` in `template`, in order, repeated as often as they occur."""
    return SLOT.findall(template)


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with every `{name}` that `values` knows replaced once, from left to right.

    What is filled in comes out as it went in, braces and slot names included. Braces around anything else stay.
    """
    return SLOT.sub(lambda match: values.get(match[1], match[0]), template)


@dataclass(frozen=True)
class PromptTemplate:
    """How an instruction becomes the prompt that a language model continues."""

    name: str
    with_input: str
    without_input: str
    is_turn: bool = False
    """Whether this is what a user says, to stand in the chat template that the model's own tokenizer brings."""

    def render(self, instruction: Instruction) -> str:
        """The prompt, ending where the completion begins; of a user's turn, the text of the turn."""
        template = self.with_input if instruction.input else self.without_input
        return fill(template, {"instruction": instruction.instruction, "input": instruction.input})


ALPACA = PromptTemplate(
    name="alpaca",
    with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
    ),
    without_input=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:"
    ),
)
"""The format that Alpaca's data was trained with, kept to the byte (Taori et al. 2023, MIT-style prompt file)."""

PLAIN = PromptTemplate(name="plain", with_input="{instruction} {input}\n", without_input="{instruction}\n")
"""The instruction, its input and a line break: what the meadow's models read."""

CHAT = PromptTemplate(name="chat", with_input="{instruction}\n\n{input}", without_input="{instruction}", is_turn=True)
"""One turn of a user, in the chat template of the model's tokenizer."""

TEMPLATES = {template.name: template for template in (ALPACA, PLAIN, CHAT)}
