"""`pasture people new` and `pasture people import`: a campaign from pairs, or from labels that were given elsewhere."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console

from pasture.annotate.campaign.address import SUFFIX, name_of, new_campaign
from pasture.annotate.campaign.events import Settings
from pasture.annotate.campaign.finished import finished
from pasture.annotate.campaign.making import (
    Pairs,
    check_pass_share,
    drawn,
    named_annotators,
    opening,
    read_answered,
    read_pairs,
)
from pasture.cli.options import spread, which_samples
from pasture.core.errors import DataError
from pasture.core.hostile import on_one_line

Named = Annotated[
    str | None, typer.Option("--campaign", "-c", help="Where to keep it: a file, or postgresql://…#NAME.")
]


@dataclass(frozen=True)
class Source:
    """Options: how PAIRS become pairs, where they are none yet."""

    title: ClassVar[str] = "Pairs"
    head2head: Annotated[Path | None, typer.Option("--head2head", help="Another system's outputs.")] = None
    samples: Annotated[str | None, typer.Option("--samples", help="Make pairs of several outputs: one, or all.")] = None
    count: Annotated[int | None, typer.Option("--count", min=1, help="Ask about so many of the pairs.")] = None
    seed: Annotated[int, typer.Option("--seed", help="Seed of what --samples and --count draw.")] = 0

    def pairs(self, path: Path) -> Pairs:
        """The pairs of a file."""
        made = read_pairs(
            path, other=self.head2head, samples=which_samples(self.samples, self.head2head), seed=self.seed
        )
        return made if self.count is None else replace(made, comparisons=drawn(made.comparisons, self.count, self.seed))


@dataclass(frozen=True)
class Asked:
    """Options: who is asked, and how often."""

    title: ClassVar[str] = "Who is asked"
    annotators: Annotated[str, typer.Option("--annotators", help="How many, or their names: ann,ben.")] = "1"
    overlap: Annotated[int, typer.Option("--overlap", min=1, help="Labels for each pair.")] = 1
    wage: Annotated[float | None, typer.Option("--wage", min=0.0, help="Dollars an hour, for the cost.")] = None


@dataclass(frozen=True)
class Watched:
    """Options: how the quality of answers is watched."""

    title: ClassVar[str] = "Quality"
    gold: Annotated[
        Path | None, typer.Option("--gold", help="Pairs with known answers (column preference), mixed in.")
    ] = None
    qualify: Annotated[Path | None, typer.Option("--qualify", help="Pairs with known answers, as a first round.")] = (
        None
    )
    pass_share: Annotated[
        float, typer.Option("--pass", help="Who agrees with no more than this share, below 1, stays out.")
    ] = 0.7
    repeats: Annotated[float, typer.Option("--repeats", min=0.0, max=1.0, help="Share of pairs shown twice.")] = 0.0


@dataclass(frozen=True)
class Shown:
    """Options: what annotators see."""

    title: ClassVar[str] = "The page"
    name: Annotated[str | None, typer.Option("--name", help="What annotators see as its title.")] = None
    guidelines: Annotated[Path | None, typer.Option("--guidelines", help="A Markdown file.")] = None
    strength: Annotated[bool, typer.Option("--strength", help="Also ask how much better.")] = False
    plain: Annotated[bool, typer.Option("--plain", help="Show texts as written, not as Markdown.")] = False


def register(people: typer.Typer) -> None:
    """Add the verbs of this module."""
    people.command(
        "new", epilog="Example: pasture people new pairs.jsonl --overlap 3 --annotators 16 --gold gold.jsonl"
    )(new)
    people.command("import", epilog="Example: pasture people import labels.jsonl --labels human_1,human_2,human_3")(
        import_labels
    )


@spread
def new(
    pairs: Annotated[Path, typer.Argument(help="A run's comparisons.jsonl, or rows with two outputs.")],
    *,
    campaign: Named = None,
    source: Source,
    asked: Asked,
    watched: Watched,
    shown: Shown,
) -> None:
    """Make a campaign of pairs, of two systems' outputs, or of several samples for each instruction."""
    check_pass_share(watched.pass_share)
    where = campaign or str(pairs.with_name(pairs.name.split(".")[0] + SUFFIX))
    made = source.pairs(pairs)
    opened, added = opening(
        shown.name or name_of(where),
        made.comparisons,
        named_annotators(asked.annotators),
        Settings(
            overlap=asked.overlap,
            repeat_share=watched.repeats,
            pass_share=watched.pass_share,
            strength=shown.strength,
            markdown=not shown.plain,
            guidelines=_text(shown.guidelines),
            wage_usd_per_hour=asked.wage,
        ),
        gold=read_answered(watched.gold) if watched.gold else (),
        qualification=read_answered(watched.qualify) if watched.qualify else (),
    )
    new_campaign(where, [opened, *added])
    console = Console(highlight=False)
    _say_made(console, made)
    shares = max(1, round(len(made.comparisons) * asked.overlap / len(opened.annotators)))
    console.print(
        f"{where}: {len(made.comparisons)} pairs, {asked.overlap} labels each, {len(opened.annotators)} annotators "
        f"with about {shares} pairs each. Open it with: pasture people serve {where}",
        markup=False,
        soft_wrap=True,
    )


def import_labels(
    labels_file: Annotated[Path, typer.Argument(metavar="LABELS", help="Rows with two outputs and labels.")],
    *,
    labels: Annotated[str, typer.Option("--labels", help="Columns of labels, with commas between.")] = "preference",
    annotator: Annotated[str | None, typer.Option("--annotator", help="The column that names who labelled.")] = None,
    campaign: Named = None,
) -> None:
    """Take labels that were given elsewhere as a campaign that is over."""
    where = campaign or str(labels_file.with_name(labels_file.name.split(".")[0] + SUFFIX))
    new_campaign(where, finished(labels_file, name_of(where), labels.split(","), annotator))
    Console(highlight=False).print(f"{where}: made. See it with: pasture people status {where}", markup=False)


def _say_made(console: Console, made: Pairs) -> None:
    for what in made.left_out[:5]:
        console.print(f"left out: {on_one_line(what)}", markup=False, soft_wrap=True)
    if len(made.left_out) > 5:
        console.print(f"left out: {len(made.left_out) - 5} more")


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
