"""Reading an AlpacaEval evaluator folder: a key is honored, known to change no verdict, or refused by its name."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml  # type: ignore[import-untyped]
from pydantic import ValidationError

from pasture.annotate.alpaca_eval.judge import AlpacaEvalJudge, Extraction
from pasture.annotate.alpaca_eval.parsers import parser_of
from pasture.annotate.alpaca_eval.prompts import PromptFile, read_prompt
from pasture.annotate.panel import Order, Panel
from pasture.annotate.render import ShownPair
from pasture.core.errors import RecipeError

EngineKind = Literal["api", "anthropic", "vllm", "local"]

ENGINES: Mapping[str, EngineKind] = {
    "openai_completions": "api",
    "anthropic_completions": "anthropic",
    "vllm_local_completions": "vllm",
    "huggingface_local_completions": "local",
}
"""By AlpacaEval's name of the decoder."""

_OLD_NAMES = {
    "fn_decoder": "fn_completions",
    "decoder_kwargs": "completions_kwargs",
    "prompt_templates": "prompt_template",
}
"""AlpacaFarm's names of the same keys."""

_HONORED = (
    "prompt_template",
    "fn_completions",
    "completions_kwargs",
    "fn_completion_parser",
    "completion_parser_kwargs",
    "completion_key",
    "batch_size",
    "is_randomize_output_order",
    "processors_to_kwargs",
    "random_seed_column",
    "outputs_to_match",
)
_WITHOUT_EFFECT = (
    "is_shuffle",
    "seed",
    "annotation_column",
    "completion_column",
    "is_add_default_processors",
    "is_store_raw_completions",
    "packages_for_which_to_show_version",
    "prfx_to_completion_cols",
    "pretty_name",
    "link",
)
"""They order, name or describe, and change no verdict here: batches are made by content, columns have one name."""

_REQUEST_FIELDS = {
    "model_name": "model",
    "max_tokens": "max_completion_tokens",
    "max_new_tokens": "max_completion_tokens",
    "max_tokens_to_sample": "max_completion_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "stop_sequences": "stop",
}
_ENGINE_SETTINGS = ("num_procs", "batch_size", "n_retries", "max_tries", "sleep_time", "requires_chatml", "num_threads")
"""How often and how fast a decoder asks: the engine's own matter."""
_OWN_KEYS = ("logprobs", "top_logprobs", "tools", "tool_choice", "functions", "function_call", "tokens_to_favor")
_MORE_KEYS = ("tokens_to_avoid", "client_kwargs", "price_per_token")
FAVOR, AVOID = 7.0, -100.0


@dataclass(frozen=True)
class Decoder:
    """Which engine answers for a judge, as its config says."""

    engine: EngineKind
    model: str
    base_url: str | None = None
    price_per_token_usd: float | None = None


@dataclass(frozen=True)
class AlpacaEvalConfig:
    """An evaluator folder, ready to be asked."""

    panel: Panel
    decoders: Mapping[str, Decoder]
    """By judge."""
    order_columns: tuple[str, ...]
    """What the order is drawn from under AlpacaEval's draws."""


def load_config(path: str | Path) -> AlpacaEvalConfig:
    """The evaluators of a folder with `configs.yaml`, or of one YAML file; prompts lie beside it or one folder up.

    Raises:
        RecipeError: naming file, annotator and the key that cannot be honored.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "configs.yaml"
    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{file}: no such file; expected an evaluator folder with configs.yaml.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{file}: cannot be read ({error}).") from error
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()) or not table:
        raise RecipeError(f"{file}: expected a table of annotators, each a table of settings.")
    entries = [_Entry(file, str(name), entry) for name, entry in table.items()]
    orders, columns = {entry.order for entry in entries}, {entry.order_columns for entry in entries}
    for key, different in (("is_randomize_output_order", orders), ("random_seed_column", columns)):
        if len(different) > 1:
            raise RecipeError(f"{file}: {key} differs between the annotators of one pool; that cannot be honored.")
    judges = [entry.judge() for entry in entries]
    panel = Panel(file.parent.name, judges, [1.0] * len(judges), orders.pop())
    return AlpacaEvalConfig(panel, {entry.name: entry.decoder() for entry in entries}, columns.pop())


class _Entry:
    """One annotator of the file."""

    def __init__(self, file: Path, name: str, table: Mapping[str, Any]) -> None:
        self.file, self.name = file, name
        self.table = {_OLD_NAMES.get(str(key), str(key)): value for key, value in table.items()}
        self._known(self.table, (*_HONORED, *_WITHOUT_EFFECT), "")
        self.kwargs: Mapping[str, Any] = self._table("completions_kwargs")
        self._known(self.kwargs, (*_REQUEST_FIELDS, *_ENGINE_SETTINGS, *_OWN_KEYS, *_MORE_KEYS), "completions_kwargs.")
        self.processors = self._table("processors_to_kwargs")
        self.batch_size = self._batch_size()
        self.order, self.order_columns = self._order()

    def judge(self) -> AlpacaEvalJudge:
        """The annotator as a judge."""
        with_input, without_input = self._prompts()
        parser_name, parser_kwargs = self._parser()
        try:
            parser = parser_of(parser_name, parser_kwargs)
        except RecipeError as error:
            self._refuse(str(error))
        judge = AlpacaEvalJudge(
            name=self.name,
            batch_size=self.batch_size,
            with_input=with_input,
            without_input=without_input,
            parser=parser,
            gives_probability=parser_name == "logprob_parser" and not parser_kwargs.get("is_binarize", True),
            settings=self._settings(),
            config={**self.table, "prompts": [with_input.turns, without_input.turns]},
            extraction=self._extraction(),
            shuffled=bool(self.table.get("is_shuffle", True)),
        )
        try:
            judge.request([ShownPair("i", "", "a", "b")], 0)
        except ValidationError as error:
            first = error.errors()[0]
            self._refuse(f"completions_kwargs: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        return judge

    def decoder(self) -> Decoder:
        """Which engine answers."""
        name = self.table.get("fn_completions", "openai_completions")
        if not isinstance(name, str) or name not in ENGINES:
            self._refuse(f"fn_completions: {name!r} is a provider that Pasture lacks. It has: {', '.join(ENGINES)}")
        client = self.kwargs.get("client_kwargs") or {}
        secret = next((key for key in client if "key" in key or "token" in key), None)
        if secret is not None:
            self._refuse(f"completions_kwargs.client_kwargs.{secret}: keys are named by environment variable only")
        self._known(client, ("base_url",), "completions_kwargs.client_kwargs.")
        return Decoder(
            ENGINES[name], self._settings()["model"], client.get("base_url"), self.kwargs.get("price_per_token")
        )

    def _settings(self) -> dict[str, Any]:
        found = {_REQUEST_FIELDS[key]: value for key, value in self.kwargs.items() if key in _REQUEST_FIELDS}
        if not isinstance(found.get("model"), str):
            self._refuse("completions_kwargs.model_name: expected the name of a model")
        if isinstance(found.get("temperature"), int):
            found["temperature"] = float(found["temperature"])
        if isinstance(found.get("top_p"), int):
            found["top_p"] = float(found["top_p"])
        stop = found.pop("stop", None)
        if stop:
            found["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        bias = dict.fromkeys(self.kwargs.get("tokens_to_favor") or (), FAVOR)
        bias |= dict.fromkeys(self.kwargs.get("tokens_to_avoid") or (), AVOID)
        schema = self._schema()
        return {
            **found,
            **({"logit_bias": bias} if bias else {}),
            **({"json_schema": schema} if schema is not None else {}),
            **({"top_logprobs": self.kwargs.get("top_logprobs", 0)} if self._wants_logprobs() else {}),
        }

    def _wants_logprobs(self) -> bool:
        return bool(self.kwargs.get("logprobs") or self.kwargs.get("top_logprobs"))

    def _schema(self) -> Mapping[str, Any] | None:
        """A function that the model was to call, as the schema of its arguments: the reply is the same JSON."""
        tools = self.kwargs.get("tools") or [{"function": each} for each in self.kwargs.get("functions") or ()]
        if not tools:
            return None
        try:
            (tool,) = tools
            return dict(tool["function"]["parameters"])
        except (ValueError, KeyError, TypeError):
            self._refuse("completions_kwargs.tools: expected one function with parameters")

    def _prompts(self) -> tuple[PromptFile, PromptFile]:
        template = self.table.get("prompt_template")
        if isinstance(template, Mapping):
            self._known(template, ("with_inputs", "without_inputs"), "prompt_template.")
            given = template.get("with_inputs"), template.get("without_inputs")
            first, second = (each or other for each, other in zip(given, reversed(given), strict=True))
        else:
            first = second = template
        if not isinstance(first, str) or not isinstance(second, str):
            self._refuse("prompt_template: expected a text or the path of a prompt file")
        made: list[PromptFile] = []
        for each in (first, second):
            human = self.table.get("fn_completions") == "anthropic_completions"
            try:
                made.append(read_prompt(self._prompt_text(each), self.batch_size, human_markup=human))
            except RecipeError as error:
                self._refuse(str(error))
        return made[0], made[1]

    def _prompt_text(self, template: str) -> str:
        if "\n" in template or "{" in template:
            return template
        places = [self.file.parent.parent / template, self.file.parent / template]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            self._refuse(f"prompt_template: no file {template!r} beside the config or one folder up")
        return found.read_text(encoding="utf-8")

    def _parser(self) -> tuple[str, dict[str, Any]]:
        name = self.table.get("fn_completion_parser", "regex_parser")
        kwargs = dict(self._table("completion_parser_kwargs"))
        if "outputs_to_match" in self.table:
            kwargs["outputs_to_match"] = self.table["outputs_to_match"]
        if self.table.get("completion_key", "completions") not in ("completions", "completions_all"):
            self._refuse(f"completion_key: {self.table['completion_key']!r} cannot be honored")
        if not isinstance(name, str):
            self._refuse("fn_completion_parser: expected the name of a parser")
        return name, kwargs

    def _batch_size(self) -> int:
        size = self.table.get("batch_size", 1)
        if type(size) is not int or size < 1:
            self._refuse(f"batch_size: expected a whole number from 1, got {size!r}")
        padding = self.processors.get("PaddingForBatchesProcessor") or {}
        self._known(padding, ("batch_size",), "processors_to_kwargs.PaddingForBatchesProcessor.")
        if padding.get("batch_size", size) != size:
            self._refuse("processors_to_kwargs.PaddingForBatchesProcessor.batch_size: differs from batch_size")
        return size

    def _order(self) -> tuple[Order, tuple[str, ...]]:
        switch = self.processors.get("RandomSwitchTwoColumnsProcessor")
        kwargs = switch or {}
        place = "processors_to_kwargs.RandomSwitchTwoColumnsProcessor."
        self._known(kwargs, ("two_columns_to_switch", "random_seed_columns"), place)
        if set(kwargs.get("two_columns_to_switch") or ("output_1", "output_2")) != {"output_1", "output_2"}:
            self._refuse(f"{place}two_columns_to_switch: only output_1 and output_2 can be honored")
        columns = kwargs.get("random_seed_columns") or self.table.get("random_seed_column") or ("instruction",)
        random = switch is not None or self.table.get("is_randomize_output_order", True)
        return "random" if random else "as-given", (columns,) if isinstance(columns, str) else tuple(columns)

    def _extraction(self) -> Extraction | None:
        known = ("RandomSwitchTwoColumnsProcessor", "PaddingForBatchesProcessor", "ChainOfThoughtProcessor")
        self._known(self.processors, (*known, "JsonKeysToColumnProcessor", "JsonKeysToColumn"), "processors_to_kwargs.")
        keys: dict[str, str] = {}
        for name in ("JsonKeysToColumn", "JsonKeysToColumnProcessor"):
            kwargs = self.processors.get(name) or {}
            self._known(kwargs, ("keys",), f"processors_to_kwargs.{name}.")
            listed = kwargs.get("keys") or {}
            keys |= dict(listed) if isinstance(listed, Mapping) else {str(key): str(key) for key in listed}
        if "ChainOfThoughtProcessor" in self.processors:
            self._known(
                self.processors["ChainOfThoughtProcessor"] or {}, (), "processors_to_kwargs.ChainOfThoughtProcessor."
            )
            keys["concise_explanation"] = "concise_explanation"
        return Extraction(keys) if keys else None

    def _table(self, key: str) -> Mapping[str, Any]:
        value = self.table.get(key) or {}
        if not isinstance(value, Mapping):
            self._refuse(f"{key}: expected a table, got {type(value).__name__}")
        return value

    def _known(self, table: Mapping[str, Any], known: Sequence[str], prefix: str) -> None:
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                self._refuse(f"{prefix}{key}: a key that cannot be honored.{hint}")

    def _refuse(self, what: str) -> NoReturn:
        raise RecipeError(f"{self.file}: [{self.name}] {what.removesuffix('.')}.")
