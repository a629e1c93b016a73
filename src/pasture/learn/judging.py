"""Which of two own answers is the better one: asked of a scorer or of an annotator while a policy learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch import Tensor

from pasture.core.errors import PastureError, TrainingError
from pasture.core.files import read_records, write_records
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Instruction, Preference
from pasture.core.templates import PromptTemplate
from pasture.learn.feedback import TIE
from pasture.learn.rollouts import Answers, Environment, checked_scores
from pasture.machine.distributed import from_main


@dataclass(frozen=True)
class AnnotatedEnvironment:
    """What a policy is asked, in which format, and who says which of two answers is better."""

    instructions: Sequence[Instruction]
    template: PromptTemplate
    annotator: Annotator


class Remembered:
    """An `Annotator` that asks another one once about each comparison, and keeps in a folder what that one said.

    A training that goes on after a kill draws the same answers again: of these, nothing is asked or paid for twice, be
    the annotator a service without a store, or a person. A batch of which nothing was judged is not kept.
    """

    def __init__(self, annotator: Annotator, folder: Path) -> None:
        """Each batch is a file of its own in `folder`, its comparisons beside it."""
        self.annotator, self.folder = annotator, folder
        self._said: dict[str, list[Preference]] = {}
        for path in sorted(folder.glob("*-preferences.jsonl")):
            self._take_in(read_records(path, Preference))

    @property
    def identity(self) -> Mapping[str, object]:
        """The other's."""
        return self.annotator.identity

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """What was said before, and what is said now of the others."""
        new = [comparison for comparison in comparisons if comparison.id not in self._said]
        if not new:
            return self._of(comparisons)
        preferences = self.annotator.annotate(new)
        answered = {preference.comparison_id for preference in preferences} == {one.id for one in new}
        if not answered or all(preference.preferred == "unjudged" for preference in preferences):
            return [*self._of(comparisons), *preferences]
        number = len(list(self.folder.glob("*-preferences.jsonl")))
        write_records(self.folder / f"{number:05d}-comparisons.jsonl", new)
        write_records(self.folder / f"{number:05d}-preferences.jsonl", preferences)
        self._take_in(preferences)
        return self._of(comparisons)

    def all(self) -> list[Preference]:
        """Everything that was said."""
        return [preference for said in self._said.values() for preference in said]

    def _of(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        return [preference for one in comparisons for preference in self._said.get(one.id, [])]

    def _take_in(self, preferences: Sequence[Preference]) -> None:
        for preference in preferences:
            self._said.setdefault(preference.comparison_id, []).append(preference)


@dataclass(frozen=True)
class Judgements:
    """What was said of pairs of answers, the first pair being answers 0 and 1, the second 2 and 3, and so on."""

    first_preferred: list[float | None]
    """Of each pair 1, 0, 1/2 for a tie, or a mean of several; None where nothing can be learned from it."""
    figures: dict[str, Tensor | float]
    """Shares of all pairs that are of equal answers, unjudged or tied; and the mean score, where a scorer judged."""


def judge_pairs(environment: Environment | AnnotatedEnvironment, answers: Answers) -> Judgements:
    """Judge each two answers that stand side by side; pairs of equal text are not asked about.

    Raises:
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        TrainingError: if the annotator raises, leaves a comparison out, or judges none of those it was asked about.
    """
    texts = [completion.text for completion in answers.completions]
    equal = [first == second for first, second in zip(texts[::2], texts[1::2], strict=True)]
    figures: dict[str, Tensor | float] = {}
    if isinstance(environment, Environment):
        scores = checked_scores(environment.scorer, answers.instructions, answers.completions)
        figures["reward"] = fmean(scores)
        said: list[float | None] = [_higher(*pair) for pair in zip(scores[::2], scores[1::2], strict=True)]
    else:
        said = _asked(environment.annotator, answers, equal)
    verdicts = [None if same else verdict for same, verdict in zip(equal, said, strict=True)]
    ties = sum(verdict == TIE for verdict in verdicts)
    unjudged = sum(verdict is None for verdict in verdicts) - sum(equal)
    figures |= {
        "pairs/equal": sum(equal) / len(equal),
        "pairs/unjudged": unjudged / len(equal),
        "pairs/ties": ties / len(equal),
    }
    return Judgements(verdicts, figures)


def _higher(first: float, second: float) -> float:
    return TIE if first == second else float(first > second)


def _asked(annotator: Annotator, answers: Answers, equal: list[bool]) -> list[float | None]:
    """The annotator's verdict on each pair; None where it gave none, or was not asked."""
    completions = answers.completions
    comparisons = [
        Comparison.of(instruction, first, second)
        for instruction, first, second in zip(
            answers.instructions[::2], completions[::2], completions[1::2], strict=True
        )
    ]
    asked = [comparison for comparison, same in zip(comparisons, equal, strict=True) if not same]
    preferences = from_main(lambda: _preferences(annotator, asked))
    said: dict[str, list[float]] = {comparison.id: [] for comparison in asked}
    for preference in preferences:
        if preference.preferred != "unjudged":
            said[preference.comparison_id].append({"first": 1.0, "second": 0.0, "tie": TIE}[preference.preferred])
    if asked and not any(said.values()):
        raise TrainingError(
            f"the annotator judged none of {len(asked)} comparisons of one step; the first was unjudged because: "
            f"{preferences[0].error} Put that right and run again to go on from the last checkpoint."
        )
    votes = [said.get(comparison.id) for comparison in comparisons]
    return [fmean(given) if given else None for given in votes]


def _preferences(annotator: Annotator, comparisons: list[Comparison]) -> list[Preference]:
    """At least one preference for each comparison, and none for another."""
    if not comparisons:
        return []
    try:
        preferences = annotator.annotate(comparisons)
    except PastureError:
        raise
    except Exception as error:
        raise TrainingError(
            f"the annotator raised {type(error).__name__}: {error}. It was given {len(comparisons)} comparisons; "
            "a comparison that it cannot judge must come back as unjudged."
        ) from error
    asked, answered = ({one.id for one in comparisons}, {one.comparison_id for one in preferences})
    if asked != answered:
        odd = sorted(asked ^ answered)[0]
        raise TrainingError(
            f"the annotator was given {len(asked)} comparisons and answered about {len(answered)} (first difference: "
            f"{odd!r}); it must return at least one preference for each and none for others."
        )
    return preferences
