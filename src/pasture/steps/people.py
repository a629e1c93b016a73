"""People's labels, measured: where campaigns of room 3 meet the agreement figures of room 6."""

from collections.abc import Mapping, Sequence

from pasture.annotate.campaign.address import open_journal
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.export import cross_annotation_rows
from pasture.annotate.campaign.quality import Agreement, Among
from pasture.annotate.entry import ALPACA_EVAL_VALUE
from pasture.core.errors import DataError
from pasture.core.records import Comparison, Preference
from pasture.validate.agreement import AnnotatorReport, analyze
from pasture.validate.cross_annotations import Columns, CrossAnnotations, read_cross_annotations

_COLUMNS = Columns(pair="pair_id", system="generator_2")
Rows = Sequence[Mapping[str, object]]
"""Labels as `campaign.export.labelled_rows` gives them."""


def agreement(rows: Rows, seed: int = 0) -> Agreement:
    """What the annotators of `rows` have in common, all together and each with the majority of the others."""
    names = list(dict.fromkeys(str(row["annotator"]) for row in rows))
    everyone = _reported(rows, rows, seed)
    return Agreement(
        pairwise=everyone.pairwise_agreement if everyone else None,
        alpha=everyone.alpha if everyone else None,
        by_annotator={name: _among(rows, name, seed) for name in names},
    )


def campaign_rows(address: str) -> list[dict[str, object]]:
    """The labels of a campaign as cross-annotations, wherever it is kept.

    Raises:
        StoreError: if there is no campaign.
    """
    with Desk(open_journal(address)) as desk:
        return desk.look(cross_annotation_rows).result()


def people_report(rows: Rows, seed: int = 0) -> AnnotatorReport | None:
    """All people as one crowd; None without labels."""
    return analyze(crowd := _crowd(rows, "people"), crowd, seed) if rows else None


def judge_among_people(
    rows: Rows, comparisons: Sequence[Comparison], said: Sequence[Preference], name: str, seed: int = 0
) -> AnnotatorReport:
    """How a judge that judged the same pairs stands to the majority of people.

    Raises:
        DataError: if they share no pair that both judged; says why the judge gave no verdict.
    """
    if said and all(each.preferred == "unjudged" for each in said):
        raise DataError(f"{name} judged none of {len(said)} pairs (first: {said[0].error}).")
    pairs = {each.id: each for each in comparisons}
    judged = [_row(pairs[each.comparison_id], each) for each in said if each.comparison_id in pairs]
    return analyze(_crowd(judged, name), _crowd(rows, "people"), seed)


def _among(rows: Rows, name: str, seed: int) -> Among:
    own = [row for row in rows if row["annotator"] == name]
    others = [row for row in rows if row["annotator"] != name]
    report = _reported(own, others, seed)
    return Among(report.agreement, report.kappa) if report else Among(None, None)


def _reported(rows: Rows, others: Rows, seed: int) -> AnnotatorReport | None:
    """None where there is nothing to compare."""
    if not rows or not others:
        return None
    own = _crowd(rows, "own")
    try:
        return analyze(own, own if others is rows else _crowd(others, "others"), seed)
    except DataError:
        return None


def _crowd(rows: Rows, name: str) -> CrossAnnotations:
    return read_cross_annotations([dict(row) for row in rows], _COLUMNS, name=name)[name]


def _row(comparison: Comparison, preference: Preference) -> dict[str, object]:
    return {
        "instruction": comparison.instruction.instruction,
        "output_1": comparison.first.text,
        "output_2": comparison.second.text,
        "generator_2": comparison.second.system,
        "pair_id": comparison.id,
        # The verdict, not the chance behind it: people give verdicts too.
        "preference": ALPACA_EVAL_VALUE[preference.preferred],
        "price_per_example": preference.cost_usd,
        "time_per_example": preference.seconds,
    }
