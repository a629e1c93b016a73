"""Answers looked at one by one: log-probabilities of rows alone and unpadded, from all logits, in plain loops."""

import numpy as np
import torch

from pasture.learn.rollouts import Environment, collect
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from tests.formulas import oracles
from tests.learn import toy


def any_taste(instructions, completions):
    """A scorer that tells nearly all answers apart, so that no group agrees and nothing is multiplied by 0."""
    return [sum(map(ord, answer.text)) % 17 / 4 - 2 for answer in completions]


def token_logprobs(model, row):
    """Of each answer token of one row, the end token included."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].tolist()
    places = range(len(row.prompt_ids) - 1, len(row) - 1)
    return oracles.selected_logprobs([logits[place] for place in places], row.response_ids)


def differentiable_logprobs(model, row):
    """As `token_logprobs`, in torch and float32, so that gradients can be taken of a loss written out."""
    logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    places = range(len(row.prompt_ids) - 1, len(row) - 1)
    return torch.stack(
        [logits[place].log_softmax(-1)[token] for place, token in zip(places, row.response_ids, strict=True)]
    )


def gradients(parameters):
    """The gradients, each of them there, and gone from the parameters afterwards."""
    found = []
    for parameter in parameters:
        assert parameter.grad is not None
        found.append(parameter.grad.numpy().copy())
        parameter.grad = None
    return found


def check_equal_gradients(some, others, atol=1e-5):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def policies(folder, *, moved):
    """A policy, a reference that is another model, and one that the policy has moved to, by that factor."""
    models = [ResponseModel(load_causal_lm(folder)) for _ in range(3)]
    with torch.no_grad():
        for model, factor in zip(models[1:], (0.7, moved), strict=True):
            model.model.get_output_embeddings().weight.mul_(factor)
    return tuple(models)


def in_groups(folder, policy):
    """Six groups of four answers of the policy, scored by `any_taste`."""
    environment = Environment(toy.instructions(6), toy.TEMPLATE, any_taste)
    encoder = toy.encoder(folder)
    return collect(policy.model, encoder, environment, range(6), max_new_tokens=8, seed=0, group_size=4)
