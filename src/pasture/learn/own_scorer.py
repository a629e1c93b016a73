"""A scorer of the user's own in place of a reward model: a Python file with a function `score`."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pasture.core.own_file import load_file, require_function
from pasture.core.records import Completion, Instruction

KIND = "scorer"


class OwnScorer:
    """`score(instructions, completions)` of a file, as a `Scorer`: a finite number each, higher is better."""

    def __init__(self, path: Path, code: str | None = None) -> None:
        """Take the file in; it runs as part of this process. `code` is the SHA-256 that it must have.

        Raises:
            RecipeError: if it cannot be run, is another than was planned with, or has no such function.
        """
        self.path = path
        self._score = load_file(path, KIND, _check_function, code).score

    def check_prompts(self, instructions: Sequence[Instruction]) -> None:
        """Nothing: what the file can score, it alone knows."""

    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
        """The score of each completion."""
        return list(self._score(instructions, completions))


def _check_function(path: Path, module: ModuleType) -> None:
    require_function(path, module, KIND, "score", "examples/my_scorer.py", instructions=[], completions=[])
