"""How often the evaluation set was looked at in a run folder: a file for each judgement of a system, never taken back.

A setting that is chosen after a look is chosen on the test set. Steps are replaced when a recipe changes; these files
are not, so that it can be told whether what is reported was judged once.
"""

from collections.abc import Mapping
from pathlib import Path

from pasture.core.files import write_text

_LOOKS = ".looks"


def note_look(folder: Path, step: str, key: str) -> None:
    """Write down that the step `step` with this key judges a system on the evaluation set; once for each key."""
    (folder / _LOOKS).mkdir(exist_ok=True)
    write_text(folder / _LOOKS / key, step + "\n")


def looks(folder: Path) -> dict[str, str]:
    """Every look, as step by key."""
    files = sorted((folder / _LOOKS).iterdir()) if (folder / _LOOKS).exists() else []
    return {file.name: file.read_text(encoding="utf-8").strip() for file in files}


def superseded(folder: Path, steps: Mapping[str, str]) -> list[str]:
    """Steps that judged systems which the plan (step name to key) no longer reports, by name."""
    current = set(steps.values())
    return sorted(step for key, step in looks(folder).items() if key not in current)


def summarized(folder: Path, steps: Mapping[str, str]) -> dict[str, object]:
    """For the manifest: looks in all, and those at systems that the plan no longer reports."""
    return {"looks": len(looks(folder)), "superseded": superseded(folder, steps)}
