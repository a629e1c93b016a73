"""Completions drawn from a language model on this machine."""

from collections.abc import Sequence
from pathlib import Path

from pasture.core.errors import ModelError
from pasture.core.files import read_records, write_records
from pasture.core.ports import Progress
from pasture.core.records import Completion, Instruction
from pasture.core.seeds import derived_seed
from pasture.core.templates import PromptTemplate
from pasture.machine.device import resolve_device
from pasture.models.encode import NO_LIMIT, Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, resting_dtype, stop_token_ids, within_context
from pasture.models.sample import SamplerConfig, sample

LEAST_A_FILE, WORK_A_FILE = 256, 1e12
"""Answers that are drawn together, and lost together in a kill: those to so many instructions, or to as many as take
that many weights times tokens, which is about a minute of a core."""


class LocalSystem:
    """A model folder that answers instructions."""

    def __init__(self, folder: Path, template: PromptTemplate, config: SamplerConfig) -> None:
        tokenizer = load_tokenizer(folder)
        device = resolve_device("auto")
        dtype = resting_dtype(folder, device)
        self._model = load_causal_lm(folder, dtype=dtype, device=device, tokenizer=tokenizer, row_for_pad=False)
        limit = within_context(folder, NO_LIMIT) - config.max_new_tokens
        if limit < 1:
            raise ModelError(
                f"{folder}: an answer of {config.max_new_tokens} tokens leaves no room for a prompt in a context of "
                f"{limit + config.max_new_tokens}. Lower max_new_tokens."
            )
        self._encoder = Encoder(tokenizer, template, max_tokens=limit + 1)
        self._stop_ids = stop_token_ids(self._model, tokenizer)
        self._config = config

    def complete(
        self,
        instructions: Sequence[Instruction],
        *,
        system: str,
        samples: int,
        seed: int,
        progress: Progress,
        kept: Path | None = None,
    ) -> list[Completion]:
        """`samples` completions of each instruction, in order, with seeds 0 to `samples` - 1.

        The draws belong to the instruction and the sample's number: systems that answer the same instruction share
        them, and no answer depends on which others are asked for. In the folder `kept` those of some instructions at a
        time are written down, and what a killed call of the same kind left there is not drawn again.

        Raises:
            DataError: if a prompt leaves no room for an answer.
            RunFolderError: if the disk is full.
        """
        completions: list[Completion] = []
        size = self._instructions_a_file(samples)
        for number, begin in enumerate(range(0, len(instructions), size)):
            some = instructions[begin : begin + size]
            file = None if kept is None else kept / f"{number:05d}.jsonl"
            if file is not None and file.exists():
                completions += read_records(file, Completion)
                continue
            before, count = len(completions), samples * len(some)
            onward = _onward(progress, before, samples * len(instructions) - before - count)
            drawn = self._drawn(some, system, samples, seed, onward)
            if file is not None:
                write_records(file, drawn)
            completions += drawn
        return completions

    def _instructions_a_file(self, samples: int) -> int:
        weights = sum(parameter.numel() for parameter in self._model.parameters())
        return max(LEAST_A_FILE, int(WORK_A_FILE / (weights * self._config.max_new_tokens * samples)))

    def _drawn(
        self, instructions: Sequence[Instruction], system: str, samples: int, seed: int, progress: Progress
    ) -> list[Completion]:
        prompts = [self._encoder.prompt(instruction) for instruction in instructions]
        drawn = sample(
            self._model,
            self._stop_ids,
            [prompt for prompt in prompts for _ in range(samples)],
            [derived_seed(seed, "completion", i.id, number) for i in instructions for number in range(samples)],
            self._config,
            progress=progress,
        )
        return [
            Completion(
                instruction_id=instructions[row // samples].id,
                text=self._encoder.text(one.said_ids),
                system=system,
                seed=row % samples,
                finish_reason=one.finish_reason,
                token_count=len(one.token_ids),
            )
            for row, one in enumerate(drawn)
        ]


def _onward(progress: Progress, before: int, after: int) -> Progress:
    """The progress of a part, told as that of the whole."""

    def tell(done: int, total: int, **figures: float) -> None:
        progress(before + done, before + total + after, **figures)

    return tell
