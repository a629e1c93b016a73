"""`pasture people`: have people label pairs in a browser, and take what they said into the same loop."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, TypeVar

import typer
from rich.console import Console

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.address import SUFFIX, name_of, open_journal, require_apart_from
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.events import OWNER, Event
from pasture.annotate.campaign.export import (
    LAYOUTS,
    Layout,
    comparisons,
    files_of_export,
    labelled_rows,
    write_export,
)
from pasture.annotate.campaign.quality import all_quality
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.campaign.tokens import new_token
from pasture.cli import people_new
from pasture.cli.judges import open_judge
from pasture.cli.options import spread
from pasture.cli.people_screen import say_quality, say_simulated
from pasture.core.errors import DependencyError, RecipeError
from pasture.core.hostile import on_one_line
from pasture.steps.people import agreement, judge_among_people

T = TypeVar("T")
PORT = 8400

Where = Annotated[
    str,
    typer.Argument(
        metavar="CAMPAIGN",
        help="A .campaign file, or postgresql://USER@HOST/DATABASE#NAME; the only such file here if absent.",
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Where people open the page; where it was opened last if absent.")
]

people = typer.Typer(
    name="people",
    help="Have people label pairs in a browser: make a campaign, serve it, see how it goes, export.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module, and those that make a campaign."""
    people_new.register(people)
    app.add_typer(people)


@dataclass(frozen=True)
class Listening:
    """Options: where the page is served."""

    title: ClassVar[str] = "Where"
    host: Annotated[str, typer.Option("--host", help="Where to listen; others than 127.0.0.1 need TLS.")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")] = PORT
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")] = None
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, PEM.")] = None
    proxy: Annotated[str | None, typer.Option("--proxy", help="Public https address of a proxy before it.")] = None
    address: Annotated[str | None, typer.Option("--address", help="What people type, with --host 0.0.0.0.")] = None
    trusted_proxy: Annotated[str, typer.Option("--trusted-proxy", help="The proxy's own address.")] = "127.0.0.1"


@people.command("serve", epilog="Example: pasture people serve pairs.campaign --port 8400")
@spread
def serve(
    campaign: Where = "",
    *,
    listening: Listening,
    new_links: Annotated[bool, typer.Option("--new-links", help="Make new links for all; the old ones end.")] = False,
) -> None:
    """Open the page, and print one link for each annotator and one for the owner."""
    page = _page()
    place = page.Place(*(getattr(listening, field.name) for field in fields(listening)))
    place.check()
    console = Console(highlight=False)
    with _desk(campaign) as desk:

        def announce(origins: Sequence[str]) -> None:
            desk.act(lambda state: acts.serve(state, origins[0]), lambda _: None).result()
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
    where = _address(campaign)
    if report is not None:
        require_apart_from(where, report)
    rows, pairs, quality, counts = _seen(
        where,
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
    require_apart_from(where, *files_of_export(chosen, target))
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


@people.command("add", epilog="Example: pasture people add pairs.campaign dora")
def add(
    campaign: Annotated[str, typer.Argument(help="The campaign.")],
    name: Annotated[str, typer.Argument(help="What the annotator is called.")],
    address: Address = None,
) -> None:
    """Let one more annotator join: a link for them, and an even share of what is left; the page may be open."""
    with _desk(campaign) as desk:
        desk.act(lambda state: acts.join(state, name), lambda _: None).result()
        _say_link(desk, name, address)


@people.command("invite", epilog="Example: pasture people invite pairs.campaign a07")
def invite(
    campaign: Annotated[str, typer.Argument(help="The campaign.")],
    name: Annotated[str, typer.Argument(help=f"The annotator, or {OWNER}.")],
    address: Address = None,
) -> None:
    """Make a new link for an annotator or the owner; the old one and its sessions end at once."""
    with _desk(campaign) as desk:
        _say_link(desk, name, address)


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


def _say_link(desk: Desk, name: str, address: str | None) -> None:
    """Make a link for `name`; it leads to where the page was opened last, where no other address is given."""
    served_at = desk.look(lambda state: state.served_at).result()
    token = _invited(desk, name)
    origin = (address or served_at or f"http://127.0.0.1:{PORT}").rstrip("/")
    Console(highlight=False).print(f"{origin}/enter/{token}", markup=False, soft_wrap=True)


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
    console.file.flush()  # what goes into a file or a pipe is wanted now, not when the page is closed


def _counts(state: Campaign) -> Mapping[str, Any]:
    labels = state.labels()
    return {
        "campaign": state.opened.name,
        "closed": state.closed,
        "pairs": len(labels),
        "overlap": state.settings.overlap,
        "labels": sum(map(len, labels.values())),
        "missing": state.missing_labels(),
        "unassigned": state.unassigned_labels(),
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
