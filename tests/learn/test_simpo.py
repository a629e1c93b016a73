from functools import partial

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError
from pasture.learn import simpo
from tests.learn import pairwise, toy
from tests.learn.alone import check_equal_gradients, gradients

QUICK = simpo.Config(epochs=2, batch_size=8, learning_rate=1e-3, max_tokens=32, save_every=3)
train = partial(pairwise.train, simpo)


def oracle(means, preferred, config):
    """Loss of each pair as in the paper's Eq. 6, in NumPy; a tie is half of each."""
    e = config.label_flip_probability

    def of_preferred(difference):
        return np.logaddexp(0, -(config.beta * difference - config.margin))

    differences = np.where(np.asarray(preferred) == 0, means[:, 1] - means[:, 0], means[:, 0] - means[:, 1])
    wrong = np.where(np.asarray(preferred) == 0.5, 0.5, e)
    return (1 - wrong) * of_preferred(differences) + wrong * of_preferred(-differences)


@pytest.mark.parametrize("settings", [{}, {"beta": 10.0, "margin": 0.0}, {"label_flip_probability": 0.3}])
def test_loss_is_that_of_mean_log_probabilities_read_one_by_one(base, settings):
    config = QUICK.model_copy(update=settings)
    judged = pairwise.pairs(base, pairwise.mixed_feedback())
    preferred = [pair.first_preferred for pair in judged]
    policy, layout = pairwise.policy(base)
    # The end token counts as one of an answer's tokens.
    lengths = np.array([[len(answer.response_ids) for answer in pair.answers] for pair in judged])
    means = pairwise.sums_alone(policy.model, judged) / lengths
    figures = simpo.accumulate_gradients(config, policy, layout, judged)
    assert float(figures["loss"]) == pytest.approx(oracle(means, preferred, config).mean(), abs=2e-5)
    loss_P = simpo.simpo_loss(
        torch.from_numpy(means[:, 0]),
        torch.from_numpy(means[:, 1]),
        torch.tensor(preferred, dtype=torch.float64),
        config,
    )
    np.testing.assert_allclose(loss_P, oracle(means, preferred, config), atol=1e-6)


def test_an_answer_twice_as_long_of_the_same_words_earns_no_more():
    same = torch.tensor([-1.5])
    loss = simpo.simpo_loss(same, same, torch.ones(1), QUICK)
    # By hand: no difference, so -log sigma(-gamma) with gamma 1.
    assert float(loss) == pytest.approx(np.log(1 + np.e), abs=1e-6)


@pytest.mark.parametrize(("pairs_at_once", "shares"), [(1, True), (4, True), (16, True), (4, False)])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch_or_on_sharing_prompts(base, pairs_at_once, shares):
    judged = pairwise.pairs(base, pairwise.mixed_feedback(16))
    whole, layout = pairwise.policy(base)
    expected = simpo.accumulate_gradients(QUICK, whole, layout, judged)
    cut, layout = pairwise.policy(base, shares=shares)
    budget = pairs_at_once * max(layout.token_count(pair.answers) for pair in judged)
    found = simpo.accumulate_gradients(QUICK.model_copy(update={"micro_batch_tokens": budget}), cut, layout, judged)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-5
    )
    check_equal_gradients(gradients(cut.model.parameters()), gradients(whole.model.parameters()))


def test_the_policy_learns_to_say_what_people_like(tmp_path, imitator):
    config = QUICK.model_copy(update={"epochs": 3, "batch_size": 16, "held_out_count": 40})
    metrics = train(config, tmp_path, imitator, toy.separable_feedback(240))
    assert metrics[-1]["eval_rewards/accuracies"] > 0.85
    assert pairwise.likes(tmp_path / "model") >= pairwise.likes(imitator) + 30


def test_no_reference_is_kept(tmp_path, base):
    train(QUICK, tmp_path, base, toy.separable_feedback(16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "model", "steps"]
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["0003", "0004"]


def test_an_answer_without_a_token_has_no_mean_and_is_refused(tmp_path, base):
    [instruction] = toy.instructions(1)
    comparison, preference = toy.judged("", "w1", instruction=instruction)
    cut = toy.completion(instruction, "", 0, finish_reason="length")
    with pytest.raises(DataError, match="'i0' has no token"):
        train(QUICK, tmp_path, base, [(comparison.model_copy(update={"first": cut}), preference)])
