"""Every error that Pasture raises on purpose, one class for each kind of repair.

The command line prints the message of a `PastureError` and leaves with code 2; any other exception is a defect of
Pasture and keeps its traceback.
"""


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
