"""Names of figures' files, for what users name otherwise."""

from collections.abc import Sequence

_LONGEST = 64


def figure_names(prefix: str, subjects: Sequence[str]) -> dict[str, str]:
    """A name for each subject's figure, of letters and '-' alone; where two would share one, the later is numbered."""
    found: dict[str, str] = {}
    for subject in subjects:
        plain = f"{prefix}-{subject.replace('_', '-')}"[:_LONGEST]
        name, number = plain, 1
        while name in found.values():
            number += 1
            ending = f"-{number}"
            name = plain[: _LONGEST - len(ending)] + ending
        found[subject] = name
    return found
