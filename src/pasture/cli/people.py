"""`pasture people`: have people label pairs in a browser, and take what they said into the same loop."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.address import SUFFIX, name_of, open_journal
from pasture.annotate.campaign.desk import Desk, begin
from pasture.annotate.campaign.events import OWNER, Event, Settings
from pasture.annotate.campaign.export import LAYOUTS, Layout, comparisons, labelled_rows, write_export
from pasture.annotate.campaign.finished import finished
from pasture.annotate.campaign.making import Pairs, named_annotators, opening, read_answered, read_pairs
from pasture.annotate.campaign.quality import all_quality
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.campaign.tokens import new_token
from pasture.cli.judges import open_judge
from pasture.cli.people_screen import say_quality, say_simulated
from pasture.core.errors import DataError, DependencyError, RecipeError
from pasture.core.hostile import on_one_line
from pasture.steps.people import agreement, judge_among_people

T = TypeVar("T")
PORT = 8400

Where = Annotated[
    str,
    typer.Argument(
        metavar="[CAMPAIGN]",
        help="A .campaign file, or postgresql://USER@HOST/DATABASE#NAME; the only such file here if absent.",
    ),
]
Named = Annotated[
    str | None, typer.Option("--campaign", "-c", help="Where to keep it: a file, or postgresql://…#NAME.")
]
Known = Annotated[Path | None, typer.Option(help="Pairs with known answers, in a column preference or preferred.")]

people = typer.Typer(
    name="people",
    help="Have people label pairs in a browser: make a campaign, serve it, see how it goes, export.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(people)


@people.command("new", epilog="Example: pasture people new pairs.jsonl --overlap 3 --annotators 16 --gold gold.jsonl")
def new(  # noqa: PLR0913 - one parameter for each option
    pairs: Annotated[Path, typer.Argument(help="A run's comparisons.jsonl, or rows with two outputs.")],
    *,
    campaign: Named = None,
    name: Annotated[str | None, typer.Option("--name", help="What annotators see as its title.")] = None,
    annotators: Annotated[str, typer.Option("--annotators", help="How many, or their names: ann,ben.")] = "1",
    overlap: Annotated[int, typer.Option("--overlap", min=1, help="Labels for each pair.")] = 1,
    head2head: Annotated[Path | None, typer.Option("--head2head", help="Another system's outputs.")] = None,
    samples: Annotated[
        str | None, typer.Option("--samples", help="Make pairs of several outputs: one, or all.")
    ] = None,
    gold: Known = None,
    qualify: Known = None,
    pass_share: Annotated[float, typer.Option("--pass", help="Who agrees with no more than this stays out.")] = 0.7,
    repeats: Annotated[float, typer.Option("--repeats", min=0.0, max=1.0, help="Share of pairs shown twice.")] = 0.0,
    strength: Annotated[bool, typer.Option("--strength", help="Also ask how much better.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Show texts as written, not as Markdown.")] = False,
    guidelines: Annotated[Path | None, typer.Option("--guidelines", help="A Markdown file.")] = None,
    wage: Annotated[float | None, typer.Option("--wage", min=0.0, help="Dollars an hour, for the cost.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the pairs drawn by --samples.")] = 0,
) -> None:
    """Make a campaign of pairs, of two systems' outputs, or of several samples for each instruction."""
    where = campaign or str(pairs.with_name(pairs.name.split(".")[0] + SUFFIX))
    made = read_pairs(pairs, other=head2head, samples=_which(samples), seed=seed)
    settings = Settings(
        overlap=overlap,
        repeat_share=repeats,
        pass_share=pass_share,
        strength=strength,
        markdown=not plain,
        guidelines=_text(guidelines),
        wage_usd_per_hour=wage,
    )
    opened, added = opening(
        name or name_of(where),
        made.comparisons,
        named_annotators(annotators),
        settings,
        gold=read_answered(gold) if gold else (),
        qualification=read_answered(qualify) if qualify else (),
    )
    _begin(where, [opened, *added])
    console = Console(highlight=False)
    _say_made(console, made)
    shares = len(made.comparisons) * overlap / len(opened.annotators)
    console.print(
        f"{where}: {len(made.comparisons)} pairs, {overlap} labels each, {len(opened.annotators)} annotators with "
        f"about {shares:.0f} pairs each. Open it with: pasture people serve {where}",
        markup=False,
        soft_wrap=True,
    )


@people.command("import", epilog="Example: pasture people import labels.jsonl --labels human_1,human_2,human_3")
def import_labels(
    labels_file: Annotated[Path, typer.Argument(metavar="LABELS", help="Rows with two outputs and labels.")],
    *,
    labels: Annotated[str, typer.Option("--labels", help="Columns of labels, with commas between.")] = "preference",
    annotator: Annotated[str | None, typer.Option("--annotator", help="The column that names who labelled.")] = None,
    campaign: Named = None,
) -> None:
    """Take labels that were given elsewhere as a campaign that is over."""
    where = campaign or str(labels_file.with_name(labels_file.name.split(".")[0] + SUFFIX))
    _begin(where, finished(labels_file, name_of(where), labels.split(","), annotator))
    Console(highlight=False).print(f"{where}: made. See it with: pasture people status {where}", markup=False)


@people.command("serve", epilog="Example: pasture people serve pairs.campaign --port 8400")
def serve(  # noqa: PLR0913 - one parameter for each option
    campaign: Where = "",
    *,
    host: Annotated[str, typer.Option("--host", help="Where to listen; others than 127.0.0.1 need TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")] = PORT,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, PEM.")] = None,
    proxy: Annotated[str | None, typer.Option("--proxy", help="Public https address of a proxy before it.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="What people type, with --host 0.0.0.0.")] = None,
    trusted_proxy: Annotated[str, typer.Option("--trusted-proxy", help="The proxy's own address.")] = "127.0.0.1",
    new_links: Annotated[bool, typer.Option("--new-links", help="Make new links for all; the old ones end.")] = False,
) -> None:
    """Open the page, and print one link for each annotator and one for the owner."""
    page = _page()
    place = page.Place(host, port, tls_cert, tls_key, proxy, address, trusted_proxy)
    place.check()
    console = Console(highlight=False)
    with _desk(campaign) as desk:

        def announce(origins: Sequence[str]) -> None:
            _say_links(console, desk, origins[0], everyone=new_links)

        page.serve(desk, place, page.Policy(origins=()), agreement, announce)
    console.print("Closed. Every confirmed answer is kept; the links stay good.")


@people.command("status", epilog="Example: pasture people status pairs.campaign --judge meadow-pool")
def status(
    campaign: Where = "",
    *,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help="Also ask a simulated annotator: name and KEY=VALUE settings.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Also write a page, such as people.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say how far it is and how annotators agree; with --judge, how simulated ones stand among them."""
    rows, pairs, quality, counts = _seen(
        campaign,
        lambda state: (labelled_rows(state), comparisons(state), all_quality(state), _counts(state)),
    )
    standing = agreement(rows)
    judges = []
    if judge:
        with open_judge(judge) as (who, annotator):
            judges.append(judge_among_people(rows, pairs, annotator.annotate(pairs), who))
    if report is not None:
        content = _late("pasture.steps.people_page").people_page(counts, rows, quality, standing, judges)
        _late("pasture.report.page").write_report(content, report)
    console = Console(highlight=False)
    if as_json:
        told = {
            **counts,
            "annotators": [_plain(row) for row in quality],
            "judges": [each.to_dict() for each in judges],
        }
        console.print_json(json.dumps({**told, "agreement": _plain(standing)}))
        return
    say_quality(console, counts, quality, standing)
    for each in judges:
        say_simulated(console, each)


@people.command("export", epilog="Example: pasture people export pairs.campaign --as trl --out labels.jsonl")
def export(
    campaign: Where = "",
    *,
    layout: Annotated[str, typer.Option("--as", help=f"One of {', '.join(LAYOUTS)}.")] = "records",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for records, else a file.")] = None,
) -> None:
    """Write the labels as our own records, for TRL, or in AlpacaEval's or AlpacaFarm's layout."""
    chosen = _layout(layout)
    where = _address(campaign)
    default = {"records": ".labels", "trl": ".trl.jsonl", "alpaca-eval": ".annotations.json"}
    target = out or Path(name_of(where) + default.get(chosen, ".crossannotations.json"))
    for line in _seen(where, lambda state: write_export(state, chosen, target)):
        Console(highlight=False).print(line, markup=False, soft_wrap=True)


@people.command("close")
def close(campaign: Where = "") -> None:
    """Take no further answers; what was said stays."""
    _acted(campaign, acts.close)
    Console(highlight=False).print("Closed.")


@people.command("drop", epilog="Example: pasture people drop pairs.campaign a07")
def drop(
    campaign: Annotated[str, typer.Argument(help="The campaign.")],
    name: Annotated[str, typer.Argument(help="The annotator.")],
) -> None:
    """Count an annotator's answers no more, end their link, and give their pairs to the others."""
    _acted(campaign, lambda state: acts.drop(state, name))
    wanted = _seen(campaign, Campaign.missing_labels)
    Console(highlight=False).print(f"Dropped {on_one_line(name)}. {wanted} labels are wanted now.", markup=False)


@people.command("invite", epilog="Example: pasture people invite pairs.campaign a07")
def invite(
    campaign: Annotated[str, typer.Argument(help="The campaign.")],
    name: Annotated[str, typer.Argument(help=f"The annotator, or {OWNER}.")],
    address: Annotated[str, typer.Option("--address", help="Where the page is served.")] = f"http://127.0.0.1:{PORT}",
) -> None:
    """Make a new link for an annotator or the owner; the old one and its sessions end at once."""
    with _desk(campaign) as desk:
        token = _invited(desk, name)
    Console(highlight=False).print(f"{address.rstrip('/')}/enter/{token}", markup=False, soft_wrap=True)


def _begin(where: str, events: Sequence[Event]) -> None:
    journal = open_journal(where, create=True)
    try:
        begin(journal, events)
    finally:
        journal.close()


def _address(campaign: str) -> str:
    if campaign:
        return campaign
    found = sorted(Path().glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise RecipeError(f"expected one *{SUFFIX} file here, found {len(found)}. Name the campaign.")
    return str(found[0])


def _desk(campaign: str) -> Desk:
    journal = open_journal(_address(campaign))
    try:
        return Desk(journal)
    except BaseException:
        journal.close()
        raise


def _seen(campaign: str, at: Callable[[Campaign], T]) -> T:
    with _desk(campaign) as desk:
        return desk.look(at).result()


def _acted(campaign: str, decide: Callable[[Campaign], Sequence[Event]]) -> None:
    with _desk(campaign) as desk:
        desk.act(decide, lambda _: None).result()


def _invited(desk: Desk, name: str) -> str:
    """A new token for `name`."""
    token = new_token()
    desk.act(lambda state: acts.invite(state, name, token), lambda _: None).result()
    return token


def _late(module: str) -> ModuleType:
    """A module that most verbs would wait for in vain."""
    return importlib.import_module(module)


def _page() -> ModuleType:
    try:
        return _late("pasture.annotate.page.serve")
    except ImportError as error:
        raise DependencyError(
            f"the page needs {error.name}. Install what it needs with: pip install 'pasture[people]'"
        ) from error


def _say_links(console: Console, desk: Desk, origin: str, *, everyone: bool) -> None:
    names = desk.look(lambda state: [OWNER, *state.active]).result()
    invited = desk.look(lambda state: set(state.invited)).result()
    console.print(f"Serving at {origin}. One link for each annotator; each is good for one person:", markup=False)
    for name in names:
        if name in invited and not everyone:
            console.print(f"  {on_one_line(name):<12} invited before; new link: pasture people invite", markup=False)
            continue
        token = _invited(desk, name)
        console.print(f"  {on_one_line(name):<12} {origin}/enter/{token}", markup=False, soft_wrap=True)
    console.print("Links are shown once; only their digests are kept. Ctrl-C closes the page.", markup=False)


def _say_made(console: Console, made: Pairs) -> None:
    for what in made.left_out[:5]:
        console.print(f"left out: {on_one_line(what)}", markup=False, soft_wrap=True)
    if len(made.left_out) > 5:
        console.print(f"left out: {len(made.left_out) - 5} more")


def _counts(state: Campaign) -> Mapping[str, Any]:
    labels = state.labels()
    return {
        "campaign": state.opened.name,
        "closed": state.closed,
        "pairs": len(labels),
        "overlap": state.settings.overlap,
        "labels": sum(map(len, labels.values())),
        "missing": state.missing_labels(),
    }


def _plain(value: Any) -> Any:
    """Dataclasses and figures as JSON; NaN as null."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


def _layout(name: str) -> Layout:
    for layout in LAYOUTS:
        if layout == name:
            return layout
    raise RecipeError(f"--as: no layout {name!r}. Layouts: {', '.join(LAYOUTS)}.")


def _which(samples: str | None) -> Literal["one", "all"] | None:
    if samples is None or samples == "one" or samples == "all":  # noqa: PLR1714 - narrows the type
        return samples  # type: ignore[return-value]
    raise RecipeError(f"--samples: expected one or all, got {samples!r}.")


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
