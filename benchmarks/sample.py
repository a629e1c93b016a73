"""The own sampler against transformers' generate: same model, prompts, lengths, precision; one thread; one run.

    python benchmarks/sample.py [--repeats 5]
    python benchmarks/sample.py --model models/smollm2-135m-instruct --repeats 2

The two take turns, so that a busy machine slows both; the figure is the ratio of CPU seconds in each turn, for each
token drawn. Without `--model`, models have random weights: the meadow's shape (0.7M) over 300 words, a Llama of 2.2M
over 2,000. Where answers are to end, a share of the vocabulary are stop tokens, so that each token ends its answer with
about that chance. A model of `--model` is asked requests by its own chat template and ends its answers itself.
`generate` goes on until the longest answer of the batch has ended; it reads a prompt once for every answer to it. 70
tokens are the mean of text-davinci-003's answers to AlpacaEval's instructions, 300 AlpacaFarm's limit.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from pasture.models.batches import pad_left
from pasture.models.load import load_causal_lm, load_tokenizer, stop_token_ids
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import new_meadow_model, tiny_model


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
    Case("70 tokens to an end, on average", prompts=128, samples_each=1, new_tokens=224, ending_share=1 / 70),
]
REAL_CASES = [
    Case("4 a prompt, at most 16", prompts=16, samples_each=4, new_tokens=16, ending_share=0.0),
    Case("4 a prompt, at most 64", prompts=8, samples_each=4, new_tokens=64, ending_share=0.0),
    Case("8 a prompt, at most 300", prompts=16, samples_each=8, new_tokens=300, ending_share=0.0),
]
ASKED = [
    f"{what} {about}."
    for about in ("rain", "bread", "a bicycle", "the moon")
    for what in (
        "In one sentence, describe",
        "Give me three words for",
        "Ask a child a question about",
        "Name a use of",
    )
]


@dataclass(frozen=True)
class Subject:
    """A model with prompts to continue and the tokens that end an answer."""

    model: PreTrainedModel
    prompts: list[list[int]]
    stops: list[int]
    pad: int


def random_subject(model: PreTrainedModel, case: Case) -> Subject:
    """A model of random weights, asked random tokens."""
    vocabulary = int(model.config.vocab_size)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 200, size=rng.integers(4, 21)).tolist() for _ in range(case.prompts)]
    pad = vocabulary - 1
    first_stop = pad - max(1, round(case.ending_share * vocabulary))
    # Without endings a single stop id beyond the vocabulary is asked for: both samplers test for it, none meets it.
    return Subject(model, prompts, list(range(first_stop, pad)) if case.ending_share else [vocabulary], pad)


def real_subject(folder: Path, case: Case) -> Subject:
    """A model that can chat, asked as it was taught to be."""
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(folder, tokenizer=tokenizer)
    turns = [[{"role": "user", "content": asked}] for asked in ASKED[: case.prompts]]
    prompts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) for turn in turns]
    return Subject(model, prompts, stop_token_ids(model, tokenizer), int(tokenizer.pad_token_id))


def cpu_seconds(work: Callable[[int], int], turn: int) -> tuple[float, int]:
    """CPU seconds of this process for `work`, and what it returned: the tokens of all answers."""
    start = time.process_time()
    tokens = work(turn)
    return time.process_time() - start, tokens


def measure(name: str, subject: Subject, case: Case, repeats: int) -> None:
    """Print one row of the table."""
    config = SamplerConfig(max_new_tokens=case.new_tokens)

    def ours(turn: int) -> int:
        requests = [prompt for prompt in subject.prompts for _ in range(case.samples_each)]
        seeds = range(turn * len(requests), (turn + 1) * len(requests))
        return sum(len(one.token_ids) for one in sample(subject.model, subject.stops, requests, seeds, config))

    def theirs(turn: int) -> int:
        torch.manual_seed(turn)
        ids_BT, mask_BT = pad_left(subject.prompts, subject.pad)
        output_BT = subject.model.generate(
            ids_BT,
            attention_mask=mask_BT.long(),
            do_sample=True,
            top_k=0,
            num_return_sequences=case.samples_each,
            max_new_tokens=case.new_tokens,
            eos_token_id=subject.stops,
            pad_token_id=subject.pad,
        )
        stop_BT = torch.isin(output_BT[:, ids_BT.shape[1] :], torch.tensor(subject.stops)).long()
        return int((stop_BT.cumsum(-1) - stop_BT == 0).sum())

    # The first turn warms both up.
    turns = [(cpu_seconds(ours, turn), cpu_seconds(theirs, turn)) for turn in range(repeats + 1)][1:]
    ratios = sorted((theirs[0] / theirs[1]) / (ours[0] / ours[1]) for ours, theirs in turns)
    ours_least, theirs_least = (min(turn[side][0] for turn in turns) for side in (0, 1))
    tokens = [statistics.mean(turn[side][1] for turn in turns) for side in (0, 1)]
    print(
        f"| {name} | {case.name} | {case.prompts} x {case.samples_each}, {case.new_tokens} new "
        f"| {tokens[0]:.0f} / {tokens[1]:.0f} | {ours_least:.2f} | {theirs_least:.2f} "
        f"| {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", type=Path, help="Folder of a model with a chat template.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{time.strftime('%F')}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print("| model | work | requests | tokens, ours / generate | ours, least CPU s | generate, least CPU s "
          "| faster by, a token |")  # fmt: skip
    print("|---|---|---|---|---|---|---|", flush=True)
    if options.model is not None:
        for case in REAL_CASES:
            measure(options.model.name, real_subject(options.model, case), case, options.repeats)
        return
    models = {"0.7M": new_meadow_model(300, seed=0)}
    models["2.2M"] = tiny_model("llama", 2000, seed=0, hidden_size=192, layers=4)
    for name, model in models.items():
        for case in CASES:
            measure(name, random_subject(model, case), case, options.repeats)


if __name__ == "__main__":
    main()
