"""Who is asked and how, from the options that `annotate` and `bias` share to a pool behind its store."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from pasture.annotate.alpaca_eval.configs import load_config
from pasture.annotate.alpaca_eval.judge import AlpacaEvalJudge
from pasture.annotate.compat import AlpacaEvalDraws
from pasture.annotate.draws import ContentDraws, Draws
from pasture.annotate.panel import Panel, load_panel, shipped_pools
from pasture.annotate.stored import Access
from pasture.cli.options import settings_table
from pasture.core.errors import RecipeError
from pasture.core.sections import check_section
from pasture.engines.settings import SETTINGS


@dataclass(frozen=True)
class Who:
    """Options: which judges, over which models."""

    title: ClassVar[str] = "Who judges"
    judge: Annotated[str | None, typer.Option("--judge", help="One judge: a shipped name or a TOML file.")] = None
    pool: Annotated[
        str | None, typer.Option("--pool", help=f"Several judges: {', '.join(shipped_pools())}, or a file.")
    ] = None
    config: Annotated[Path | None, typer.Option("--config", help="An AlpacaEval evaluator folder.")] = None
    models: Annotated[
        str, typer.Option("--models", "-m", help="Models, strongest first, with commas between; folders for `local`.")
    ] = ""
    completions_as_chat: Annotated[
        bool, typer.Option("--completions-as-chat", help="For services without a completion endpoint.")
    ] = False
    seed: Annotated[int, typer.Option("--seed", help="Seed of assignments, orders and noise.")] = 0

    @property
    def model_names(self) -> list[str]:
        """Those of `--models`."""
        return [name.strip() for name in self.models.split(",") if name.strip()]

    def panel(self, compat: str | None = None) -> tuple[Panel, Draws]:
        """Who judges, and where draws come from.

        Raises:
            RecipeError: naming the option that does not fit.
        """
        chosen = [name for name in (self.judge, self.pool, self.config) if name is not None]
        if len(chosen) != 1:
            raise RecipeError("expected exactly one of --judge, --pool and --config, such as --judge greedy.")
        if compat not in (None, "alpaca_eval"):
            raise RecipeError(f"--compat: expected alpaca_eval, got {compat!r}.")
        columns: tuple[str, ...] = ("instruction",)
        if self.config is not None:
            read = load_config(self.config)
            panel, columns = _with_model(read.panel, self.model_names), read.order_columns
        else:
            panel = load_panel(str(chosen[0]), self.model_names, completions_as_chat=self.completions_as_chat)
            if self.judge is not None and len(panel.judges) > 1:
                raise RecipeError(f"--judge: {self.judge!r} has {len(panel.judges)} judges; name it with --pool.")
        return panel, AlpacaEvalDraws(self.seed, columns) if compat else ContentDraws(self.seed)


@dataclass(frozen=True)
class Service:
    """Options: who answers, and what that may cost."""

    title: ClassVar[str] = "Service and money"
    engine: Annotated[str | None, typer.Option("--engine", help=f"{', '.join(SETTINGS)}; api where absent.")] = None
    base_url: Annotated[
        list[str] | None, typer.Option("--base-url", help="Address of the service; may be repeated.")
    ] = None
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="Name of the variable that holds the key.")
    ] = None
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Calls at once.")] = 50
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the engine's settings, such as device=cuda; may be repeated."),
    ] = None
    price: Annotated[
        str | None, typer.Option("--price", help="Dollars per million tokens in,out, such as 2.5,10; 0,0 for your own.")
    ] = None
    max_usd: Annotated[float | None, typer.Option("--max-usd", min=0.0, help="Stop before this is passed.")] = None
    price_unknown_ok: Annotated[
        bool, typer.Option("--price-unknown-ok", help="Ask models of unknown price despite --max-usd.")
    ] = False
    store: Annotated[Path, typer.Option("--store", help="Where paid answers are kept and looked up.")] = Path(
        "answers.sqlite"
    )

    def given(self) -> list[str]:
        """The options that say otherwise than where they are absent."""
        named = {"settings": "set"}
        return [
            f"--{named.get(one.name, one.name).replace('_', '-')}"
            for one in fields(self)
            if getattr(self, one.name) not in (one.default, [])
        ]

    def access(self, config: Path | None) -> Access:
        """How to reach the models; an AlpacaEval `config` may say which engine, address and price its judges have.

        Raises:
            RecipeError: naming the option that does not fit.
        """
        kind, urls, price = self.engine or "api", list(self.base_url or ()), _price(self.price)
        if config is not None:
            kind, urls, price = self._of_config(config, urls, price)
        table = settings_table(self.settings or ())
        if kind in ("api", "anthropic"):
            endpoints = [{"base_url": url, "api_key_env": self.api_key_env} for url in urls or (None,)]
            own = {"in_flight": self.in_flight, "price": price, "price_unknown_ok": self.price_unknown_ok}
            table = {"endpoints": endpoints, **own, **table}
        if kind == "batch":
            if len(urls) > 1:
                raise RecipeError(f"--base-url: files go to one address, got {len(urls)}.")
            address = {"base_url": urls[0] if urls else None, "api_key_env": self.api_key_env}
            table = {"address": address, "price": price, **table}
        given = {"engine": kind, "engine_settings": table, "store": self.store, "max_usd": self.max_usd}
        return check_section(Access, given, "the options")

    def _of_config(
        self, config: Path, urls: list[str], price: dict[str, float] | None
    ) -> tuple[str, list[str], dict[str, float] | None]:
        decoders = list(load_config(config).decoders.values())
        kinds, places = {each.engine for each in decoders}, {each.base_url for each in decoders}
        if self.engine is None and len(kinds) > 1:
            raise RecipeError(f"{config}: its judges need the engines {', '.join(sorted(kinds))}; name one.")
        if not urls and len(places) > 1:
            raise RecipeError(f"{config}: its judges name several addresses; choose one with --base-url.")
        stated = {each.price_per_token_usd for each in decoders} - {None}
        if price is None and len(stated) == 1:
            rate = float(stated.pop() or 0.0) * 1e6
            price = {"input_per_million": rate, "output_per_million": rate}
        return self.engine or kinds.pop(), urls or [url for url in places if url is not None], price


def _price(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        given, made = (float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"--price: expected two amounts such as 2.5,10, got {text!r}.") from None
    return {"input_per_million": given, "output_per_million": made}


def _with_model(panel: Panel, models: Sequence[str]) -> Panel:
    """A config's judges over a model of the user's, where one is named: the config's own may be gone."""
    if not models:
        return panel
    if len(models) > 1:
        raise RecipeError(f"--models: an AlpacaEval config takes one model in place of its own, got {len(models)}.")
    return replace(panel, judges=[each.over(models[0]) for each in panel.judges if isinstance(each, AlpacaEvalJudge)])
