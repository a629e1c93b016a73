"""How pages and tables call those who judge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

JUDGE_TITLES = {"people": "people (hidden)", "pool": "simulated annotators", "greedy": "one noiseless judge"}
"""How the reports call the judges that recipes name."""

_OWN_NOISE = ("people", "greedy")
"""The meadow's annotators whose labels are never flipped."""


def judge_title(judge: str) -> str:
    """How the reports call a judge."""
    return JUDGE_TITLES.get(judge, judge)


def judges_in(folder: Path) -> list[str]:
    """Who judged the comparisons of a folder: those of the meadow first, others by name."""
    found = {path.stem for path in folder.glob("*.jsonl")} - {"comparisons"}
    known = [judge for judge in JUDGE_TITLES if judge in found]
    return known + sorted(found - set(known))


def selecting_judge(recipe: Mapping[str, Any], change: Mapping[str, Any]) -> str:
    """Whose judgement picks steps in a run of a recipe with this `change`, and the label noise that it has."""
    selection = {**recipe["selection"], **change.get("selection", {})}
    who, flips = selection["annotator"], selection["label_flip_probability"]
    title = judge_title(who)
    bring_their_own = ("campaigns", "annotators")
    if who in _OWN_NOISE or any(who in {**recipe.get(key, {}), **change.get(key, {})} for key in bring_their_own):
        return title
    if not flips:
        return f"{title} without label noise"
    pool = {**recipe.get("pools", {}).get(who, {}), **change.get("pools", {}).get(who, {})}
    if pool.get("noise", "flips") != "flips":
        return f"{title} with label noise of their own"
    return f"{title}, {100 * flips:g}% of whose labels are flipped"
