"""A campaign's people beside simulated annotators, as a page of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from pasture.annotate.campaign.quality import Agreement, AnnotatorQuality
from pasture.report.content import Column, Fact, ReportContent, Table
from pasture.steps.board_page import annotators_table
from pasture.steps.people import Rows, people_report
from pasture.validate.agreement import AnnotatorReport


def people_page(
    counts: Mapping[str, Any],
    rows: Rows,
    quality: Sequence[AnnotatorQuality],
    standing: Agreement,
    judges: Sequence[AnnotatorReport],
) -> ReportContent:
    """The content of the page: people as a crowd, then the judges; then each annotator."""
    crowd = people_report(rows)
    both = [*([crowd] if crowd else []), *judges]
    return ReportContent(
        title=f"{counts['campaign']}: what people said",
        subtitle=f"{counts['labels']} labels of {counts['pairs']} pairs by {len(quality)} annotators",
        annotators=(
            annotators_table(both, "People as a crowd, and simulated annotators on the same pairs."),
            _each(quality, standing),
        ),
        facts=tuple(Fact(name=str(name), value=str(value)) for name, value in counts.items()),
        warnings=(f"{counts['missing']} labels are missing.",) if counts["missing"] else (),
    )


def _each(quality: Sequence[AnnotatorQuality], standing: Agreement) -> Table:
    percent = {"format": "percent"}
    columns = (
        Column(title="Person"),
        Column(title="Labels", format="count"),
        Column(title="Agreement", meaning="With the majority of the others, on the pairs that they share.", **percent),
        Column(title="Kappa", format="number", digits=2, meaning="Cohen's, with the same majority."),
        Column(title="Known answers", meaning="Gold pairs answered as expected.", **percent),
        Column(title="Same twice", meaning="Repeated pairs answered alike both times.", **percent),
        Column(title="Shown first", meaning="Preferred the answer shown first; 50% is an even hand.", **percent),
        Column(title="Seconds a pair", format="number", digits=3, meaning="Median."),
        Column(title="Cost", format="usd"),
    )
    rows = []
    for one in quality:
        among = standing.by_annotator.get(one.name)
        agreement, kappa = (among.agreement, among.kappa) if among else (None, None)
        rows.append(
            (
                one.name if one.status == "working" else f"{one.name} ({one.status})",
                one.labels,
                None if agreement is None else agreement.value,
                None if kappa is None else kappa.value,
                one.gold.share,
                one.repeated.share,
                one.prefers_first_shown.share,
                one.median_seconds,
                one.cost_usd,
            )
        )
    return Table(title="Each person", columns=columns, rows=tuple(rows))
