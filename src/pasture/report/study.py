"""The page of a study: one HTML file that needs nothing else, and its figures as files.

content = StudyContent(title="…", ranking=found.to_dict(), curves=tuple(curve.to_dict() for curve in curves))
write_study(content, Path("7-report"))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pasture.core.files import write_text
from pasture.report import study_figures, study_tables
from pasture.report.content import Figure, Table
from pasture.report.figures import save, styles_of
from pasture.report.page import content_policy, drawn_figure, known_sum, style_sheet, with_words
from pasture.report.study_content import StudyContent
from pasture.report.study_summary import likeness_line, study_sentences

PAGE_FILE = "index.html"
CONTENT_FILE = "study.json"
FIGURES = "figures"


@dataclass(frozen=True)
class Section:
    """A question, and what answers it."""

    anchor: str
    title: str
    lead: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    folded: tuple[Table, ...] = ()
    """Tables that the reader opens."""
    last: tuple[Figure, ...] = ()
    """Figures that come after the tables."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.figures and not self.tables


def write_study(content: StudyContent, folder: Path) -> list[Path]:
    """Write the page, its content as JSON, and every figure as SVG, PNG and CSV; equal content gives equal bytes.

    Raises:
        RunFolderError: if a file cannot be written.
    """
    write_text(folder / PAGE_FILE, render_study(content))
    write_text(folder / CONTENT_FILE, content.model_dump_json(indent=1) + "\n")
    paths = [folder / PAGE_FILE, folder / CONTENT_FILE]
    for figure in study_figures.study_figures(content):
        paths += save(figure, folder / FIGURES)
    return paths


def render_study(content: StudyContent) -> str:
    """The page of `content` as HTML."""
    style = style_sheet()
    drawn = study_figures.study_figures(content)
    styles = styles_of(drawn)
    shown: dict[str, Mapping[str, object]] = {
        figure.name: drawn_figure(figure.name, figure, styles) for figure in drawn
    }
    return with_words(
        "study.html",
        content=content,
        systems={point.system for point in content.ranking.points} if content.ranking else set(),
        style=Markup(style),  # noqa: S704  # our own file, with colors from the palette
        policy=content_policy(style),
        summary=study_sentences(content),
        sections=[section for section in sections(content, drawn) if not section.is_empty],
        shown=shown,
        references={content.reference} if content.reference else set(),
        total_seconds=sum(step.seconds for step in content.costs),
        total_usd=known_sum([step.cost_usd for step in content.costs]),
        slowest=max((step.seconds for step in content.costs), default=0.0),
    )


def _ranking_lines(content: StudyContent) -> str:
    """The three measures, and once more without the systems that are not made here."""
    ranking, learners = content.ranking, content.learners
    if ranking is None:
        return ""
    whole = likeness_line(ranking.spearman, ranking.kendall, ranking.r_squared)
    if learners is None:
        return whole
    alone = likeness_line(learners.spearman, learners.kendall, learners.r_squared)
    return f"{whole} Without the systems that are not made here, of the {len(learners.points)} others: {alone}"


def sections(content: StudyContent, drawn: list[Figure]) -> list[Section]:
    """The questions of the page in its order."""
    figures = {figure.name: figure for figure in drawn}

    def named(*names: str) -> tuple[Figure, ...]:
        return tuple(figures[name] for name in names if name in figures)

    ranking, validity = content.ranking, content.validity
    return [
        Section(
            "ranking",
            "Does it rank methods as people do?",
            _ranking_lines(content),
            named("ranking"),
            (
                *_tables(study_tables.method_table(content)),
                *study_tables.difference_tables(content),
                *_tables(study_tables.swap_table(content)),
            ),
            (
                *study_tables.all_pairs_tables(content),
                *_tables(study_tables.power_table(content), study_tables.paper_table() if ranking else None),
            ),
            named("power"),
        ),
        Section(
            "overoptimization",
            "Does it show over-optimization?",
            "What the paper found: with people and with noisy annotators win rates rise and then fall while the proxy "
            "reward goes on rising, and one noiseless judge hides the fall.",
            named("overoptimization-proxy", "overoptimization-kl"),
            _tables(study_tables.turn_table(content)),
            _tables(study_tables.law_table(content)),
        ),
        Section("training", "How learning went", "", (content.training,) if content.training else (), ()),
        Section(
            "style",
            "Is it only length?",
            "",
            named("length"),
            tuple(study_tables.style_table(study) for study in content.styles),
        ),
        Section(
            "annotators",
            "Who judged, and what noise does",
            "",
            named("noise"),
            (*content.annotators, *_tables(study_tables.label_table(content)), *content.ablations),
        ),
        Section(
            "validity",
            "Does the evaluation set stand for live use?",
            likeness_line(validity.spearman, validity.kendall, validity.r_squared) if validity else "",
            named("evaluation-validity"),
            (),
        ),
        Section("selection", "How settings were picked", "", (), content.selection),
        Section("cost", "What it costs", "", (), _tables(study_tables.cost_table(content))),
    ]


def _tables(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
