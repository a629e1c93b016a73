"""What the tests of DPO, SimPO and KTO share: a training in one call, and answers' log-probabilities one by one."""

import json

import numpy as np
import torch

from pasture.core.ports import silent
from pasture.generate.completions import LocalSystem
from pasture.learn.feedback import encode_feedback
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig
from pasture.models.shared_prompt import AnswerLayout
from tests.learn import toy
from tests.learn.alone import token_logprobs


def train(method, config, folder, start, feedback, **changes):
    """Rows of `metrics.jsonl`."""
    settings = {"template": toy.TEMPLATE, "folder": folder, "seed": 0, "progress": toy.quiet}
    method.train(config, start=start, feedback=feedback, **(settings | changes))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def mixed_feedback(count=12):
    """Pairs of many lengths, a third of them preferring the first answer, a third the second, a third ties."""
    verdicts = ("first", "second", "tie")
    return [
        toy.judged(comparison.first.text, comparison.second.text, instruction=comparison.instruction, preferred=verdict)
        for (comparison, _), verdict in zip(toy.separable_feedback(count), verdicts * count, strict=False)
    ]


def policy(folder, *, moved=0.0, shares=True):
    """A model, its layout, and with `moved` weights that have left the reference."""
    model = load_causal_lm(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
    layout = AnswerLayout(model.base_model, toy.encoder(folder).pad_id)
    assert layout.shares_prompts
    layout.shares_prompts = shares
    return ResponseModel(model), layout


def pairs(folder, feedback):
    return encode_feedback(toy.encoder(folder), feedback)[0]


def sums_alone(model, judged):
    """Summed log-probabilities, pairs by two, each answer alone and unpadded."""
    return np.array([[token_logprobs(model, answer).sum() for answer in pair.answers] for pair in judged])


def likes(folder):
    """How many of a hundred sampled answers hold the liked word."""
    config = SamplerConfig(max_new_tokens=10)
    answers = LocalSystem(folder, toy.TEMPLATE, config).complete(
        toy.instructions(100, seed=7), system="s", samples=1, seed=0, progress=silent
    )
    return sum(toy.LIKED in answer.text.split() for answer in answers)
