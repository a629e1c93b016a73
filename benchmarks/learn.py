"""Training and sampling against TRL 1.16: same model, rows, batches, rates and precision; one thread; one run.

    python -m venv /tmp/trl && /tmp/trl/bin/pip install trl==1.16.0 peft
    python benchmarks/learn.py --trl /tmp/trl                                   # a model of 2M weights
    python benchmarks/learn.py --trl /tmp/trl --lengths fixed                   # 32 tokens a prompt, 32 an answer
    python benchmarks/learn.py --trl /tmp/trl --model models/smollm2-135m-instruct --rows 24 --batch 8

The two take turns, each turn in a process of its own; times are its CPU seconds, which a busy machine changes least;
figures are medians over turns, with the least and the most. Texts are random words, one token each, the same for both;
`--lengths` says how many (see `LENGTHS`). Rows come in one order and rates follow one cosine, so that losses can be
held side by side: the reward models begin with one head. RLOO and sampling draw at random and differ in what they draw,
not in how much. TRL runs at its defaults, in 32-bit numbers with its fused optimizer; its options to compute without
padding need an attention that no CPU has.

Sampling is beside `generate` of transformers: one answer to each row's prompt, `--batch` of them under way at once, and
its "step" is a thousand tokens.

`whole` is from data in memory to a saved model; `a step` leaves out loading, tokenizing, saving and the first step. A
step of DPO bears its share of the reference's log-probabilities, which are computed before the first step here and in
every step there. `peak` is the most memory that the process held.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers

from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.seeds import derived_seed, stream
from pasture.core.templates import CHAT, PLAIN
from pasture.data.instructions import load_prompts
from pasture.learn import dpo, likelihoods, resume, reward_model, rloo, sft
from pasture.learn.rollouts import Environment
from pasture.models.encode import Encoder
from pasture.models.heads import ScalarModel
from pasture.models.load import load_causal_lm, load_tokenizer, save_model, stop_token_ids
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import tiny_model, word_tokenizer

THEIRS = Path(__file__).with_name("learn_trl.py")
CASES = ("sft", "reward_model", "dpo", "rloo", "sampling")
STREAMS = {"sft": "sft-batches", "reward_model": "reward-batches", "dpo": "dpo-batches"}
SEED, GROUP, NEW_TOKENS = 0, 4, 32
MEAN_ANSWER, MOST_ANSWER = 70, 300
"""Tokens of text-davinci-003's answers to AlpacaEval, by the quantiles below, and AlpacaFarm's limit."""
LENGTHS = {
    "fixed": ((32, 32), (32, 32)),
    "spread": ((8, 56), (8, 56)),
    "alpaca": ((3, 9, 12, 15, 18, 23, 28, 36, 50, 73, 192), (2, 7, 15, 25, 36, 49, 64, 80, 102, 144, 256)),
}
"""Tokens of prompts and of answers: quantiles at equal distances, with a line between.

`alpaca` has the deciles of AlpacaEval's 805 instructions and of text-davinci-003's answers to them, in characters over
4.4, the longest cut.
"""


def make_model(folder: Path) -> None:
    """A Llama of 2.2M weights over 2,000 words."""
    tokenizer = word_tokenizer([f"w{number}" for number in range(1995)])
    model = tiny_model("llama", len(tokenizer), seed=0, hidden_size=192, layers=4)
    model.config.max_position_embeddings = 512  # the longest rows have 448; a shorter context would cut them
    save_model(model, tokenizer, folder)


def make_rows(model: Path, count: int, lengths: str) -> list[dict[str, str]]:
    """Prompts with a chosen and a rejected answer, of words that are one token each."""
    vocabulary = load_tokenizer(model).get_vocab()
    words = sorted(word[1:] for word in vocabulary if word[:1] == "Ġ" and word[1:].isalpha() and word[1:].islower())
    words = words[:2000] or sorted(word for word in vocabulary if word[:1] == "w")
    rng = np.random.default_rng(0)

    def text(quantiles: tuple[int, ...]) -> str:
        length = np.interp(rng.random(), np.linspace(0, 1, len(quantiles)), quantiles)
        return " ".join(rng.choice(words, round(length)))

    prompt, answer = LENGTHS[lengths]
    return [{"prompt": text(prompt) + "\n", "chosen": text(answer), "rejected": text(answer)} for _ in range(count)]


def in_our_order(case: str, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows as our trainer goes through them."""
    if case not in STREAMS:
        return list(rows)
    return [rows[number] for number in stream(SEED, STREAMS[case], 0).permutation(len(rows))]


def instruction(number: int, row: dict[str, str]) -> Instruction:
    """A row's prompt; the plain template puts the line break behind it."""
    return Instruction(id=str(number), instruction=row["prompt"].rstrip("\n"), source="b", split="b")


def judged(number: int, row: dict[str, str]) -> tuple[Comparison, Preference]:
    """A row's two answers, the chosen one first."""
    asked = instruction(number, row)
    sides = [
        Completion(instruction_id=asked.id, text=row[side], system="b", seed=seed, finish_reason="stop")
        for seed, side in enumerate(("chosen", "rejected"))
    ]
    comparison = Comparison.of(asked, *sides)
    return comparison, Preference(comparison_id=comparison.id, annotator="b", preferred="first")


class Clock:
    """When steps ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.before = 0.0
        """Seconds of work before the first step that is part of all steps."""

    def __call__(self, done: int, total: int, **_: float) -> None:
        """Note the time."""
        self.ends.append(time.process_time())

    def timing(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, its time counted as `before`."""

        def timed(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            found = work(*given, **named)
            self.before += time.process_time() - began
            return found

        return timed

    @property
    def a_step(self) -> float:
        """Mean seconds of a step after the first, with its share of the work before."""
        return (self.ends[-1] - self.ends[0]) / max(1, len(self.ends) - 1) + self.before / len(self.ends)


def train_ours(case: str, model: Path, rows: list[dict[str, str]], batch: int, folder: Path) -> Clock:
    """One epoch, or as many rollouts as there are batches."""
    resume.SECONDS_BETWEEN_REPORTS = 0
    clock = Clock()
    end: dict[str, Any] = {"start": model, "folder": folder, "seed": SEED, "progress": clock}
    shared: dict[str, Any] = {"epochs": 1, "batch_size": batch, "learning_rate": 1e-4, "warmup_fraction": 0.0}
    shared |= {"max_tokens": 512, "checkpoint_steps": 10**6, "device": "cpu"}
    if case == "sft":
        pairs = [(pair[0].instruction, pair[0].first) for pair in map(judged, range(len(rows)), rows)]
        sft.train(sft.Config(**shared), demonstrations=pairs, template=PLAIN, **end)
    elif case == "reward_model":
        feedback = [judged(number, row) for number, row in enumerate(rows)]
        reward_model.train(reward_model.Config(**shared), feedback=feedback, template=PLAIN, **end)
    elif case == "dpo":
        feedback = [judged(number, row) for number, row in enumerate(rows)]
        with mock.patch.object(dpo, "reference_logprobs", clock.timing(likelihoods.reference_logprobs)):
            dpo.train(dpo.Config(save_every=10**6, **shared), feedback=feedback, template=PLAIN, **end)
    else:
        config = rloo.Config(
            steps=len(rows) // batch,
            rollout_batch_size=batch,
            minibatch_size=batch,
            group_size=GROUP,
            learning_rate=1e-6,
            warmup_steps=0,
            max_prompt_tokens=512,
            max_new_tokens=NEW_TOKENS,
            save_every=10**6,
            checkpoint_steps=10**6,
            device="cpu",
        )
        asked = [instruction(number, row) for number, row in enumerate(rows)]
        rloo.train(config, environment=Environment(asked, PLAIN, long_is_good), **end)
    return clock


def long_is_good(instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
    """The reward of the benchmark: characters, in hundreds."""
    if len(instructions) != len(completions):
        raise ValueError("each completion comes with its instruction")
    return [len(one.text) / 100 for one in completions]


def drawing(model: Path, rows: list[dict[str, str]], options: argparse.Namespace) -> dict[str, Any]:
    """What both sides draw: answers to which prompts, what ends one, and how long it may be.

    With lengths as users have them answers end. A model that can chat is asked by its template and ends its answer
    itself; in random weights a share of the vocabulary ends it, so that answers have `MEAN_ANSWER` tokens on average.
    """
    tokenizer = load_tokenizer(model)
    asked = [instruction(number, row) for number, row in enumerate(rows)]
    if options.instructions is not None:
        asked = load_prompts(options.instructions, options.rows)
    can_chat = tokenizer.chat_template is not None
    encoder = Encoder(tokenizer, CHAT if can_chat else PLAIN, max_tokens=1024)
    found: dict[str, Any] = {"prompts": [encoder.prompt(one) for one in asked]}
    if options.lengths == "fixed":
        return {**found, "stops": [len(tokenizer)], "new_tokens": options.most_tokens or NEW_TOKENS}
    enders = list(range(len(tokenizer) - len(tokenizer) // MEAN_ANSWER, len(tokenizer)))
    stops = stop_token_ids(load_causal_lm(model), tokenizer) if can_chat else enders
    return {**found, "stops": stops, "new_tokens": options.most_tokens or MOST_ANSWER}


def sample_ours(model: Path, drawn: dict[str, Any], batch: int) -> tuple[float, int]:
    """Seconds, and tokens drawn; about as many answers are under way as the other side has in a batch."""
    loaded = load_causal_lm(model, row_for_pad=False)
    prompts, stops, new_tokens = drawn["prompts"], drawn["stops"], drawn["new_tokens"]
    # Where the whole lot is one batch of theirs, the longest prompt sets how much it holds.
    typical = statistics.mean if len(prompts) > batch else max
    places = round(batch * (typical(map(len, prompts)) + new_tokens))
    sample(loaded, stops, prompts[:2], [0, 1], SamplerConfig(max_new_tokens=8))
    began = time.process_time()
    config = SamplerConfig(max_new_tokens=new_tokens, batch_tokens=places)
    answers = sample(loaded, stops, prompts, list(range(len(prompts))), config)
    return time.process_time() - began, sum(len(one.token_ids) for one in answers)


def measure_ours(job: dict[str, Any]) -> dict[str, float]:
    """One turn in this process."""
    case, model, rows, batch = job["case"], Path(job["model"]), job["rows"], job["batch"]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        began = time.process_time()
        if case == "sampling":
            seconds, tokens = sample_ours(model, job["drawing"], batch)
            figures = {"a_step": 1000 * seconds / tokens, "tokens": float(tokens)}
        else:
            clock = train_ours(case, model, rows, batch, Path(place))
            lines = (Path(place) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            figures = {"a_step": clock.a_step, "loss": float(json.loads(lines[-1]).get("loss", 0.0))}
        whole = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**figures, "whole": whole, "peak_mib": peak}


def turn(command: Sequence[str]) -> dict[str, float]:
    """The figures that a process prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Median, least and most."""
    return f"{form(statistics.median(values))} ({form(min(values))} to {form(max(values))})"


def last(case: str, ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> str:
    """What says that both sides did the same work: the last losses, or the tokens that were drawn."""
    if case == "sampling":
        return " / ".join(f"{statistics.mean(one['tokens'] for one in side):,.0f} tokens" for side in (ours, theirs))
    return f"{ours[-1]['loss']:.4f} / {theirs[-1]['loss']:.4f}" if case in STREAMS else ""


def compare(case: str, options: argparse.Namespace, model: Path, place: Path) -> None:
    """Print one row of the table."""
    rows = make_rows(model, options.rows, options.lengths)
    job = {"case": case, "model": str(model), "batch": options.batch, "rows": rows}
    if case == "sampling":
        job["drawing"] = drawing(model, rows, options)
    (place / "ours.json").write_text(json.dumps(job))
    if case == "reward_model":
        begun = ScalarModel.from_causal_lm(load_causal_lm(model), seed=derived_seed(SEED, "reward-head"))
        np.save(place / "head.npy", begun.head.weight.detach().numpy())
    their_job = {**job, "rows": in_our_order(case, rows), "head": str(place / "head.npy")}
    theirs_settings = {"learning_rate": 1e-6 if case == "rloo" else 1e-4, "group": GROUP, "new_tokens": NEW_TOKENS}
    (place / "theirs.json").write_text(json.dumps({**their_job, **theirs_settings, "folder": str(place / "out")}))
    ours, theirs = [], []
    for _ in range(options.repeats):
        ours.append(turn([sys.executable, __file__, "--child", str(place / "ours.json")]))
        theirs.append(turn([str(options.trl / "bin/python"), str(THEIRS), str(place / "theirs.json")]))
    both = list(zip(ours, theirs, strict=True))
    steps = [their["a_step"] / our["a_step"] for our, their in both]
    wholes = [their["whole"] / our["whole"] for our, their in both]
    print(
        f"| {case} | {spread(steps, '{:.1f}'.format)} | {spread(wholes, '{:.1f}'.format)} "
        f"| {spread([one['a_step'] for one in ours], '{:.3f}'.format)} "
        f"| {spread([one['a_step'] for one in theirs], '{:.3f}'.format)} "
        f"| {statistics.median(one['peak_mib'] for one in ours):,.0f} / "
        f"{statistics.median(one['peak_mib'] for one in theirs):,.0f} "
        f"| {last(case, ours, theirs)} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, help="Virtual environment with TRL.")
    parser.add_argument("--model", type=Path, help="Model folder; one of 2M weights is made where absent.")
    parser.add_argument("--lengths", choices=sorted(LENGTHS), default="alpaca")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--instructions", help="File of instructions for the sampling of a model that can chat.")
    parser.add_argument("--most-tokens", type=int, help="Longest answer that sampling draws, if not AlpacaFarm's 300.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(measure_ours(json.loads(options.child.read_text()))))
        return
    if options.trl is None:
        parser.error("--trl is needed: the environment that holds TRL")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = options.model or place / "model"
        if options.model is None:
            make_model(model)
        versions = subprocess.run(
            [str(options.trl / "bin/python"), str(THEIRS), "--versions"], capture_output=True, text=True, check=True
        ).stdout.strip()
        load = os.getloadavg()[0]
        print(f"{time.strftime('%F')}, {platform.processor() or platform.machine()}, load {load:.1f}, "
              f"lengths {options.lengths}, {options.rows} rows, {options.batch} a step; "
              f"torch {torch.__version__}, transformers {transformers.__version__}; beside {versions}\n")  # fmt: skip
        print("| | faster by, a step | faster by, whole | seconds a step | TRL's | peak MiB | last loss |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for case in options.cases.split(","):
            compare(case, options, model, place)


if __name__ == "__main__":
    main()
