"""What a card does: SFT, DPO and RLOO steps of a 1B-shaped Llama with random weights, against the card's matrix rate.

    python benchmarks/gpu.py                     # whole weights and adapters, in bfloat16
    python benchmarks/gpu.py --shape tiny        # seconds on any machine, to see that it runs

The rate to be held against is measured first, on this card: one large matrix product in bfloat16, as long as a step.
A step's floating-point operations are counted as 6 for each weight and token that is trained (4 with adapters, whose
weights take no gradient of their own) and 2 for each that is only read, attention left out, recomputation not counted:
the usual model FLOPs. Tokens are prompt and answer tokens, padding left out.

No table was measured: no machine with a card was at hand when this was written.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.templates import PLAIN
from pasture.learn import dpo, resume, rloo, sft
from pasture.learn.rollouts import Environment
from pasture.models.load import save_model
from pasture.models.tiny import word_tokenizer
from pasture.models.weights_config import Lora, Weights

WORDS = 32_000


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and of the work."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    batch: int
    tokens: int
    """Of a prompt, and of an answer."""
    steps: int
    micro_batch_tokens: int


SHAPES = {
    "1b": Shape(2048, 16, 32, 8192, batch=64, tokens=256, steps=8, micro_batch_tokens=16_384),
    "tiny": Shape(64, 2, 4, 128, batch=8, tokens=16, steps=3, micro_batch_tokens=1024),
}


def make_model(folder: Path, shape: Shape) -> int:
    """Write a Llama of that shape; the number of its weights but for the input embedding comes back."""
    tokenizer = word_tokenizer([f"w{number}" for number in range(WORDS - 5)])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 4 or 1,
        max_position_embeddings=4 * shape.tokens,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    save_model(model, tokenizer, folder)
    return int(sum(one.numel() for one in model.parameters()) - model.get_input_embeddings().weight.numel())


def matrix_rate(device: torch.device, size: int, seconds: float = 2.0) -> float:
    """Floating-point operations a second of a bfloat16 matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        a @ b
        count += 1
        wait(device)
    return 2 * size**3 * count / (time.perf_counter() - began)


def wait(device: torch.device) -> None:
    """Return when the card has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """When steps ended on the card."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ends: list[float] = []

    def __call__(self, done: int, total: int, **_: float) -> None:
        """Note the time."""
        wait(self.device)
        self.ends.append(time.perf_counter())

    @property
    def a_step(self) -> float:
        """Mean seconds of a step after the first."""
        return (self.ends[-1] - self.ends[0]) / max(1, len(self.ends) - 1)


def texts(count: int, tokens: int) -> list[str]:
    """Random words, one token each."""
    rng = np.random.default_rng(0)
    return [" ".join(f"w{n}" for n in rng.integers(0, WORDS - 10, tokens)) for _ in range(count)]


def run(case: str, model: Path, shape: Shape, weights: Weights, clock: Clock) -> float:
    """Train; tokens read or drawn in a step come back."""
    count = shape.batch * shape.steps
    asked = [
        Instruction(id=str(number), instruction=text, source="b", split="b")
        for number, text in enumerate(texts(count, shape.tokens - 1))
    ]
    answers = texts(2 * count, shape.tokens - 1)
    sides = [
        Completion(instruction_id=asked[n // 2].id, text=text, system="b", seed=n % 2, finish_reason="stop")
        for n, text in enumerate(answers)
    ]
    shared: dict[str, Any] = {"micro_batch_tokens": shape.micro_batch_tokens, "weights": weights}
    shared |= {"checkpoint_steps": 10**6, "learning_rate": 1e-6}
    epochs: dict[str, Any] = {"epochs": 1, "batch_size": shape.batch, "max_tokens": 3 * shape.tokens, **shared}
    with tempfile.TemporaryDirectory() as place:
        end: dict[str, Any] = {"start": model, "folder": Path(place), "seed": 0, "progress": clock}
        if case == "sft":
            rows = list(zip(asked, sides[::2], strict=True))
            sft.train(sft.Config(**epochs), demonstrations=rows, template=PLAIN, **end)
            return 2.0 * shape.batch * shape.tokens
        if case == "dpo":
            pairs = [Comparison.of(one, *sides[2 * n : 2 * n + 2]) for n, one in enumerate(asked)]
            feedback = [(one, Preference(comparison_id=one.id, annotator="b", preferred="first")) for one in pairs]
            dpo.train(dpo.Config(save_every=10**6, **epochs), feedback=feedback, template=PLAIN, **end)
            return 3.0 * shape.batch * shape.tokens  # the prompt is read once for both answers
        config = rloo.Config(
            steps=shape.steps,
            rollout_batch_size=shape.batch,
            minibatch_size=shape.batch,
            group_size=4,
            max_prompt_tokens=2 * shape.tokens,
            max_new_tokens=shape.tokens,
            save_every=10**6,
            **shared,
        )
        environment = Environment(asked, PLAIN, lambda _, completions: [float(len(one.text)) for one in completions])
        rloo.train(config, environment=environment, **end)
        rows_drawn = (Path(place) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        drawn = float(np.mean([json.loads(row)["completions/mean_length"] for row in rows_drawn]))
        return shape.batch * (shape.tokens + drawn)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--cases", default="sft,dpo,rloo")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resume.SECONDS_BETWEEN_REPORTS = 0
    peak = matrix_rate(device, 8192 if device.type == "cuda" else 512)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}: {peak / 1e12:.2f} TFLOP/s in bfloat16")
    print(f"{'':6} {'trained':10} {'tokens/s':>10} {'seconds a step':>15} {'of the rate':>12} {'peak GiB':>9}")
    kinds = {"all": Weights(dtype="bfloat16"), "adapters": Weights(dtype="bfloat16", lora=Lora(rank=16))}
    with tempfile.TemporaryDirectory() as place:
        weight_count = make_model(Path(place), shape)
        for case in options.cases.split(","):
            for trained, weights in kinds.items():
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                clock = Clock(device)
                tokens = run(case, Path(place), shape, weights, clock)
                # Of RLOO, drawing and both log-probabilities read each token once more; drawing is no matrix work.
                per_token = (6 if trained == "all" else 4) + (4 if case == "rloo" else 0)
                share = per_token * weight_count * tokens / clock.a_step / peak
                memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
                print(
                    f"{case:6} {trained:10} {tokens / clock.a_step:10,.0f} {clock.a_step:15.3f} {share:12.1%} "
                    f"{memory:9.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
