"""RLOO on SmolLM2-135M whose answers a real vLLM server draws, handed the policy's weights before each batch.

What is held: after the weights were handed over, the server's log-probabilities are the policy's within the noise of
bfloat16; where they were not, they are off by far more, and training stops.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pasture.core.errors import TrainingError
from pasture.core.ports import silent
from pasture.core.records import Completion, Instruction
from pasture.core.templates import CHAT
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.learn import rloo
from pasture.learn.drawing import Drawing, OwnSampler
from pasture.learn.rollouts import Environment, draw, token_logprobs
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, save_model
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig
from pasture.models.trainable import load_trainable
from pasture.models.weights_config import Lora, Weights
from tests.llm.serving import ENVIRONMENT, MODEL, Server, vllm_server

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not (ENVIRONMENT / ".installed").exists(), reason="`make test-llm` sets its server up"),
]

ADAPTERS = Weights(dtype="bfloat16", lora=Lora(rank=8, alpha=16))
WHOLE = Weights(dtype="bfloat16")
TEXTS = ("What is the capital of France?", "Name a fruit.", "Explain rain in one sentence.", "Write a line about cows.")
ASKED = [Instruction(id=f"i{n}", instruction=text, source="s", split="x") for n, text in enumerate(TEXTS)]
DIFFERENCE = "sampling/sampling_logp_difference/mean"
NOISE = 0.08
"""Nats a token, on average: bfloat16 keeps 8 bits of a logit of some 20, and two programs add up in other orders. One
run gave 0.050."""


def show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Served:
    """A model behind a server, and what is trained of it and handed over."""

    server: Server
    model: Path
    weights: Weights


@pytest.fixture(scope="module", params=["adapters", "whole weights"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("rollouts")
    start = partial(vllm_server, folder / "vllm.log", VLLM_SERVER_DEV_MODE="1", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1")
    show(f"\n{request.param}:")
    if request.param == "adapters":
        options = ("--enable-lora", "--max-lora-rank", "16", "--max-model-len", "1024")
        with start(*options) as server:
            yield Served(server, MODEL, ADAPTERS)
    else:
        model = untied(folder / "untied")
        with start("--max-model-len", "1024", model=model) as server:
            yield Served(server, model, WHOLE)


def untied(folder: Path) -> Path:
    """The model with an output layer of its own: vLLM 0.32 on a CPU packs one that is tied when it starts, for good."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    save_model(model, load_tokenizer(MODEL), folder)
    return folder


def moved(policy: Any, size: float) -> None:
    """Another policy than it was: what is trained of it moves at random, by `size` of its own spread."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in policy.parameters():
            if one.requires_grad:
                step = torch.randn(one.shape, generator=generator)
                one.add_((step * size * max(float(one.float().std()), 0.02)).to(one))


def test_the_server_draws_from_the_policy_as_it_is_once_it_was_handed_over_and_not_before(
    served: Served, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(served.model)
    policy = load_trainable(served.model, served.weights, tokenizer=tokenizer)
    encoder = Encoder(tokenizer, CHAT, max_tokens=128)
    sampling = SamplerConfig(max_new_tokens=32)

    def difference(sampler: OwnSampler, seed: int) -> float:
        began = time.monotonic()
        answers = draw(sampler, encoder, ASKED, sampling, seed=seed, group_size=4)
        seconds = time.monotonic() - began
        distance_BT = (token_logprobs(ResponseModel(policy), answers, 2048) - answers.sampler_logprob_BT).abs()
        found = float(distance_BT.sum() / answers.mask_BT.sum())
        show(f"  {found:.4f} nats a token over {int(answers.mask_BT.sum())} tokens, drawn in {seconds:.1f} s")
        return found

    # Told of every difference, so that none stops the drawing.
    config = RolloutServerConfig(url=served.server.origin, most_difference=1e9)
    with Drawing(config, policy, encoder, tmp_path, start=served.model) as drawing:
        drawing.check(128, 32)
        began = time.monotonic()
        sampler = drawing.now()
        show(f" handed over in {time.monotonic() - began:.1f} s:")
        assert difference(sampler, 1) < NOISE
        moved(policy, 1.0 if served.weights.lora else 0.1)
        show(" the policy moved, the server did not:")
        assert difference(sampler, 2) > 2 * NOISE
        show(" handed over again:")
        assert difference(drawing.now(), 2) < NOISE


def brief(instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
    """Shorter is better."""
    return [-len(one.text) / 100 for one in completions]


def train(served: Served, folder: Path, **changes: Any) -> list[dict[str, float]]:
    settings: dict[str, Any] = {
        "steps": 3, "rollout_batch_size": 8, "minibatch_size": 8, "group_size": 4, "learning_rate": 1e-4,
        "max_prompt_tokens": 64, "max_new_tokens": 24, "save_every": 3, "sampler_ratio_cap": 2.0,
    }  # fmt: skip
    rollouts = RolloutServerConfig(url=served.server.origin)
    config = rloo.Config(**{**settings, **changes}, weights=served.weights, rollouts=rollouts)
    environment = Environment(ASKED, CHAT, brief)
    rloo.train(config, start=served.model, environment=environment, folder=folder, seed=0, progress=silent)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_few_steps_of_rloo_learn_from_what_the_server_draws(served: Served, tmp_path: Path) -> None:
    rows = train(served, tmp_path, learning_rate=1e-4 if served.weights.lora else 1e-6)
    show(" RLOO:")
    for row in rows:
        show(f"  step {row['step']}: {row[DIFFERENCE]:.4f} nats, score {row['reward']:.2f}")
    assert len(rows) == 3
    assert all(row[DIFFERENCE] < NOISE for row in rows)
    assert (tmp_path / "steps" / "0003" / "config.json").is_file()


@pytest.mark.parametrize("served", ["adapters"], indirect=True)
def test_a_hand_over_that_does_not_happen_stops_the_training(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = Drawing._hand_over

    def once(drawing: Drawing, to: Any) -> None:
        if drawing._handed is None:
            handed(drawing, to)

    monkeypatch.setattr(Drawing, "_hand_over", once)
    with pytest.raises(TrainingError, match="draws from other weights"):
        train(served, tmp_path, learning_rate=3e-2, warmup_steps=0)
