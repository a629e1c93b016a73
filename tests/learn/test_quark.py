import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pasture.core.files import read_records
from pasture.learn import quark
from pasture.learn.rollouts import Environment, batch_tensors, collect
from pasture.models.control_tokens import answer_prefix_ids
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.response import ResponseModel
from pasture.models.weights_config import Lora, Weights
from tests.formulas import oracles
from tests.learn import alone, toy

CONFIG = quark.Config(
    steps=2,
    rollout_batch_size=16,
    train_on="all",
    quantiles=4,
    minibatch_size=8,
    learning_rate=1e-3,
    warmup_steps=0,
    kl_coefficient=0.3,
    max_prompt_tokens=16,
    max_new_tokens=8,
    save_every=1,
)
INSTRUCTIONS = toy.instructions(16)


def _train(folder, start, scorer=alone.any_taste, instructions=INSTRUCTIONS, seed=0, **changes):
    quark.train(
        CONFIG.model_copy(update=changes),
        start=start,
        environment=Environment(instructions, toy.TEMPLATE, scorer),
        folder=folder,
        seed=seed,
        progress=toy.quiet,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_quantiles_cut_the_order_of_scores_into_equal_parts():
    scores = torch.tensor([0.3, -2.0, 5.0, 1.0, 0.0, 9.0, -1.0, 2.0])
    # By hand: ranks 3, 0, 6, 4, 2, 7, 1, 5 of eight, two to a quarter.
    assert quark.quantiles(scores, 4).tolist() == [1, 0, 3, 2, 1, 3, 0, 2]


def test_equal_scores_share_the_lowest_quantile_that_one_of_them_reaches_and_the_highest_score_is_of_the_best():
    # By hand: of six, the zeros have ranks 0 to 3, and 0 is in the first third; the one has rank 4, in the last. In the
    # second case the lowest rank of the highest score is 1, in the second quarter.
    assert quark.quantiles(torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0, 0.0]), 3).tolist() == [0, 2, 0, 2, 0, 0]
    assert quark.quantiles(torch.tensor([0.0, 0.5, 0.5, 0.5]), 4).tolist() == [0, 3, 3, 3]
    assert quark.quantiles(torch.zeros(5), 4).tolist() == [3] * 5


@pytest.fixture
def parts(imitator):
    """What a step of Quark works with: a policy that has moved away from the reference, and real answers."""
    tokenizer = load_tokenizer(imitator)
    shared = len(tokenizer)
    asking = quark.Asking(CONFIG, Encoder(tokenizer, toy.TEMPLATE, max_tokens=18))
    policy, reference = (ResponseModel(load_causal_lm(imitator, tokenizer=tokenizer)) for _ in range(2))
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(1.3)
        # Control tokens begin alike; here each means something of its own, so that a mistaken one shows.
        rows = policy.model.get_input_embeddings().weight[shared:]
        rows.add_(torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, rows.shape)))
    environment = Environment(INSTRUCTIONS, toy.TEMPLATE, alone.any_taste)
    rollouts = collect(reference.model, asking.plain, environment, range(16), max_new_tokens=8, seed=0)
    answers = quark.scored(CONFIG, range(16), rollouts)
    return quark.Models(policy, reference, shared), asking, environment, answers


def _logits(model, row):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].tolist()
    return [logits[place] for place in range(len(row.prompt_ids) - 1, len(row) - 1)]


def check_loss(parts):
    """Loss of a batch in float64: rows alone and unpadded, the quantile's token by its number, the end counted."""
    models, asking, environment, answers = parts
    found = quark.accumulate_gradients(CONFIG, models, quark.choose(CONFIG, environment, asking, answers, 0))
    alone.gradients(models.policy.model.parameters())
    order = np.argsort([answer.score for answer in answers], kind="stable")
    # Later, worse answers write over the ranks of their equals, so that each score has the lowest.
    lowest_rank = {answers[number].score: rank for rank, number in reversed(list(enumerate(order)))}
    highest = max(answer.score for answer in answers)
    losses, divergences = [], []
    words = asking.plain.tokenizer.get_vocab()
    for answer in answers:
        instruction = INSTRUCTIONS[answer.instruction]
        prompt = [words[word] for word in instruction.instruction.split()] + [words["\n"]]
        quantile = 4 if answer.score == highest else lowest_rank[answer.score] * 4 // 16 + 1
        token = words[f"<|quantile-{quantile}-of-4|>"]
        own = _logits(models.policy.model, EncodedPair([*prompt, token], answer.response_ids))
        other = _logits(models.reference.model, EncodedPair(prompt, answer.response_ids))
        shared = models.shared_tokens
        kl = oracles.exact_kl([row[:shared] for row in own], [row[:shared] for row in other])
        losses += list(0.3 * kl - oracles.selected_logprobs(own, answer.response_ids))
        divergences += list(kl)
    assert float(found[0]) == pytest.approx(math.fsum(losses), rel=1e-5)
    assert float(found[2]) == pytest.approx(math.fsum(divergences), rel=1e-4)
    finished = sum(answer.response_ids[-1] == asking.plain.end_id for answer in answers)
    assert 0 < finished < 16


def test_loss_of_real_answers_matches_plain_loops(parts):
    check_loss(parts)


def test_loss_of_a_token_matches_its_definition():
    # By hand: -log pi + beta KL.
    loss = quark.quark_loss(torch.tensor([-1.0, -0.5]), torch.tensor([0.2, 0.0]), 0.5)
    np.testing.assert_allclose(loss, [1.1, 0.5], rtol=1e-6)


def test_a_wrong_sign_of_the_divergence_is_caught(monkeypatch, parts):
    right = quark.quark_loss
    monkeypatch.setattr(quark, "quark_loss", lambda logprob, kl, beta: right(logprob, kl, -beta))
    with pytest.raises(AssertionError):
        check_loss(parts)


def test_a_dropped_end_token_is_caught(parts):
    models, asking, environment, answers = parts
    end = asking.plain.end_id
    bare = [
        answer.model_copy(update={"response_ids": [token for token in answer.response_ids if token != end] or [3]})
        for answer in answers
    ]
    with pytest.raises(AssertionError):
        check_loss((models, asking, environment, bare))


def test_quantiles_turned_upside_down_are_caught(monkeypatch, parts):
    right = quark.quantiles
    monkeypatch.setattr(quark, "quantiles", lambda scores, count: count - 1 - right(scores, count))
    with pytest.raises(AssertionError):
        check_loss(parts)


def test_an_answer_behind_a_pad_is_caught(monkeypatch, parts):
    right = batch_tensors

    def padded_between(rows, pad, device):
        ids, mask = right([EncodedPair([*row.prompt_ids, pad], row.response_ids) for row in rows], pad, device)
        return ids, mask

    monkeypatch.setattr(quark, "batch_tensors", padded_between)
    with pytest.raises(AssertionError):
        check_loss(parts)


@pytest.mark.parametrize("rows_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(parts, rows_at_once):
    models, asking, environment, answers = parts
    rows = quark.choose(CONFIG, environment, asking, answers, 0)
    results = []
    for budget in (rows_at_once * max(len(row.conditioned) for row in rows), 10_000):
        config = CONFIG.model_copy(update={"micro_batch_tokens": budget})
        sums = quark.accumulate_gradients(config, models, rows)
        results.append((sums, alone.gradients(models.policy.model.parameters())))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    alone.check_equal_gradients(results[0][1], results[1][1])


def test_the_best_quantile_alone_is_imitated_where_that_is_asked_and_plainly(parts, imitator):
    _, _, environment, answers = parts
    config = CONFIG.model_copy(update={"train_on": "best"})
    plain = quark.Asking(config, toy.encoder(imitator))
    rows = quark.choose(config, environment, plain, answers, 0)
    # By hand: a score below which at least twelve of sixteen lie, or the highest.
    scores = [answer.score for answer in answers]
    expected = [one for one in answers if sum(other < one.score for other in scores) >= 12 or one.score == max(scores)]
    assert 0 < len(expected) <= 4 or scores.count(max(scores)) > 4
    assert sorted(row.plain.response_ids for row in rows) == sorted(answer.response_ids for answer in expected)
    assert all(row.conditioned == row.plain for row in rows)


@pytest.mark.parametrize("train_on", ["all", "best"])
def test_reward_rises_and_the_model_folder_asks_for_the_best(tmp_path, imitator, train_on):
    longer = {"steps": 8, "rollout_batch_size": 96, "minibatch_size": 32, "learning_rate": 1e-2, "save_every": 8}
    rows = _train(
        tmp_path,
        imitator,
        toy.count_liked,
        toy.instructions(200),
        train_on=train_on,
        inner_epochs=3,
        **longer,
        kl_coefficient=0.05,
    )
    before, after = rows[0]["reward"], rows[-1]["reward"]
    assert after > before + 0.6
    tokenizer = load_tokenizer(tmp_path / "model")
    prefix = answer_prefix_ids(tokenizer)
    assert tokenizer.convert_ids_to_tokens(prefix) == (["<|quantile-4-of-4|>"] if train_on == "all" else [])
    # Whoever loads the folder asks so, without knowing of Quark.
    assert toy.encoder(tmp_path / "model").prompt(INSTRUCTIONS[0])[-1:] == (
        prefix or toy.encoder(imitator).prompt(INSTRUCTIONS[0])[-1:]
    )


def test_the_first_answers_are_the_references_own_and_later_ones_are_asked_for_the_best(
    monkeypatch, tmp_path, imitator
):
    asked = []

    def collecting(model, encoder, *arguments, **more):
        rollouts = collect(model, encoder, *arguments, **more)
        asked.append({encoder.tokenizer.convert_ids_to_tokens(row.prompt_ids[-1]) for row in rollouts.rows})
        return rollouts

    monkeypatch.setattr(quark, "collect", collecting)
    rows = _train(tmp_path, imitator, steps=3)
    assert asked == [{"\n"}, {"<|quantile-4-of-4|>"}, {"<|quantile-4-of-4|>"}]
    assert abs(rows[0]["objective/kl"]) < 1e-4


def test_the_pool_holds_the_answers_of_as_many_steps_as_asked(tmp_path, imitator):
    one, two, every = (
        _train(tmp_path / str(steps), imitator, steps=3, rollout_batch_size=8, pool_steps=steps)
        for steps in (1, 2, "all")
    )
    # At most a batch is learned from in a step, whatever the pool holds.
    assert [row["pool/learned"] for row in one] == [row["pool/learned"] for row in every] == [8, 8, 8]
    assert one[0] == two[0] == every[0]
    assert one[1]["loss"] != two[1]["loss"] == every[1]["loss"]
    assert two[2]["loss"] != every[2]["loss"]
    assert not (tmp_path / "1/pool").exists()
    kept = [read_records(path, quark.ScoredAnswer) for path in sorted((tmp_path / "2/pool").iterdir())]
    assert [len(answers) for answers in kept] == [8, 8, 8]


def test_a_step_of_the_optimizer_is_never_left_with_the_few_answers_that_remain(monkeypatch, parts):
    models, asking, environment, answers = parts
    rows = quark.choose(CONFIG, environment, asking, answers, 0)[:9]
    taken = []

    def taking(config, models, batch):
        taken.append(len(batch))
        return torch.zeros(3)

    monkeypatch.setattr(quark, "accumulate_gradients", taking)
    monkeypatch.setattr(quark, "take_step", lambda *arguments, **more: [torch.zeros(())])
    quark.learn(CONFIG, models, torch.optim.SGD(models.policy.model.parameters()), rows, 1e-3, 0)
    # By hand: nine answers at most eight at a time are four and five, not eight and one.
    assert sorted(taken) == [4, 5]


def test_a_control_token_that_is_drawn_says_nothing(imitator):
    asking = quark.Asking(CONFIG, toy.encoder(imitator))
    tokens = asking.plain.tokenizer.convert_tokens_to_ids(quark.control_tokens(CONFIG))
    assert min(tokens) >= len(load_tokenizer(imitator))
    assert asking.best.text(tokens) == ""


def test_adapters_cannot_learn_control_tokens_and_say_so():
    with pytest.raises(ValidationError, match="adapters leave alone"):
        quark.Config(train_on="all", weights=Weights(lora=Lora()))
