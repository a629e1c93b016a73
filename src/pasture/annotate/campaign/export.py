"""What people said, in our own records and in the layouts of others: TRL, AlpacaEval, AlpacaFarm's cross-annotations.

Answers of annotators who were dropped are in none of them, nor are gold pairs, repetitions and the qualification round.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pasture.annotate.campaign.events import Voted
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.entry import alpaca_eval_value
from pasture.core.errors import DataError
from pasture.core.files import write_json_lines, write_records, write_text
from pasture.core.records import Comparison, Preference, Verdict

Layout = Literal["records", "trl", "alpaca-eval", "cross-annotations"]
LAYOUTS: Mapping[Layout, str] = {
    "records": "comparisons.jsonl and preferences.jsonl, one preference for each answer",
    "trl": "prompt, chosen and rejected, one row for each pair with a majority",
    "alpaca-eval": "AlpacaEval's annotations, one row for each answer",
    "cross-annotations": "the layout of AlpacaFarm's human cross-annotations, one row for each answer",
}
PAUSE_SECONDS = 600.0
"""Longer than this is a pause, and counts as this much when time is paid for."""


def comparisons(campaign: Campaign) -> list[Comparison]:
    """The pairs that are labelled, in the order in which they were added."""
    return [pair.comparison for pair in campaign.of_role("work")]


def preferences(campaign: Campaign) -> list[Preference]:
    """One preference for each standing answer, by pair and then by annotator; a skipped pair is unjudged."""
    wage = campaign.settings.wage_usd_per_hour
    return [preference(vote, wage) for votes in campaign.answers().values() for vote in votes]


def preference(vote: Voted, wage_usd_per_hour: float | None) -> Preference:
    """An answer as a record. Two bad answers are a tie, and say so in the evidence."""
    skipped = vote.said == "skip"
    verdict: Mapping[str, Verdict] = {"both_bad": "tie", "skip": "unjudged"}
    evidence: dict[str, Any] = {}
    if vote.said == "both_bad":
        evidence["both_bad"] = True
    if vote.strength is not None:
        evidence["strength"] = vote.strength
    if vote.reason and not skipped:
        evidence["reason"] = vote.reason
    return Preference(
        comparison_id=vote.comparison_id,
        annotator=vote.annotator,
        preferred=verdict.get(vote.said, vote.said),  # type: ignore[arg-type]  # what is left is a verdict
        shown_first=vote.shown_first or "first",
        cost_usd=cost_usd(vote, wage_usd_per_hour),
        seconds=vote.seconds,
        evidence=evidence or None,
        error=f"skipped: {vote.reason}" if skipped else None,
    )


def cost_usd(vote: Voted, wage_usd_per_hour: float | None) -> float | None:
    """What an answer cost at a wage; None where wage or time is unknown."""
    if wage_usd_per_hour is None or vote.seconds is None:
        return None
    return min(vote.seconds, PAUSE_SECONDS) * wage_usd_per_hour / 3600


def majority(votes: Sequence[Voted]) -> Literal["first", "second"] | None:
    """Which side more annotators preferred than the other, ties aside; None where as many preferred each."""
    count = Counter(vote.said for vote in votes)
    if count["first"] == count["second"]:
        return None
    return "first" if count["first"] > count["second"] else "second"


def files_of_export(layout: Layout, target: Path) -> Sequence[Path]:
    """What `write_export` writes, the folder among them where it makes one."""
    if layout != "records":
        return (target,)
    return target, target / "comparisons.jsonl", target / "preferences.jsonl"


def write_export(campaign: Campaign, layout: Layout, target: Path) -> Sequence[str]:
    """Write an export; what was written and what was left out comes back, a line each.

    `records` makes a folder, the others a file.

    Raises:
        DataError: if the layout is unknown.
    """
    said = preferences(campaign)
    if layout == "records":
        _, pairs_file, answers_file = files_of_export(layout, target)
        write_records(pairs_file, comparisons(campaign))
        write_records(answers_file, said)
        return [f"{answers_file}: {len(said)} answers", f"{pairs_file}"]
    if layout == "trl":
        rows, without = trl_rows(campaign)
        write_json_lines(target, rows)
        return [f"{target}: {len(rows)} pairs", f"left out: {without} pairs without a majority"]
    if layout not in LAYOUTS:
        raise DataError(f"no layout {layout!r}. Layouts: {', '.join(LAYOUTS)}.")
    made = alpaca_eval_rows(campaign) if layout == "alpaca-eval" else cross_annotation_rows(campaign)
    if target.suffix == ".jsonl":
        write_json_lines(target, made)
    else:
        write_text(target, _json_list(made))
    skipped = sum(each.preferred == "unjudged" for each in said)
    return [f"{target}: {len(made)} rows", f"{skipped} of {len(said)} answers are skips, without a preference"]


def trl_rows(campaign: Campaign) -> tuple[list[dict[str, object]], int]:
    """A row for each pair that a majority decided, and the number of pairs that none did."""
    rows: list[dict[str, object]] = []
    labels = campaign.labels()
    for comparison in comparisons(campaign):
        better = majority(labels[comparison.id])
        if better is not None:
            worse = comparison.second if better == "first" else comparison.first
            chosen = comparison.first if better == "first" else comparison.second
            rows.append({"prompt": _prompt(comparison), "chosen": chosen.text, "rejected": worse.text})
    return rows, len(labels) - len(rows)


def alpaca_eval_rows(campaign: Campaign) -> list[dict[str, object]]:
    """A row for each answer, as AlpacaEval's annotators write it: 1, 2 or 1.5, null where the pair was skipped."""
    pairs = {each.id: each for each in comparisons(campaign)}
    return [
        {
            **_texts(pairs[each.comparison_id]),
            "annotator": each.annotator,
            "preference": alpaca_eval_value(each),
            "time_per_example": each.seconds,
            "price_per_example": each.cost_usd,
        }
        for each in preferences(campaign)
    ]


def cross_annotation_rows(campaign: Campaign) -> list[dict[str, object]]:
    """A row for each answer, numbered within its pair, as AlpacaFarm published those of its people.

    The preference is null where the pair was skipped. `pair_id` is added: two pairs of other systems may hold the same
    texts.
    """
    return [{name: row[name] for name in row if name != "annotator"} for row in labelled_rows(campaign)]


def labelled_rows(campaign: Campaign) -> list[dict[str, object]]:
    """`cross_annotation_rows`, with the annotator's name."""
    rows: list[dict[str, object]] = []
    numbers: Counter[str] = Counter()
    pairs = {each.id: each for each in comparisons(campaign)}
    for each in preferences(campaign):
        comparison = pairs[each.comparison_id]
        rows.append(
            {
                **_texts(comparison),
                "pair_id": comparison.id,
                "preference": alpaca_eval_value(each),
                "annotator": each.annotator,
                "annotator_index": numbers[each.comparison_id],
                "datasplit": comparison.instruction.split,
                "generator": comparison.second.system,
                "time_per_example": each.seconds,
                "price_per_example": each.cost_usd,
            }
        )
        numbers[each.comparison_id] += 1
    return rows


def _texts(comparison: Comparison) -> dict[str, object]:
    return {
        "dataset": comparison.instruction.source,
        "instruction": comparison.instruction.instruction,
        "input": comparison.instruction.input,
        "generator_1": comparison.first.system,
        "output_1": comparison.first.text,
        "generator_2": comparison.second.system,
        "output_2": comparison.second.text,
    }


def _prompt(comparison: Comparison) -> str:
    asked = comparison.instruction
    return f"{asked.instruction}\n\n{asked.input}" if asked.input else asked.instruction


def _json_list(rows: Sequence[Mapping[str, object]]) -> str:
    return json.dumps(rows, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
