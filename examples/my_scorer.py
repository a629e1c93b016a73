"""A scorer of your own in place of a reward model: how many of the instruction's words an answer says again.

    pasture train grpo --start meadow-base --instructions instructions.jsonl --scorer examples/my_scorer.py --allow-code

or in a recipe, for any method that learns from scores or chooses by them:

    [learn.grpo]
    scorer = "examples/my_scorer.py"
"""

from collections.abc import Sequence

from pasture.core.records import Completion, Instruction


def score(instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
    """A number for each answer, higher is better: the share of the instruction's words that it says."""
    return [
        _said_again(instruction, completion) for instruction, completion in zip(instructions, completions, strict=True)
    ]


def _said_again(instruction: Instruction, completion: Completion) -> float:
    asked = set(instruction.instruction.lower().split())
    said = set(completion.text.lower().split())
    return len(asked & said) / max(1, len(asked))
