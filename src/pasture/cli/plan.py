"""`pasture plan`: what a recipe would take, before anything is fetched, done or paid."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture import estimate, flow
from pasture.cli.absent import remedy
from pasture.cli.run import AllowCode, Out, Overrides, RecipePath, Workers
from pasture.cli.screen import duration, money
from pasture.core.hostile import on_one_line
from pasture.plan import Absent, Step
from pasture.recipe import BUILT_IN, UNTRAINED, Cards, Recipe

_BILLION = 1e9


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("plan", epilog="Example: pasture plan recipes/meadow/loop.toml data.preference=2000")(plan)


def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Out = None,
    workers: Workers = 1,
    allow_code: AllowCode = False,
) -> None:
    """Show the steps of a recipe, what is done and what the rest would take; nothing is fetched, done or spent."""
    console = Console()
    run, absent = flow.preview(recipe, overrides or [], out, allow_code=allow_code)
    flow.check_workers(run.recipe, workers)
    left = run.pending()
    _say(console, f"{run.recipe.name} in {run.folder.path}")
    console.print(_steps(run, {step.name for step in left}))
    shared = len(run.plan.views) - len(set(run.plan.views.values()))
    if shared:
        console.print(f"{shared} steps of these runs are done once for several.")
    if absent:
        _show_absent(console, run.recipe, absent)
    if run.recipe.cards is not None or _asks_services(left, run.recipe):
        _show_assumptions(console, run.recipe, left)
        _show_costs(console, run.recipe, left, workers)
    if run.recipe.cards is not None:
        _show_room(console, left, run.recipe, run.recipe.cards)
    done = len(run.plan.steps) - len(left)
    at_once = f"{workers} steps at once" if workers > 1 else "one step at a time"
    console.print(
        f"{len(left)} steps to do, {done} done; about {duration(estimate.span(left, run.recipe, workers))} "
        f"{estimate.on_what(run.recipe)}, {at_once}; {_priced(_total(left, run.recipe))} for labels."
    )


def _say(console: Console, line: str) -> None:
    """One line, whole, whatever it holds."""
    console.print(Text(on_one_line(line)), soft_wrap=True)


def _steps(run: flow.Run, pending: set[str]) -> Table:
    with_memory = run.recipe.model.start not in (BUILT_IN, UNTRAINED)
    table = Table(box=None)
    for column in ("step", "state", "time", *(("memory",) if with_memory else ()), "cost"):
        table.add_column(column, justify="left" if column in ("step", "state") else "right")
    for step in run.plan.steps:
        held = estimate.memory_gigabytes(step, run.recipe) if with_memory else None
        memory = ["" if held is None else f"{held:.3g} GB"] if with_memory else []
        state = "to do" if step.name in pending else "done"
        took = f"~{duration(estimate.seconds(step, run.recipe))}"
        table.add_row(Text(step.name), state, took, *memory, _priced(estimate.price(step, run.recipe)))
    return table


def _show_absent(console: Console, recipe: Recipe, absent: Sequence[Absent]) -> None:
    console.print("\nNot here")
    for one in absent:
        _say(console, f" {one.key}: {one.name}. {remedy(one)}")
    counts = ", ".join(f"{name} {getattr(recipe.data, name):,}" for name in ("sft", "preference", "unlabeled"))
    held_back = ", ".join(f"{name} {getattr(recipe.data, name):,}" for name in ("validation", "evaluation"))
    _say(console, f" Reckoned with the instructions that the recipe states: {counts}, {held_back}.")


def _show_assumptions(console: Console, recipe: Recipe, steps: Sequence[Step]) -> None:
    console.print("\nReckoned with")
    stated = "counted in its files" if not _stated(recipe) else "model.parameter_count"
    _say(console, f" model   {estimate.parameter_count(recipe) / _BILLION:.3g} billion weights, {stated}")
    prompt, answer = estimate.PROMPT_TOKENS, estimate.answer_tokens(recipe)
    _say(console, f" texts   {prompt:.0f} tokens a prompt, {answer:.0f} an answer: half of what sampling allows")
    cards = recipe.cards
    if cards is not None:
        size = f"{cards.count} of {cards.memory_gigabytes:.0f} GB"
        rates = f"{_rate(cards.training_operations_per_second)} operations a second each in training"
        drawing = f"{_rate(cards.drawing_operations_per_second)} in drawing"
        hourly = f"{money(cards.usd_per_hour)} an hour"
        _say(console, f" cards   {size}; {rates}, {drawing}; {hourly} [cards]")
    if _asks_services(steps, recipe):
        _say(console, f" calls   {estimate.SECONDS_PER_CALL:.0f} s each, as many at once as the pool allows")
        asked = dict.fromkeys(name for step in steps for name in estimate.pools_asked(step, recipe))
        prices = dict.fromkeys(price for name in asked for price in estimate.model_prices(recipe.pools[name]))
        for price in prices:
            _say(console, f" prices  {price.model}: {_per_million(price)}")


def _rate(operations: float) -> str:
    return f"{operations:.2g}".replace("e+", "e")


def _stated(recipe: Recipe) -> bool:
    """Whether the model's size is what the recipe says it is."""
    return recipe.model.parameter_count is not None and not estimate.is_counted(recipe)


def _per_million(price: estimate.ModelPrice) -> str:
    if price.input_usd is None or price.output_usd is None:
        return "unknown"
    return f"{money(price.input_usd)} for a million tokens read, {money(price.output_usd)} for a million written"


def _show_costs(console: Console, recipe: Recipe, steps: Sequence[Step], workers: int) -> None:
    labels = sum(estimate.label_count(step) for step in steps)
    table = Table(box=None, title="\nWhat it costs", title_justify="left", title_style="")
    for column in ("", "how much", "dollars", "hours"):
        table.add_column(column, justify="right" if column else "left")
    price = _total(steps, recipe)
    waiting = sum(estimate.waiting_seconds(step, recipe) for step in steps) / 3600
    table.add_row("labels, simulated", f"{labels:,.0f}", _priced(price), f"{waiting:.1f}")
    if labels:
        table.add_row("a thousand of them", "", _priced(_times(price, 1000 / labels)), f"{1000 / labels * waiting:.2f}")
    if recipe.cards is not None:
        hours = estimate.span(steps, recipe, workers) / 3600
        hired = hours * recipe.cards.count
        paid = hired * recipe.cards.usd_per_hour
        table.add_row("cards, for as long as it all takes", f"{hired:.1f} card-hours", money(paid), f"{hours:.1f}")
        whole = None if price is None else price + estimate.Price(paid, paid)
        table.add_row("both", "", _priced(whole), f"{hours:.1f}")
    people = estimate.people(labels)
    table.add_row("labels from people, at the paper's rate", f"{labels:,.0f}", money(people.usd), f"{people.hours:.0f}")
    console.print(table)
    if recipe.data.splits == "paper":
        console.print(f"The paper says of its own loop: {estimate.PAPERS_CLAIM}.")


def _show_room(console: Console, steps: Sequence[Step], recipe: Recipe, cards: Cards) -> None:
    """Say which steps want more memory than a card has."""
    wanted = [(step.name, estimate.memory_gigabytes(step, recipe) or 0.0) for step in steps]
    large = ", ".join(f"{name} ({need:.0f} GB)" for name, need in wanted if need > cards.memory_gigabytes)
    if large:
        _say(
            console,
            f"Too large for a card of {cards.memory_gigabytes:.0f} GB: {large}. Activations come on top. Share the "
            f"trainings out (processes={cards.count} sharding=fsdp2), or train adapters (model.weights.lora.rank=16).",
        )


def _asks_services(steps: Sequence[Step], recipe: Recipe) -> bool:
    return any(estimate.waiting_seconds(step, recipe) for step in steps)


def _total(steps: Sequence[Step], recipe: Recipe) -> estimate.Price | None:
    total = estimate.FREE
    for step in steps:
        price = estimate.price(step, recipe)
        if price is None:
            return None
        total += price
    return total


def _times(price: estimate.Price | None, number: float) -> estimate.Price | None:
    return None if price is None else estimate.Price(price.low * number, price.high * number)


def _priced(price: estimate.Price | None) -> str:
    if price is None:
        return "unknown"
    return money(price.low) if price.low == price.high else f"{money(price.low)} to {money(price.high)}"
