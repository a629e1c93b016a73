"""Every error that Pasture raises on purpose, one class for each kind of repair.

The command line prints the message of a `PastureError` and leaves with code 2; any other exception is a defect of
Pasture and keeps its traceback.
"""

from dataclasses import dataclass


class PastureError(Exception):
    """What the user can put right; the message says how."""


class RecipeError(PastureError):
    """A recipe that cannot be read, or that asks for something that does not exist."""


class RecordError(PastureError, ValueError):
    """A record that breaks its definition; names the file, the line and the field."""


class RunFolderError(PastureError):
    """A run folder that cannot be written, or that belongs to another recipe."""


class DependencyError(PastureError, ImportError):
    """An optional package that is missing; names the extra that brings it."""


class ModelError(PastureError):
    """A model or a tokenizer that cannot be loaded or does not fit its use."""


class DataError(PastureError, ValueError):
    """Rows that are well formed but cannot be used as asked."""


class LeakError(DataError):
    """Instructions that are both trained on and evaluated on."""


@dataclass(frozen=True)
class Missing:
    """Labels that are to come from people."""

    place: str
    """The campaign."""
    count: int
    wanted: int
    advice: str
    """Who has how much before them, and how to go on."""


class WaitingError(PastureError):
    """Labels that people have still to give: nothing is wrong, and whatever does not need them goes on."""

    def __init__(self, *missing: Missing) -> None:
        """What is missing, for one step or for several; what several want of one campaign is added up."""
        super().__init__(*missing)
        self.missing = missing

    def __str__(self) -> str:
        last = {each.place: each for each in self.missing}
        counts = {place: [each for each in self.missing if each.place == place] for place in last}
        return "\n".join(
            f"campaign {place}: {sum(each.count for each in all_of_it)} of {sum(each.wanted for each in all_of_it)} "
            f"labels are missing. {last[place].advice}"
            for place, all_of_it in counts.items()
        )


class StoreError(PastureError):
    """An answer store that cannot be opened, read or written."""


class EngineError(PastureError):
    """A text engine that gave no answer."""


class JudgeReplyError(PastureError):
    """A judge's reply that holds no verdict; the comparison is unjudged."""


class BudgetError(PastureError):
    """A run that stopped before it would have passed its spending limit."""


class ScorerError(PastureError):
    """A scorer that raised, or returned something other than one finite number per completion."""


class TrainingError(PastureError):
    """Training that cannot go on: a loss or reward that is no number, or memory that ran out."""
