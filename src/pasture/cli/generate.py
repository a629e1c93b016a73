"""`pasture generate`: a system's answers to instructions, with a record of how it was asked beside them."""

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console

import pasture
from pasture.annotate.stored import Access
from pasture.annotate.tables import require_target, write_rows
from pasture.cli.asking import Service
from pasture.cli.options import spread
from pasture.cli.progress import shown_progress
from pasture.cli.train import Template, chosen_template
from pasture.core.errors import RecipeError
from pasture.core.files import require_apart, write_text
from pasture.core.records import Completion, Instruction
from pasture.core.sections import check_section
from pasture.core.store import AnswerStore
from pasture.core.templates import TEMPLATES
from pasture.data.hub import HUB, data_files
from pasture.data.instructions import load_prompts
from pasture.engines import open_engine
from pasture.engines.budget import Budget
from pasture.engines.cached import CachedEngine
from pasture.engines.settings import checked_settings, store_salt
from pasture.flow import training_module
from pasture.generate.asked import ask
from pasture.generate.baselines import BASELINES, Baseline
from pasture.models.sampler_config import SamplerConfig


class Layout(StrEnum):
    """The columns that are written."""

    ALPACA_EVAL = "alpaca-eval"
    TRL = "trl"
    TRL_CHAT = "trl-chat"
    RECORDS = "records"


@dataclass(frozen=True)
class _Answers:
    """What a system said, and how it was asked."""

    completions: Sequence[Completion]
    facts: dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        "generate",
        epilog="Example: pasture generate instructions.jsonl --model runs/train/model --out outputs.json, or "
        "--baseline paper-gpt-4 --models gpt-4.1 --max-usd 5",
    )(generate)


@dataclass(frozen=True)
class Answerer:
    """Options: who answers."""

    title: ClassVar[str] = "Who answers"
    model: Annotated[Path | None, typer.Option("--model", help="Folder of a model that answers here.")] = None
    baseline: Annotated[str | None, typer.Option("--baseline", help=f"{', '.join(BASELINES)}.")] = None
    models: Annotated[str | None, typer.Option("--models", "-m", help="Name of the service's model.")] = None
    system_prompt: Annotated[str | None, typer.Option("--system-prompt", help="Said before the instruction.")] = None
    system: Annotated[str | None, typer.Option("--system", help="What the system is called in OUT.")] = None

    def check(self, service: Service) -> None:
        """See that one kind of system is named, and nothing beside it that it has no use for.

        Raises:
            RecipeError: if there is none, or both, or an option of a `service` for a model that answers here.
        """
        if (self.model is None) == (self.baseline is None and self.models is None):
            raise RecipeError("name either a --model folder, or a --baseline or --models of a service.")
        if self.model is not None and self.system_prompt is not None:
            raise RecipeError("--system-prompt is for services; a model of one's own is asked by --template.")
        if self.model is not None and service.given():
            raise RecipeError(f"{service.given()[0]} is for services; a --model answers on this machine. Leave it out.")


@dataclass(frozen=True)
class Decoding:
    """Options: how answers are drawn."""

    title: ClassVar[str] = "How answers are drawn"
    template: Template = None
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="0.7 where absent.")] = None
    top_p: Annotated[float | None, typer.Option("--top-p", min=0.0, max=1.0, help="1 where absent.")] = None
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="300 where absent.")] = None
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers to each instruction.")] = 1
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")] = 0


@spread
def generate(
    instructions: Annotated[str, typer.Argument(help="Rows with instruction and perhaps input, or prompt.")],
    *,
    who: Answerer,
    decoding: Decoding,
    service: Service,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Instructions, from the first.")] = None,
    layout: Annotated[Layout, typer.Option("--layout", help="Columns to write.")] = Layout.ALPACA_EVAL,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON, JSONL, CSV or Parquet.")] = Path("outputs.json"),
) -> None:
    """Have a model of one's own or a service answer instructions.

    How it was asked (prompt, limits, sampling, failures, cost) is written beside the answers, as OUT.facts.json. Killed
    and called again, it goes on: with answers of one's own model from OUT.drawn/, with a service's from the store.
    """
    console = Console()
    who.check(service)
    require_target(out)
    require_apart(out, *([] if instructions.startswith(HUB) else data_files(instructions)))
    asked = load_prompts(instructions, count)
    kept = out.with_name(f"{out.name}.drawn")
    with shown_progress(console, "answering") as progress:
        answers = (
            _local(who, decoding, asked, kept, progress)
            if who.model is not None
            else _served(who, decoding, service.access(None), asked, progress)
        )
    expected = len(asked) * decoding.samples
    facts = {"pasture": pasture.__version__, "instructions": instructions, "asked": expected, **answers.facts}
    write_text(out.with_name(f"{out.name}.facts.json"), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    write_rows(out, _rows(asked, answers.completions, layout))
    if who.model is not None:
        shutil.rmtree(kept, ignore_errors=True)
    console.print(f"Wrote {len(answers.completions):,} answers to {out}.", soft_wrap=True, markup=False)
    if len(answers.completions) < expected:
        failed = expected - len(answers.completions)
        console.print(f"{failed:,} got none; {out.name}.facts.json says why.", markup=False)
        raise typer.Exit(1)


def _local(who: Answerer, decoding: Decoding, asked: list[Instruction], kept: Path, progress: Any) -> _Answers:
    assert who.model is not None  # noqa: S101 - for the type alone
    given = {"temperature": decoding.temperature, "top_p": decoding.top_p, "max_new_tokens": decoding.max_new_tokens}
    defaults = {"temperature": 0.7, "max_new_tokens": 300}
    config = SamplerConfig(**defaults | {name: value for name, value in given.items() if value is not None})
    template = chosen_template(decoding.template, who.model)
    place = who.model.resolve()
    # What a training leaves is called "model"; its folder has the name that tells it from others.
    system = who.system or (place.parent if place.name == "model" else place).name
    facts = {"system": system, "model": str(who.model), "template": template, "samples": decoding.samples}
    facts |= {"seed": decoding.seed, "decoding": config.model_dump(exclude={"batch_tokens"})}
    alone = training_module("pasture.steps.alone")
    alone.claim_drawn(kept, who.model, [facts, [one.model_dump(mode="json") for one in asked]])
    completions = alone.local_system(who.model, template, config).complete(
        asked, system=system, samples=decoding.samples, seed=decoding.seed, progress=progress, kept=kept
    )
    return _Answers(completions, facts)


def _served(who: Answerer, decoding: Decoding, access: Access, asked: list[Instruction], progress: Any) -> _Answers:
    """What a service says, each answer stored before it is used."""
    baseline = _baseline(who, decoding)
    system = who.system or who.baseline or baseline.model
    budget = None if access.max_usd is None else Budget(access.max_usd)
    settings = checked_settings(access.engine, access.engine_settings)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(AnswerStore(access.store))
        inner = open_engine(access.engine, access.engine_settings, budget=budget)
        if hasattr(inner, "close"):
            stack.callback(inner.close)
        engine = CachedEngine(inner, store, salt=store_salt(settings))
        found = ask(
            baseline, asked, engine, system=system, samples=decoding.samples, seed=decoding.seed, progress=progress
        )
        identity = dict(engine.identity)
    facts = {"system": system, "asked_with": baseline.model_dump(), "engine": identity, "samples": decoding.samples}
    failed = [{"instruction_id": one, "error": error} for one, error in found.failed]
    return _Answers(found.completions, {**facts, "seed": decoding.seed, "cost_usd": found.cost_usd, "failed": failed})


def _baseline(who: Answerer, decoding: Decoding) -> Baseline:
    """The baseline of that name, or a plain one, with what the options change."""
    if who.baseline is not None and who.baseline not in BASELINES:
        raise RecipeError(f"--baseline: no baseline {who.baseline!r}. Baselines: {', '.join(BASELINES)}.")
    if decoding.template is not None and decoding.template not in TEMPLATES:
        raise RecipeError(f"--template: no template {decoding.template!r}. Templates: {', '.join(TEMPLATES)}.")
    began = BASELINES[who.baseline].model_dump() if who.baseline is not None else {}
    changes = {
        "model": who.models,
        "system_prompt": who.system_prompt,
        "template": decoding.template,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_completion_tokens": decoding.max_new_tokens,
    }
    return check_section(
        Baseline, {**began, **{key: value for key, value in changes.items() if value is not None}}, "the options"
    )


def _rows(
    instructions: Sequence[Instruction], completions: Sequence[Completion], layout: Layout
) -> list[dict[str, Any]]:
    by_id = {instruction.id: instruction for instruction in instructions}
    return [_row(by_id[completion.instruction_id], completion, layout) for completion in completions]


def _row(instruction: Instruction, completion: Completion, layout: Layout) -> dict[str, Any]:
    if layout is Layout.RECORDS:
        return completion.model_dump()
    if layout is Layout.ALPACA_EVAL:
        return {
            "instruction": instruction.instruction,
            "input": instruction.input,
            "output": completion.text,
            "generator": completion.system,
            "dataset": instruction.source,
            "sample": completion.seed,
            "finish_reason": completion.finish_reason,
        }
    prompt = TEMPLATES["chat"].render(instruction)
    if layout is Layout.TRL:
        return {"prompt": prompt, "completion": completion.text}
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion.text}],
    }
