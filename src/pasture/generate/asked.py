"""Completions of systems that answer through an engine: a service, a server, or a model behind either door."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pasture.core.ports import Engine, Progress, silent
from pasture.core.records import Completion, Instruction
from pasture.core.requests import Message, Request
from pasture.core.templates import TEMPLATES
from pasture.generate.baselines import Baseline


@dataclass(frozen=True)
class Answered:
    """What came back."""

    completions: Sequence[Completion]
    """In the order of the instructions, and of the samples of each."""
    failed: Sequence[tuple[str, str]]
    """Instruction ids that got no answer, each with the reason."""
    cost_usd: float | None
    """None where a price is unknown."""


def ask(
    baseline: Baseline,
    instructions: Sequence[Instruction],
    engine: Engine,
    *,
    system: str,
    samples: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Answered:
    """`samples` answers of a baseline to each instruction; one that fails is named, not left out in silence."""
    asked = [(instruction, number) for instruction in instructions for number in range(samples)]
    completions, failed = [], []
    cost: float | None = 0.0
    replies = engine.run(_requests(baseline, asked, seed))
    for done, ((instruction, number), reply) in enumerate(zip(asked, replies, strict=True), start=1):
        if reply.failed:
            failed.append((instruction.id, str(reply.error)))
        else:
            completions.append(
                Completion(
                    instruction_id=instruction.id,
                    text=reply.text,
                    system=system,
                    seed=number,
                    finish_reason=reply.finish_reason,
                    token_count=None if reply.usage is None else reply.usage.output_tokens,
                )
            )
            cost = None if cost is None or reply.cost_usd is None else cost + reply.cost_usd
        progress(done, len(asked))
    return Answered(completions, failed, cost)


def _requests(baseline: Baseline, asked: Sequence[tuple[Instruction, int]], seed: int) -> Iterator[Request]:
    template = TEMPLATES[baseline.template]
    for instruction, number in asked:
        text = template.render(instruction)
        told = [Message(role="system", content=baseline.system_prompt)] if baseline.system_prompt else []
        chat = baseline.style == "chat"
        yield Request(
            model=baseline.model,
            messages=(*told, Message(role="user", content=text)) if chat else None,
            prompt=None if chat else text,
            max_completion_tokens=baseline.max_completion_tokens,
            temperature=baseline.temperature,
            top_p=None if baseline.top_p == 1.0 else baseline.top_p,
            sample=number if seed == 0 else number + 1_000_000 * seed,
        )
