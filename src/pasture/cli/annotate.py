"""`pasture annotate` and `pasture bias`: have a judge prefer, or see what moves it."""

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pasture.annotate.alpaca_eval.configs import load_config
from pasture.annotate.alpaca_eval.judge import AlpacaEvalJudge
from pasture.annotate.bias import BiasReport, Share, bias_report
from pasture.annotate.compat import AlpacaEvalDraws
from pasture.annotate.draws import ContentDraws, Draws
from pasture.annotate.entry import Annotated as AnnotatedRows
from pasture.annotate.entry import Columns, annotate_head2head, annotate_pairs, annotate_samples, comparison_of
from pasture.annotate.noise import UniformFlips
from pasture.annotate.panel import Panel, load_panel, shipped_pools
from pasture.annotate.pool import LLMPool
from pasture.annotate.tables import as_table, write_rows
from pasture.core.errors import RecipeError
from pasture.core.files import write_text
from pasture.core.hostile import on_one_line
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Preference
from pasture.core.requests import Request, Usage
from pasture.core.store import AnswerStore
from pasture.engines import open_engine
from pasture.engines.budget import Budget
from pasture.engines.cached import CachedEngine
from pasture.engines.prices import StatedPrice, cost_usd, likely_input_tokens, most_usage
from pasture.engines.scripted import ScriptedEngine
from pasture.engines.settings import EngineKind

HOME_URLS: Mapping[str, str] = {"api": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""What is meant where no address is named."""

Pairs = Annotated[Path, typer.Argument(help="Rows with instruction, output_1, output_2: JSON, JSONL, CSV or Parquet.")]
Judge = Annotated[str | None, typer.Option("--judge", help="One judge: a shipped name or a TOML file.")]
Pool = Annotated[str | None, typer.Option("--pool", help=f"Several judges: {', '.join(shipped_pools())}, or a file.")]
Config = Annotated[Path | None, typer.Option("--config", help="An AlpacaEval evaluator folder.")]
Models = Annotated[str, typer.Option("--models", "-m", help="Models, strongest first, with commas between.")]
Kind = Annotated[str | None, typer.Option("--engine", help="api (default), anthropic, local or vllm.")]
BaseUrl = Annotated[list[str] | None, typer.Option("--base-url", help="Address of the service; may be repeated.")]
KeyEnv = Annotated[str | None, typer.Option("--api-key-env", help="Name of the variable that holds the key.")]
InFlight = Annotated[int, typer.Option("--in-flight", min=1, help="Calls at once.")]
Price = Annotated[
    str | None, typer.Option("--price", help="Dollars per million tokens in,out, such as 2.5,10; 0,0 for your own.")
]
MaxUsd = Annotated[float | None, typer.Option("--max-usd", min=0.0, help="Stop before this is passed.")]
UnknownOk = Annotated[bool, typer.Option("--price-unknown-ok", help="Ask models of unknown price despite --max-usd.")]
Head2Head = Annotated[Path | None, typer.Option("--head2head", help="Outputs of another system, joined with PAIRS'.")]
Samples = Annotated[str | None, typer.Option("--samples", help="Make pairs of several outputs: one, or all.")]
Compat = Annotated[str | None, typer.Option("--compat", help="alpaca_eval: its draws of annotators, orders, noise.")]
BothOrders = Annotated[bool, typer.Option("--both-orders", help="Ask in both orders; disagreement is a tie.")]
Flip = Annotated[
    float | None,
    typer.Option("--flip", min=0.0, max=0.5, help="Share of labels to flip, in place of the pool's."),
]
Retry = Annotated[bool, typer.Option("--retry-unjudged", help="Ask again where there is no verdict.")]
Store = Annotated[Path, typer.Option("--store", help="Where paid answers are kept and looked up.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of assignments, orders and noise.")]
Chat = Annotated[bool, typer.Option("--completions-as-chat", help="For services without a completion endpoint.")]


@dataclass(frozen=True)
class Asking:
    """Who is asked and how, as the options say."""

    judge: str | None
    pool: str | None
    config: Path | None
    models: str
    completions_as_chat: bool
    seed: int
    engine: str | None
    base_urls: Sequence[str]
    api_key_env: str | None
    in_flight: int
    price: str | None
    max_usd: float | None
    price_unknown_ok: bool
    store: Path


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command("annotate", epilog="Example: pasture annotate pairs.jsonl --judge greedy --models gpt-4.1 --max-usd 5")(
        annotate
    )
    app.command("bias", epilog="Example: pasture bias pairs.jsonl --judge greedy --models gpt-4.1 --limit 100")(bias)


def annotate(  # noqa: PLR0913 - one parameter for each option
    pairs: Pairs,
    *,
    judge: Judge = None,
    pool: Pool = None,
    config: Config = None,
    models: Models = "",
    head2head: Head2Head = None,
    samples: Samples = None,
    both_orders: BothOrders = False,
    flip: Flip = None,
    seed: Seed = 0,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Number of the replicate: another asks anew.")] = 0,
    compat: Compat = None,
    retry_unjudged: Retry = False,
    engine: Kind = None,
    base_url: BaseUrl = None,
    api_key_env: KeyEnv = None,
    completions_as_chat: Chat = False,
    in_flight: InFlight = 50,
    price: Price = None,
    max_usd: MaxUsd = None,
    price_unknown_ok: UnknownOk = False,
    store: Store = Path("answers.sqlite"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many calls it takes and what they cost.")] = False,
    prefix: Annotated[str, typer.Option("--prefix", help="What the names of new columns begin with.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="PAIRS.annotated.jsonl where absent.")] = None,
) -> None:
    """Have a judge or a pool prefer one of two outputs, row by row; paid answers are kept and never bought twice."""
    asking = Asking(
        judge, pool, config, models, completions_as_chat, seed, engine, base_url or (), api_key_env, in_flight, price,
        max_usd, price_unknown_ok, store,
    )  # fmt: skip
    console = Console()
    panel, draws = _panel(asking, compat)
    panel = replace(panel, order="both") if both_orders else panel
    if flip is not None:
        panel = replace(panel, noise=UniformFlips(probability=flip) if flip else None)
    work = _Work(pairs, head2head, _which(samples), seed, prefix)
    if dry_run:
        _say_plan(console, _planned(panel, draws, sample, work, asking))
        return
    with _engine(asking, retry_failed=retry_unjudged) as asked, _shown_progress(console) as progress:
        who = LLMPool(panel, asked, draws=draws, sample=sample, retry_unjudged=retry_unjudged, progress=progress)
        done = work.done_by(who)
    target = out or pairs.with_name(f"{pairs.stem}.annotated.jsonl")
    write_rows(target, done.rows)
    _say_done(console, done)
    console.print(f"Wrote {target}", soft_wrap=True, markup=False)


def bias(  # noqa: PLR0913 - one parameter for each option
    pairs: Pairs,
    *,
    judge: Judge = None,
    pool: Pool = None,
    config: Config = None,
    models: Models = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Pairs, from the first; four calls for each.")] = 200,
    seed: Seed = 0,
    engine: Kind = None,
    base_url: BaseUrl = None,
    api_key_env: KeyEnv = None,
    completions_as_chat: Chat = False,
    in_flight: InFlight = 50,
    price: Price = None,
    max_usd: MaxUsd = None,
    price_unknown_ok: UnknownOk = False,
    store: Store = Path("answers.sqlite"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the report, as JSON.")] = None,
) -> None:
    """Say what moves a judge besides quality: position, length, lists, chance; and what it refuses to judge."""
    asking = Asking(
        judge, pool, config, models, completions_as_chat, seed, engine, base_url or (), api_key_env, in_flight, price,
        max_usd, price_unknown_ok, store,
    )  # fmt: skip
    console = Console()
    panel, draws = _panel(asking, None)
    table = as_table(pairs)
    comparisons = [
        comparison_of(row, Columns(), f"{pairs}, row {number}")
        for number, row in enumerate(table.rows[:limit], start=1)
    ]
    with _engine(asking, retry_failed=False) as asked, _shown_progress(console) as progress:
        report = bias_report(LLMPool(panel, asked, draws=draws, progress=progress), comparisons)
    _say_bias(console, panel.name, report)
    if out is not None:
        write_text(out, json.dumps(report.as_dict(), indent=1) + "\n")


Which = Literal["one", "all"]


@dataclass(frozen=True)
class _Work:
    """What is to be annotated."""

    pairs: Path
    head2head: Path | None
    samples: Which | None
    seed: int
    prefix: str

    def done_by(self, who: Annotator) -> AnnotatedRows:
        """The rows with their preferences."""
        if self.head2head is not None:
            return annotate_head2head(self.pairs, self.head2head, who, prefix=self.prefix)
        if self.samples is not None:
            return annotate_samples(self.pairs, who, which=self.samples, seed=self.seed, prefix=self.prefix)
        return annotate_pairs(self.pairs, who, prefix=self.prefix)


class _Listener:
    """An annotator that only listens to what it would be asked."""

    def __init__(self) -> None:
        self.identity: Mapping[str, object] = {}
        self.comparisons: Sequence[Comparison] = ()

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """Ties that nobody reads."""
        self.comparisons = comparisons
        return [Preference(comparison_id=each.id, annotator="nobody", preferred="tie") for each in comparisons]


@dataclass(frozen=True)
class _Planned:
    rows: int
    calls: int
    stored: int
    low_usd: float | None
    high_usd: float | None


def _which(samples: str | None) -> Which | None:
    if samples is None or samples == "one" or samples == "all":  # noqa: PLR1714 - narrows the type
        return samples  # type: ignore[return-value]
    raise RecipeError(f"--samples: expected one or all, got {samples!r}.")


def _panel(asking: Asking, compat: str | None) -> tuple[Panel, Draws]:
    """Who judges, and where draws come from."""
    models = [name.strip() for name in asking.models.split(",") if name.strip()]
    chosen = [name for name in (asking.judge, asking.pool, asking.config) if name is not None]
    if len(chosen) != 1:
        raise RecipeError("expected exactly one of --judge, --pool and --config, such as --judge greedy.")
    if compat not in (None, "alpaca_eval"):
        raise RecipeError(f"--compat: expected alpaca_eval, got {compat!r}.")
    columns: tuple[str, ...] = ("instruction",)
    if asking.config is not None:
        read = load_config(asking.config)
        panel, columns = _with_model(read.panel, models), read.order_columns
    else:
        panel = load_panel(str(chosen[0]), models, completions_as_chat=asking.completions_as_chat)
        if asking.judge is not None and len(panel.judges) > 1:
            raise RecipeError(f"--judge: {asking.judge!r} has {len(panel.judges)} judges; name it with --pool.")
    draws: Draws = AlpacaEvalDraws(asking.seed, columns) if compat else ContentDraws(asking.seed)
    return panel, draws


def _with_model(panel: Panel, models: Sequence[str]) -> Panel:
    """A config's judges over a model of the user's, where one is named: the config's own may be gone."""
    if not models:
        return panel
    if len(models) > 1:
        raise RecipeError(f"--models: an AlpacaEval config takes one model in place of its own, got {len(models)}.")
    return replace(panel, judges=[each.over(models[0]) for each in panel.judges if isinstance(each, AlpacaEvalJudge)])


@contextlib.contextmanager
def _engine(asking: Asking, *, retry_failed: bool) -> Iterator[CachedEngine]:
    """The engine behind the store, both open for as long as the block runs."""
    kind, settings = _engine_settings(asking)
    budget = None if asking.max_usd is None else Budget(asking.max_usd)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(AnswerStore(asking.store))
        inner = open_engine(kind, settings, budget=budget)
        if hasattr(inner, "close"):
            stack.callback(inner.close)
        yield CachedEngine(inner, store, retry_failed=retry_failed)


def _engine_settings(asking: Asking) -> tuple[EngineKind, dict[str, Any]]:
    kind: Any = asking.engine or "api"
    urls, price = list(asking.base_urls), _price(asking.price)
    if asking.config is not None:
        decoders = list(load_config(asking.config).decoders.values())
        kinds, places = {each.engine for each in decoders}, {each.base_url for each in decoders}
        if asking.engine is None and len(kinds) > 1:
            raise RecipeError(f"{asking.config}: its judges need the engines {', '.join(sorted(kinds))}; name one.")
        kind = asking.engine or kinds.pop()
        if not urls and len(places) > 1:
            raise RecipeError(f"{asking.config}: its judges name several addresses; choose one with --base-url.")
        urls = urls or [url for url in places if url is not None]
        stated = {each.price_per_token_usd for each in decoders} - {None}
        if price is None and len(stated) == 1:
            rate = float(stated.pop() or 0.0) * 1e6
            price = StatedPrice(input_per_million=rate, output_per_million=rate)
    if kind not in ("api", "anthropic"):
        return kind, {}
    endpoints = [{"base_url": url, "api_key_env": asking.api_key_env} for url in urls or (None,)]
    settings = {"endpoints": endpoints, "in_flight": asking.in_flight, "price": price}
    return kind, {**settings, "price_unknown_ok": asking.price_unknown_ok}


def _price(text: str | None) -> StatedPrice | None:
    if text is None:
        return None
    try:
        given, made = (float(part) for part in text.split(","))
        return StatedPrice(input_per_million=given, output_per_million=made)
    except ValueError:
        raise RecipeError(f"--price: expected two amounts such as 2.5,10, got {text!r}.") from None


def _planned(panel: Panel, draws: Draws, sample: int, work: _Work, asking: Asking) -> _Planned:
    """Calls and costs of what is not in the store; nothing is sent, and no key is needed."""
    listener = _Listener()
    rows = len(work.done_by(listener).preferences)
    kind, settings = _engine_settings(asking)
    calls, stored, low, high, known = 0, 0, 0.0, 0.0, True
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(AnswerStore(asking.store)) if asking.store.exists() else None
        for request in LLMPool(panel, ScriptedEngine(""), draws=draws, sample=sample).requests(listener.comparisons):
            calls += 1
            if store is not None and store.get(request.request_hash) is not None:
                stored += 1
                continue
            least, most = _usages(request)
            costs = [_cost_of(usage, request.model, kind, settings) for usage in (least, most)]
            known = known and None not in costs
            low, high = low + (costs[0] or 0.0), high + (costs[1] or 0.0)
    return _Planned(rows, calls, stored, low if known else None, high if known else None)


def _cost_of(usage: Usage | None, model: str, kind: EngineKind, settings: Mapping[str, Any]) -> float | None:
    if kind in ("local", "vllm"):
        return 0.0
    address = settings["endpoints"][0]["base_url"] or HOME_URLS[kind]
    return None if usage is None else cost_usd(usage, model, address, settings["price"])


def _usages(request: Request) -> tuple[Usage, Usage | None]:
    """Tokens at least and at most: a verdict of one token, and the longest reply to a prompt of a token a byte."""
    return Usage(input_tokens=likely_input_tokens(request), output_tokens=1), most_usage(request)


@contextlib.contextmanager
def _shown_progress(console: Console) -> Iterator[Any]:
    """A bar where a terminal listens; what is called with (done, total)."""
    bar = Progress(
        TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
    task = bar.add_task("", total=None)

    def advanced(done: int, total: int, **_: float) -> None:
        bar.update(task, completed=done, total=total)

    with bar:
        yield advanced


def _say_plan(console: Console, plan: _Planned) -> None:
    console.print(f"{plan.rows} rows, {plan.calls} calls, {plan.stored} of them answered before.")
    if plan.low_usd is None or plan.high_usd is None:
        console.print("The price is unknown. State it with --price, to set a limit with --max-usd.")
    else:
        console.print(f"The rest costs from ${plan.low_usd:.4f} to ${plan.high_usd:.4f} at most. Nothing was sent.")


def _say_done(console: Console, done: AnnotatedRows) -> None:
    """A line for each annotator, then what needs attention."""
    table = Table(box=None)
    columns = ("annotator", "asked", "first", "second", "tie", "unjudged", "noise", "cost")
    for name in columns:
        table.add_column(name, justify="left" if name == "annotator" else "right")
    groups: defaultdict[str, list[Preference]] = defaultdict(list)
    for each in done.preferences:
        groups[each.annotator].append(each)
    rows = [(name, groups[name]) for name in sorted(groups)]
    for name, said in [*rows, ("all", list(done.preferences))] if len(rows) > 1 else rows:
        verdicts = Counter(each.preferred for each in said)
        counts = [verdicts[kind] for kind in ("first", "second", "tie", "unjudged")]
        noise = sum(each.flipped_by_noise for each in said)
        table.add_row(on_one_line(name), str(len(said)), *map(str, counts), str(noise), _cost(said))
    console.print(table)
    console.print("Costs are those of the day an answer was bought; answers from the store cost nothing now.")
    for what in done.left_out[:5]:
        console.print(f"left out: {on_one_line(what)}", markup=False)
    if len(done.left_out) > 5:
        console.print(f"left out: {len(done.left_out) - 5} more")
    if done.counts["unjudged"]:
        error = next(each.error for each in done.preferences if each.error is not None)
        console.print(
            f"{done.counts['unjudged']} rows are unjudged, kept without a preference (first: {on_one_line(error)}). "
            "Run again with --retry-unjudged to ask about them alone.",
            markup=False,
        )


def _cost(said: Sequence[Preference]) -> str:
    costs = [each.cost_usd for each in said]
    known = [cost for cost in costs if cost is not None]
    return f"${sum(known):.4f}" if len(known) == len(costs) else "unknown"


def _say_bias(console: Console, name: str, report: BiasReport) -> None:
    table = Table(title=f"{on_one_line(name)} on {report.asked} pairs", title_justify="left", box=None)
    for column in ("", "share", "± s.e.", "pairs", "no leaning"):
        table.add_column(column, justify="left" if not column else "right")
    shares: list[tuple[str, Share, str]] = [
        ("prefers the answer shown first", report.prefers_first_shown, "0.5"),
        ("prefers the longer", report.prefers_longer, "0.5"),
        ("prefers the list", report.prefers_list, "0.5"),
        ("changes its mind with the order", report.changes_with_order, "0"),
        ("agrees with itself", report.agrees_with_itself, "1"),
    ]
    for title, share, neutral in shares:
        value, error = (("-" if each is None else f"{each:.3f}") for each in (share.value, share.standard_error))
        table.add_row(title, value, error, str(share.count), neutral)
    console.print(table)
    cost = "unknown" if report.cost_usd is None else f"${report.cost_usd:.4f}"
    console.print(f"{report.unjudged} pairs unjudged, {report.refused} of them refused. Cost {cost}.")
