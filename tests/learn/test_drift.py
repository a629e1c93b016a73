"""How far a policy has moved is what the two models' own probabilities say."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from pasture.core.templates import PLAIN
from pasture.learn.drift import drift
from pasture.models.control_tokens import add_control_tokens, set_answer_prefix
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from tests.learn import toy


def test_a_policy_that_has_not_moved_has_drifted_by_nothing(imitator):
    found = drift(imitator, imitator, toy.instructions(6), PLAIN, max_new_tokens=8, seed=0)
    np.testing.assert_allclose(found.numpy(), np.zeros(6), atol=1e-4)


def test_the_mean_over_answers_is_the_kl_divergence_of_the_two_models(imitator, tmp_path):
    """Answers of one token, so that the divergence is a sum over the vocabulary: NumPy adds it up."""
    start = toy.save_base(tmp_path / "start")
    [instruction] = toy.instructions(1)
    prompt = torch.tensor([toy.encoder(imitator).prompt(instruction)])
    with torch.no_grad():
        policy, reference = (
            log_softmax(load_causal_lm(folder)(prompt).logits[0, -1].double().numpy()) for folder in (imitator, start)
        )
    exact = float((np.exp(policy) * (policy - reference)).sum())
    found = drift(imitator, start, [instruction] * 4000, PLAIN, max_new_tokens=1, seed=0).double().numpy()
    assert exact > 0.2
    assert found.mean() == pytest.approx(exact, abs=4 * found.std() / np.sqrt(4000))
    # The divergence the other way round lies elsewhere.
    other_way = float((np.exp(reference) * (reference - policy)).sum())
    assert abs(exact - other_way) > 4 * found.std() / np.sqrt(4000)


def test_the_reference_is_asked_without_the_control_token_that_it_never_learned(base, tmp_path):
    """Answers of one token again. The two models have the same weights: all that parts them is the policy's token."""
    tokenizer = load_tokenizer(base)
    add_control_tokens(tokenizer, ["<|best|>"])
    set_answer_prefix(tokenizer, "<|best|>")
    model = load_causal_lm(base, tokenizer=tokenizer)
    save_model(model, tokenizer, tmp_path)
    [instruction] = toy.instructions(1)
    plain = toy.encoder(base).prompt(instruction)
    asked = torch.tensor([[*plain, tokenizer.convert_tokens_to_ids("<|best|>")]])
    with torch.no_grad():
        # What follows the prompt, and what follows the token after it.
        reference, policy = log_softmax(model(asked).logits[0, -2:].double().numpy(), axis=-1)
    exact = float((np.exp(policy) * (policy - reference)).sum())
    found = drift(tmp_path, base, [instruction] * 4000, PLAIN, max_new_tokens=1, seed=0).double().numpy()
    assert exact > 0.1
    assert found.mean() == pytest.approx(exact, abs=4 * found.std() / np.sqrt(4000))
