"""Completions drawn from a language model on this machine."""

from collections.abc import Sequence
from pathlib import Path

from pasture.core.ports import Progress
from pasture.core.records import Completion, Instruction
from pasture.core.seeds import derived_seed
from pasture.core.templates import PromptTemplate
from pasture.machine.device import resolve_device
from pasture.models.encode import NO_LIMIT, Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, resting_dtype, stop_token_ids, within_context
from pasture.models.sample import SamplerConfig, sample


class LocalSystem:
    """A model folder that answers instructions."""

    def __init__(self, folder: Path, template: PromptTemplate, config: SamplerConfig) -> None:
        tokenizer = load_tokenizer(folder)
        device = resolve_device("auto")
        dtype = resting_dtype(folder, device)
        self._model = load_causal_lm(folder, dtype=dtype, device=device, tokenizer=tokenizer, row_for_pad=False)
        limit = within_context(folder, NO_LIMIT) - config.max_new_tokens
        self._encoder = Encoder(tokenizer, template, max_tokens=limit)
        self._stop_ids = stop_token_ids(self._model, tokenizer)
        self._config = config

    def complete(
        self, instructions: Sequence[Instruction], *, system: str, samples: int, seed: int, progress: Progress
    ) -> list[Completion]:
        """`samples` completions of each instruction, in order, with seeds 0 to `samples` - 1.

        The draws belong to the instruction and the sample's number: systems that answer the same instruction share
        them, and no answer depends on which others are asked for.
        """
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
