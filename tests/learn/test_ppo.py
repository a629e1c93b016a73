import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError, ModelError, ScorerError, TrainingError
from pasture.learn import ppo
from pasture.learn.rollouts import Environment, check_sampler, collect, step_instructions, token_logprobs
from pasture.models.heads import ScalarModel
from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.response import ResponseModel
from pasture.models.tiny import tiny_model, word_tokenizer
from tests.formulas import oracles
from tests.learn import toy

CONFIG = ppo.Config(
    steps=2,
    rollout_batch_size=16,
    minibatch_size=8,
    learning_rate=1e-3,
    warmup_steps=0,
    kl_coefficient=0.05,
    max_prompt_tokens=16,
    max_new_tokens=12,
    save_every=1,
)


def _train(folder, start, value_start, config=CONFIG, scorer=toy.count_liked, instructions=None, seed=0):
    ppo.train(
        config,
        start=start,
        value_start=value_start,
        environment=Environment(instructions or toy.instructions(40), toy.TEMPLATE, scorer),
        folder=folder,
        seed=seed,
        progress=toy.quiet,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def models(imitator, taste):
    """A policy, a value model, and as the reference another model than the policy, so that a KL is no zero."""
    policy, reference = (ResponseModel(load_causal_lm(imitator)) for _ in range(2))
    with torch.no_grad():
        reference.model.get_output_embeddings().weight.mul_(0.7)
    return ppo.Models(policy, ScalarModel.load(taste), reference)


@pytest.fixture(scope="module")
def rollouts(imitator, models):
    encoder = toy.encoder(imitator)
    environment = Environment(toy.instructions(24), toy.TEMPLATE, toy.count_liked)
    return collect(models.policy.model, encoder, environment, range(24), max_new_tokens=8, seed=0)


def test_value_loss_takes_the_larger_error():
    # By hand, clip 0.2: from 0 to 1 counts as 0.2. Return 2: errors 1 and 1.8; return 0.9: errors 0.1 and 0.7.
    loss = ppo.value_loss(torch.tensor([1.0, 1.0, 0.1]), torch.zeros(3), torch.tensor([2.0, 0.9, 1.0]), 0.2)
    np.testing.assert_allclose(loss, [1.8**2 / 2, 0.7**2 / 2, 0.9**2 / 2], rtol=1e-6)


@pytest.mark.parametrize(("kl", "after"), [(6.0, 0.1), (12.0, 0.102), (0.0, 0.098), (6.6, 0.101), (5.4, 0.099)])
def test_adaptive_coefficient_follows_the_proportional_controller(kl, after):
    # By hand: beta (1 + 0.1 clip((KL - 6)/6, -0.2, 0.2)).
    assert ppo.adapted_coefficient(0.1, kl, target=6.0, gain=0.1) == pytest.approx(after, abs=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "clamped_k1"])
@pytest.mark.parametrize("whitening", ["none", "rescale"])
def test_advantages_of_real_answers_match_plain_loops(models, rollouts, estimator, whitening):
    config = CONFIG.model_copy(
        update={"kl_estimator": estimator, "reward_whitening": whitening, "discount": 0.97, "decay": 0.9}
    )
    experience = ppo.evaluate(config, models, rollouts, 0.05)
    mask = np.zeros(tuple(rollouts.mask_BT.shape), dtype=bool)
    logprob, reference, value = (np.zeros(mask.shape) for _ in range(3))
    for b, row in enumerate(rollouts.rows):
        # Each row alone, unpadded, with all logits; entry t speaks of the token at t + 1.
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            own = models.policy.model(input_ids=ids).logits[0].tolist()
            other = models.reference.model(input_ids=ids).logits[0].tolist()
            values = models.value(ids, torch.ones_like(ids, dtype=torch.bool))[0].tolist()
        for t in range(len(row.prompt_ids) - 1, len(row) - 1):
            mask[b, t] = True
            logprob[b, t] = oracles.selected_logprobs([own[t]], [row.ids[t + 1]])[0]
            reference[b, t] = oracles.selected_logprobs([other[t]], [row.ids[t + 1]])[0]
            value[b, t] = values[t]
    divergence = logprob - reference
    if estimator == "clamped_k1":
        divergence = np.maximum(divergence, 0.0)
    reward = oracles.shaped_rewards(rollouts.score_B.tolist(), divergence, mask, 0.05)
    if whitening == "rescale":
        reward = oracles.whiten(reward, mask, keep_mean=True)
    advantage = oracles.generalized_advantages(reward, value, mask, 0.97, 0.9)
    np.testing.assert_array_equal(rollouts.mask_BT.numpy(), mask)
    # The models compute in float32 and see other batch shapes; 1e-4 is their rounding, not the formulas'.
    np.testing.assert_allclose(experience.value_BT, value, atol=1e-4)
    np.testing.assert_allclose(experience.return_BT, advantage + value, atol=1e-4)
    np.testing.assert_allclose(experience.advantage_BT, oracles.whiten(advantage, mask, keep_mean=False), atol=1e-4)
    assert experience.kl == pytest.approx(np.sum(logprob - reference) / len(mask), abs=1e-4)
    for tensor in (experience.value_BT, experience.return_BT, experience.advantage_BT):
        assert np.all(tensor.numpy()[~mask] == 0.0)


def test_answers_without_an_end_get_the_fixed_score_and_others_keep_theirs(models, rollouts):
    assert 0 < int(rollouts.finished_B.sum()) < len(rollouts.rows)
    plain, fixed = (
        ppo.evaluate(
            CONFIG.model_copy(update={"missing_eos_score": score, "reward_whitening": "none"}), models, rollouts, 0.0
        )
        for score in (None, -7.0)
    )
    # With no KL, discount or decay, advantage + value at the first answer token is the score.
    first = rollouts.mask_BT.int().argmax(1)
    for experience, expected in (
        (plain, rollouts.score_B),
        (fixed, torch.where(rollouts.finished_B, rollouts.score_B, -7.0)),
    ):
        np.testing.assert_allclose(experience.return_BT.gather(1, first[:, None])[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("rows_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(models, rollouts, rows_at_once):
    experience = ppo.evaluate(CONFIG, models, rollouts, 0.05)
    numbers = list(range(1, 24))
    tokens = sum(len(rollouts.rows[number].response_ids) for number in numbers)
    longest = max(len(row) for row in rollouts.rows)
    results = []
    for budget in (rows_at_once * longest, 10_000):
        parameters = [*models.policy.model.parameters(), *models.value.parameters()]
        for parameter in parameters:
            parameter.grad = None
        config = CONFIG.model_copy(update={"micro_batch_tokens": budget})
        sums = ppo.accumulate_gradients(config, models, experience, numbers, tokens)
        results.append((sums / tokens, [parameter.grad for parameter in parameters]))
    (cut_means, gradients), (whole_means, whole_gradients) = results
    np.testing.assert_allclose(cut_means, whole_means, atol=1e-5)
    for gradient, whole in zip(gradients, whole_gradients, strict=True):
        assert gradient is not None
        np.testing.assert_allclose(gradient, whole, atol=1e-5)


@pytest.mark.parametrize("cap", [None, 1.5])
def test_a_head_on_the_policys_trunk_gives_it_the_gradients_of_both_losses(imitator, models, rollouts, cap):
    policy = load_causal_lm(imitator)
    value = ScalarModel.on_trunk_of(policy)
    assert value.backbone is policy.base_model
    shared = ppo.Models(ResponseModel(policy), value, models.reference)
    config, drawn = CONFIG.model_copy(update={"sampler_ratio_cap": cap}), rollouts
    if cap is not None:  # another sampler, whose log-probabilities are 1.2 times the policy's
        drawn = dataclasses.replace(rollouts, sampler_logprob_BT=rollouts.sampler_logprob_BT * 1.2)
    experience = ppo.evaluate(config, shared, drawn, 0.05)
    assert float(experience.value_BT.abs().max()) == 0.0  # the head begins at zero
    with torch.no_grad():  # off the point where ratios are 1 and values old
        value.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        policy.get_output_embeddings().weight.mul_(1.05)
    tokens = sum(len(row.response_ids) for row in rollouts.rows)
    ppo.accumulate_gradients(config, shared, experience, list(range(24)), tokens)
    parameters = [*policy.parameters(), *value.head.parameters()]
    found = [parameter.grad for parameter in parameters]
    # Row by row, unpadded, from transformers' own logits and hidden states; the losses as they are written.
    loss = torch.zeros(())
    for b, row in enumerate(rollouts.rows):
        out = policy(input_ids=torch.tensor([row.ids]), output_hidden_states=True)
        for t in range(len(row.prompt_ids) - 1, len(row) - 1):
            ratio = (out.logits[0, t].log_softmax(-1)[row.ids[t + 1]] - experience.old_logprob_BT[b, t]).exp()
            advantage, target = experience.advantage_BT[b, t], experience.return_BT[b, t]
            state = out.hidden_states[-1][0, t]
            said = state @ value.head.weight[0] + value.head.bias[0]
            near = experience.value_BT[b, t] + (said - experience.value_BT[b, t]).clamp(-0.2, 0.2)
            surrogate = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
            weight = 1.0 if cap is None else min(math.exp(-0.2 * rollouts.sampler_logprob_BT[b, t]), cap)
            loss = loss + weight * surrogate / tokens
            loss = loss + 0.1 * torch.maximum((said - target) ** 2, (near - target) ** 2) / 2 / tokens
    for gradient, expected in zip(found, torch.autograd.grad(loss, parameters), strict=True):
        assert gradient is not None
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_reward_rises_with_values_from_a_head_on_the_policys_trunk(tmp_path, imitator, taste):
    config = LONGER.model_copy(update={"kl_coefficient": 0.2, "value": "shared"})
    rows = _train(tmp_path, imitator, taste, config, instructions=toy.instructions(200))
    assert np.mean([row["reward"] for row in rows[-3:]]) > rows[0]["reward"] + 1.0
    assert rows[0]["val/mean"] == 0.0
    assert rows[-1]["val/mean"] != 0.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "model", "steps"]


def _reward_model_of(tokenizer, folder):
    ScalarModel.from_causal_lm(tiny_model("llama", len(tokenizer), seed=3)).save(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "differ"),
    # By hand: turned around, no word of 28 keeps its place; of ten words, 18 are missing, and line break, pad and end
    # stand elsewhere.
    [(toy.WORDS[::-1], 28), (toy.WORDS[:10], 21)],
    ids=["as many, in another order", "fewer"],
)
def test_a_value_model_that_would_misread_the_policys_tokens_is_refused(tmp_path, imitator, words, differ):
    other = _reward_model_of(word_tokenizer(words), tmp_path / "other")
    with pytest.raises(ModelError, match=rf'{differ} of the policy\'s 32 tokens, such as .*value = "shared"'):
        _train(tmp_path / "own", imitator, other)
    assert not (tmp_path / "own").exists()
    once = {"steps": 1, "rollout_batch_size": 4, "minibatch_size": 4}
    _train(tmp_path / "shared", imitator, other, CONFIG.model_copy(update={"value": "shared", **once}))


def test_a_value_model_may_know_more_tokens_than_the_policy(tmp_path, imitator):
    tokenizer = load_tokenizer(imitator)
    tokenizer.add_tokens(["w28"])
    ppo.check_vocabulary(load_tokenizer(imitator), _reward_model_of(tokenizer, tmp_path))


def test_nothing_has_moved_at_the_first_inner_step(tmp_path, imitator, taste):
    config = CONFIG.model_copy(update={"steps": 1, "inner_epochs": 1, "minibatch_size": 16})
    [row] = _train(tmp_path, imitator, taste, config)
    assert row["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert row["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert row["clip_ratio/region_mean"] == 0.0
    assert row["clip_ratio/value_mean"] == 0.0
    assert row["loss"] == pytest.approx(row["loss/policy_avg"] + CONFIG.value_coefficient * row["loss/value_avg"])
    assert row["policy/approxkl_avg"] == pytest.approx(0.0, abs=1e-9)


LONGER = CONFIG.model_copy(
    update={"steps": 12, "rollout_batch_size": 64, "minibatch_size": 32, "learning_rate": 5e-3, "save_every": 12}
)


@pytest.fixture(scope="module")
def improved(imitator, taste, tmp_path_factory):
    config = LONGER.model_copy(update={"kl_coefficient": 0.2})
    return _train(tmp_path_factory.mktemp("ppo"), imitator, taste, config, instructions=toy.instructions(200))


def test_reward_rises_and_the_divergence_stays_bounded(improved):
    before, after = improved[0]["reward"], np.mean([row["reward"] for row in improved[-3:]])
    assert after > before + 1.5
    assert max(row["objective/kl"] for row in improved) < 12
    assert improved[0]["entropy"] > improved[-1]["entropy"] > 0
    assert all(0 <= row["clip_ratio/region_mean"] < 0.6 for row in improved)


def test_a_stronger_penalty_keeps_the_policy_nearer_to_where_it_began(tmp_path, imitator, taste, improved):
    config = LONGER.model_copy(update={"kl_coefficient": 3.0})
    kept = _train(tmp_path, imitator, taste, config, instructions=toy.instructions(200))
    assert abs(kept[-1]["objective/kl"]) < 0.2 * improved[-1]["objective/kl"]


def test_the_policy_is_kept_at_every_asked_step_as_a_plain_model(tmp_path, imitator, taste):
    _train(tmp_path, imitator, taste)
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["0001", "0002"]
    early, late, final = (
        load_causal_lm(tmp_path / place).get_input_embeddings().weight
        for place in ("steps/0001", "steps/0002", "model")
    )
    assert not torch.equal(early, late)
    assert torch.equal(late, final)
    assert not (tmp_path / "checkpoint").exists()


def test_adaptive_coefficient_moves_and_fixed_one_stays(tmp_path, imitator, taste):
    moving = CONFIG.model_copy(update={"kl_controller": "adaptive"})
    coefficients = [row["objective/kl_coef"] for row in _train(tmp_path / "a", imitator, taste, moving)]
    # By hand: the first batch diverges by 0 nats, far below 6: beta falls by a fiftieth.
    assert coefficients == pytest.approx([0.05, 0.049])
    fixed = _train(tmp_path / "b", imitator, taste)
    assert [row["objective/kl_coef"] for row in fixed] == [0.05, 0.05]


def test_the_same_seed_gives_the_same_bytes(tmp_path, imitator, taste):
    for name in ("first", "again"):
        _train(tmp_path / name, imitator, taste)
    for file in ("metrics.jsonl", "model/model.safetensors", "steps/0001/model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_steps_go_through_every_instruction_before_one_comes_again():
    taken = [number for step in range(5) for number in step_instructions(10, 4, step, seed=0)]
    assert sorted(taken[:10]) == list(range(10))
    assert sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]
    # More answers a step than there are instructions.
    assert sorted(step_instructions(3, 9, 0, seed=0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def _raises(instructions, completions):
    raise RuntimeError("the judge is out")


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (_raises, "RuntimeError: the judge is out"),
        (lambda instructions, completions: [0.0], "1 numbers for 16 completions"),
        (lambda instructions, completions: [math.nan] * len(completions), "returned nan for an answer to"),
        (lambda instructions, completions: ["good"] * len(completions), "ValueError"),
        (lambda instructions, completions: None, "TypeError"),
    ],
)
def test_a_scorer_that_fails_stops_training_at_once(tmp_path, imitator, taste, scorer, message):
    with pytest.raises(ScorerError, match=message):
        _train(tmp_path, imitator, taste, scorer=scorer)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_scorer_sees_text_reasons_and_lengths(imitator, models):
    seen: list[Any] = []

    def scorer(instructions, completions):
        seen.extend(zip(instructions, completions, strict=True))
        return torch.zeros(len(completions))

    encoder = toy.encoder(imitator)
    environment = Environment(toy.instructions(8), toy.TEMPLATE, scorer)
    found = collect(models.policy.model, encoder, environment, [5, 2], max_new_tokens=8, seed=0)
    assert [instruction.id for instruction, _ in seen] == ["i5", "i2"]
    for (instruction, completion), row, finished in zip(seen, found.rows, found.finished_B.tolist(), strict=True):
        assert completion.instruction_id == instruction.id
        assert completion.token_count == len(row.response_ids)
        assert completion.finish_reason == ("stop" if finished else "length")
        assert len(completion.text.split()) == len(row.response_ids) - finished


def test_sampling_from_another_model_than_the_one_trained_is_noticed(models, rollouts):
    check_sampler(models.policy, rollouts, 1024)
    with pytest.raises(TrainingError, match="does not draw from the policy"):
        check_sampler(models.reference, rollouts, 1024)


def test_no_instructions_and_too_long_ones_are_refused_before_any_answer(tmp_path, imitator, taste):
    config = CONFIG.model_copy(update={"max_prompt_tokens": 3})
    with pytest.raises(DataError, match="expected a prompt of 1 to 3 tokens"):
        _train(tmp_path, imitator, taste, config)
    with pytest.raises(DataError, match="no instructions"):
        ppo.train(
            CONFIG,
            start=imitator,
            value_start=taste,
            environment=Environment([], toy.TEMPLATE, toy.count_liked),
            folder=tmp_path,
            seed=0,
            progress=toy.quiet,
        )


def test_a_longer_pad_changes_nothing(imitator, models, rollouts):
    # The widest row sets the padding of the others; the first row alone has none.
    alone = rollouts.rows[0]
    ids = torch.tensor([alone.ids])
    with torch.no_grad():
        logits = models.policy.model(input_ids=ids).logits[0, len(alone.prompt_ids) - 1 : -1].tolist()
    expected = oracles.selected_logprobs(logits, alone.response_ids)
    found = token_logprobs(models.policy, rollouts, 10_000)[0][rollouts.mask_BT[0]]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert load_tokenizer(imitator).pad_token_id not in alone.ids
