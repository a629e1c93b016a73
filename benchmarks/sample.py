"""The own sampler against transformers' generate: same model, prompts, lengths, precision; one thread; one run.

    python benchmarks/sample.py [--repeats 5]

The two take turns, so that a busy machine slows both; the figure is the ratio of CPU seconds in each turn. The model is
the meadow's (0.9M parameters, random weights) in float32. Where answers are to end, a share of the vocabulary are stop
tokens, so that each token ends its answer with about that chance; `generate` goes on until the longest has ended.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers

from pasture.models.batches import pad_left
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import new_meadow_model

VOCABULARY = 300
PAD = VOCABULARY - 1


@dataclass(frozen=True)
class Case:
    """One kind of work."""

    name: str
    prompts: int
    samples_each: int
    new_tokens: int
    ending_share: float
    """Share of the vocabulary that ends an answer."""


CASES = [
    Case("no answer ends", prompts=512, samples_each=1, new_tokens=24, ending_share=0.0),
    Case("answers end", prompts=512, samples_each=1, new_tokens=24, ending_share=0.1),
    Case("answers end, 8 a prompt", prompts=64, samples_each=8, new_tokens=24, ending_share=0.1),
    Case("answers end, 8 a prompt, long limit", prompts=64, samples_each=8, new_tokens=64, ending_share=0.1),
]


def cpu_seconds(work: Callable[[int], int], turn: int) -> tuple[float, int]:
    """CPU seconds of this process for `work`, and what it returned: the tokens of all answers."""
    start = time.process_time()
    tokens = work(turn)
    return time.process_time() - start, tokens


def measure(case: Case, repeats: int) -> None:
    """Print one row of the table."""
    model = new_meadow_model(VOCABULARY, seed=0)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 200, size=rng.integers(4, 21)).tolist() for _ in range(case.prompts)]
    first_stop = PAD - max(1, round(case.ending_share * VOCABULARY))
    # Without endings a single stop id beyond the vocabulary is asked for: both samplers test for it, none meets it.
    stops = list(range(first_stop, PAD)) if case.ending_share else [VOCABULARY]
    config = SamplerConfig(max_new_tokens=case.new_tokens)

    def ours(turn: int) -> int:
        requests = [prompt for prompt in prompts for _ in range(case.samples_each)]
        seeds = range(turn * len(requests), (turn + 1) * len(requests))
        return sum(len(answer.token_ids) for answer in sample(model, stops, requests, seeds, config))

    def theirs(turn: int) -> int:
        torch.manual_seed(turn)
        ids_BT, mask_BT = pad_left(prompts, PAD)
        output_BT = model.generate(
            ids_BT,
            attention_mask=mask_BT.long(),
            do_sample=True,
            top_k=0,
            num_return_sequences=case.samples_each,
            max_new_tokens=case.new_tokens,
            eos_token_id=stops,
            pad_token_id=PAD,
        )
        stop_BT = torch.isin(output_BT[:, ids_BT.shape[1] :], torch.tensor(stops)).long()
        return int((stop_BT.cumsum(-1) - stop_BT == 0).sum())

    # The first turn warms both up.
    turns = [(cpu_seconds(ours, turn), cpu_seconds(theirs, turn)) for turn in range(repeats + 1)][1:]
    ratios = sorted(other[0] / own[0] for own, other in turns)
    own, other = (min(turn[side][0] for turn in turns) for side in (0, 1))
    tokens = [statistics.mean(turn[side][1] for turn in turns) for side in (0, 1)]
    print(
        f"| {case.name} | {case.prompts} x {case.samples_each}, {case.new_tokens} new "
        f"| {tokens[0]:.0f} / {tokens[1]:.0f} | {own:.2f} | {other:.2f} "
        f"| {statistics.median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f}) |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, load {os.getloadavg()[0]:.1f}\n")
    print("| work | requests | tokens, ours / generate | ours, least CPU s | generate, least CPU s | ratio (spread) |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        measure(case, repeats)


if __name__ == "__main__":
    main()
