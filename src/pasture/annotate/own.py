"""An annotator of the user's own: a Python file with a function `prefer`."""

from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import cast

from pydantic import BaseModel, ConfigDict

from pasture.core.errors import DataError, PastureError
from pasture.core.own_file import load_file, raised_at, require_function
from pasture.core.records import Comparison, Preference, Verdict

KIND = "annotator"
_NO_VERDICT = "the annotator gave no verdict"


class AnnotatorFile(BaseModel):
    """Where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: str
    """A Python file with a function `prefer(comparisons, seed)`."""
    code: str = ""
    """SHA-256 that the file must have; planning notes it."""


class OwnAnnotator:
    """`prefer(comparisons, seed)` of a file, as an `Annotator`.

    It gives for each comparison, in order, "first", "second" or "tie"; or the probability that the first is better; or
    None for no verdict; or a whole `Preference`. The file is read when it is first asked.
    """

    def __init__(self, name: str, settings: AnnotatorFile, *, seed: int) -> None:
        self.name, self.settings, self.seed = name, settings, seed

    @property
    def identity(self) -> Mapping[str, object]:
        """Its name, what its file holds, and the seed."""
        return {"annotator": self.name, "code": self.settings.code, "seed": self.seed}

    def check(self) -> None:
        """See that it can be asked.

        Raises:
            RecipeError: if the file cannot be run, is another than was planned with, or has no such function.
        """
        self._module()

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """What the file's function prefers.

        Raises:
            RecipeError: as `check` does.
            DataError: if the function raises, or does not give one verdict for each comparison.
        """
        path = Path(self.settings.file)
        try:
            verdicts = list(self._module().prefer(comparisons, self.seed))
        except PastureError:
            raise
        except Exception as error:
            raise DataError(f"{KIND} {str(path)!r}: {raised_at(error, path)}") from error
        if len(verdicts) != len(comparisons):
            raise self._wrong(f"{len(comparisons)} verdicts, one for each comparison", f"{len(verdicts)}")
        return [self._preference(*pair) for pair in zip(comparisons, verdicts, strict=True)]

    def _module(self) -> ModuleType:
        return load_file(Path(self.settings.file), KIND, _check_function, self.settings.code or None)

    def _preference(self, comparison: Comparison, verdict: object) -> Preference:
        said = partial(Preference, comparison_id=comparison.id, annotator=self.name)
        if verdict is None:
            return said(preferred="unjudged", error=_NO_VERDICT)
        if isinstance(verdict, str) and verdict in ("first", "second", "tie"):
            return said(preferred=cast("Verdict", verdict))
        chance = _probability(verdict)
        if chance is not None:
            preferred: Verdict = "tie" if chance == 0.5 else "first" if chance > 0.5 else "second"
            return said(preferred=preferred, probability_first=chance)
        if isinstance(verdict, Preference) and verdict.comparison_id == comparison.id:
            return verdict
        wanted = '"first", "second", "tie", a probability from 0 to 1, None, or the Preference of that comparison'
        raise self._wrong(f"for comparison {comparison.id!r} {wanted}", f"{verdict!r}")

    def _wrong(self, expected: str, got: str) -> DataError:
        return DataError(f"{KIND} {self.settings.file!r}: prefer must give {expected}, and gave {got}.")


def _probability(verdict: object) -> float | None:
    """A number from 0 to 1, of NumPy's kinds too; None for all else."""
    if isinstance(verdict, bool) or not isinstance(verdict, Real):
        return None
    number = float(verdict)
    return number if 0 <= number <= 1 else None


def _check_function(path: Path, module: ModuleType) -> None:
    require_function(path, module, KIND, "prefer", "examples/my_annotator.py", comparisons=[], seed=0)
