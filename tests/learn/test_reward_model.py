import json
import math
import shutil

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError, ModelError
from pasture.learn import reward_model
from pasture.learn.feedback import agreement, encode_feedback, split
from pasture.learn.reward_model import ModelScorer, bradley_terry_loss
from pasture.models.batches import pad_left, pad_right
from pasture.models.heads import ScalarModel
from pasture.models.load import load_causal_lm
from pasture.models.shared_prompt import AnswerLayout
from tests.learn import toy

CONFIG = reward_model.Config(epochs=3, batch_size=16, learning_rate=3e-3, max_tokens=32, held_out_count=60)


def _train(folder, base, feedback, config=CONFIG, seed=0):
    reward_model.train(
        config,
        start=base,
        feedback=feedback,
        template=toy.TEMPLATE,
        folder=folder,
        seed=seed,
        progress=toy.quiet,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    feedback = toy.separable_feedback(360)
    return folder, feedback, _train(folder, base, feedback)


def test_loss_is_the_bradley_terry_likelihood():
    # By hand: P(first) = sigma(r1 - r2); margins 2, -1, 0 with labels first, first, tie.
    loss = bradley_terry_loss(
        torch.tensor([2.0, 0.0, 5.0]), torch.tensor([0.0, 1.0, 5.0]), torch.tensor([1.0, 1.0, 0.5])
    )
    np.testing.assert_allclose(
        loss, [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(2)], rtol=1e-6, atol=1e-6
    )


def test_a_tie_pulls_scores_together_and_swapping_sides_changes_nothing():
    first, second = torch.tensor([3.0], requires_grad=True), torch.tensor([1.0])
    tie = torch.tensor([0.5])
    loss = bradley_terry_loss(first, second, tie)
    assert float(torch.autograd.grad(loss.sum(), [first])[0]) > 0
    assert float(bradley_terry_loss(second, first.detach(), tie)) == pytest.approx(float(loss.detach()))


def test_loss_survives_margins_that_overflow_an_exponential():
    loss = bradley_terry_loss(torch.tensor([-500.0]), torch.tensor([500.0]), torch.tensor([1.0]))
    assert float(loss) == 1000.0


def test_agreement_counts_half_where_scores_are_equal():
    result = agreement(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert result.tolist() == [1.0, 0.0, 0.5]


def test_agreement_counts_half_where_the_label_is_a_tie_and_shares_of_labels_that_differ():
    # By hand: a tie counts half whatever the scores are; of three labels two say what the scores say.
    label = torch.tensor([0.5, 0.5, 2 / 3, 2 / 3])
    result = agreement(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.0]), label)
    assert result.tolist() == pytest.approx([0.5, 0.5, 2 / 3, 1 / 3])


def test_a_separable_preference_is_learned_to_95_percent_on_held_out_pairs(trained):
    _, _, metrics = trained
    assert metrics[-1]["eval_accuracy"] >= 0.95
    assert metrics[-1]["eval_loss"] < metrics[0]["loss"]


def test_judged_answers_score_zero_on_average_after_training(trained):
    folder, feedback, _ = trained
    scorer = ModelScorer.load(folder / "model", toy.TEMPLATE)
    instructions = [comparison.instruction for comparison, _ in feedback for _ in range(2)]
    answers = [answer for comparison, _ in feedback for answer in (comparison.first, comparison.second)]
    scores = scorer(instructions, answers)
    assert float(scorer.model.offset) != 0.0
    assert np.mean(scores) == pytest.approx(0.0, abs=1e-5)
    assert np.std(scores) > 0.5


def test_saved_model_ranks_pairs_as_people_did(trained):
    folder, _, _ = trained
    scorer = ModelScorer.load(folder / "model", toy.TEMPLATE)
    unseen = toy.separable_feedback(100, seed=9)
    right = 0
    for comparison, preference in unseen:
        first, second = scorer([comparison.instruction] * 2, [comparison.first, comparison.second])
        right += (first > second) == (preference.preferred == "first")
    assert right >= 95


@pytest.mark.parametrize("shape", ["llama", "qwen", "gpt2", "neox"])
def test_score_is_read_at_the_last_token_and_is_the_same_on_either_side_of_the_pads(tmp_path, shape):
    folder = toy.save_base(tmp_path, shape)
    model = ScalarModel.from_causal_lm(load_causal_lm(folder), seed=3)
    encoder = toy.encoder(folder)
    rows = [encoder.pair(*both) for both in toy.demonstrations(7)]
    with torch.no_grad():
        found = reward_model.answer_scores(model, rows, encoder.pad_id)
        # Each row alone, without any padding, read at its end token.
        alone = [
            float(model(torch.tensor([row.ids]), torch.ones(1, len(row), dtype=torch.bool))[0, -1]) for row in rows
        ]
        assert all(row.ids[-1] == encoder.end_id for row in rows)
        np.testing.assert_allclose(found, alone, atol=1e-5)
        ids = [row.ids for row in rows]
        np.testing.assert_allclose(model(*pad_left(ids, encoder.pad_id))[:, -1], alone, atol=1e-5)
        last = [len(row) - 1 for row in rows]
        right = model(*pad_right(ids, encoder.pad_id))[range(len(rows)), last]
        np.testing.assert_allclose(right, alone, atol=1e-5)


def test_scores_and_gradients_are_the_same_behind_a_shared_prompt(base):
    encoder = toy.encoder(base)
    pairs, _ = encode_feedback(encoder, toy.separable_feedback(16))
    results = []
    for shares in (True, False):
        model = ScalarModel.from_causal_lm(load_causal_lm(base))
        layout = AnswerLayout(model.backbone, encoder.pad_id)
        assert layout.shares_prompts
        layout.shares_prompts = shares
        loss, _ = reward_model.accumulate_gradients(model, layout, pairs, 200)
        gradients = [torch.as_tensor(parameter.grad) for parameter in model.parameters()]
        results.append((reward_model.pair_scores(model, layout, pairs), loss, gradients))
    (scores, loss, gradients), (alone_scores, alone_loss, alone_gradients) = results
    for found, alone in zip([*scores, loss, *gradients], [*alone_scores, alone_loss, *alone_gradients], strict=True):
        np.testing.assert_allclose(found.detach(), alone.detach(), atol=1e-5)


@pytest.mark.parametrize("pairs_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(base, pairs_at_once):
    encoder = toy.encoder(base)
    pairs, _ = encode_feedback(encoder, toy.separable_feedback(16))
    results = []
    for at_once in (pairs_at_once, 1000):
        model = ScalarModel.from_causal_lm(load_causal_lm(base))
        layout = AnswerLayout(model.backbone, encoder.pad_id)
        longest = max(layout.token_count(pair.answers) for pair in pairs)
        loss, accuracy = reward_model.accumulate_gradients(model, layout, pairs, at_once * longest)
        results.append((float(loss), float(accuracy), [parameter.grad for parameter in model.parameters()]))
    (cut_loss, cut_accuracy, gradients), (whole_loss, whole_accuracy, whole_gradients) = results
    assert cut_loss == pytest.approx(whole_loss, abs=1e-5)
    assert cut_accuracy == whole_accuracy
    for gradient, whole in zip(gradients, whole_gradients, strict=True):
        assert gradient is not None
        assert whole is not None
        np.testing.assert_allclose(gradient, whole, atol=1e-5)


def test_unjudged_and_equal_pairs_are_left_out_and_counted(base):
    instruction, other = toy.instructions(2)
    feedback = [
        toy.judged("w1 w2", "w3", instruction=instruction),
        toy.judged("w1 w2", "w4", instruction=instruction, preferred="unjudged"),
        toy.judged("w5", "w5", instruction=other, preferred="tie"),
        toy.judged("w6", "w7", instruction=other, preferred="tie"),
    ]
    pairs, left_out = encode_feedback(toy.encoder(base), feedback)
    assert [pair.first_preferred for pair in pairs] == [1.0, 0.5]
    assert left_out == {"pairs_asked": 4, "pairs_unjudged": 1, "pairs_equal": 1}


def test_counts_of_what_was_left_out_stand_in_the_metrics(trained):
    _, _, metrics = trained
    assert metrics[0]["pairs_asked"] == 360
    assert metrics[0]["pairs_unjudged"] == 0


def test_held_out_pairs_share_no_instruction_with_the_rest(base):
    instructions = toy.instructions(10)
    feedback = [toy.judged("w1", f"w{2 + turn}", instruction=one) for one in instructions for turn in range(3)]
    pairs, _ = encode_feedback(toy.encoder(base), feedback)
    training, held_out = split(pairs, 7, seed=0)
    # By hand: three pairs an instruction, so 7 pairs take three instructions, 9 pairs.
    assert (len(training), len(held_out)) == (21, 9)
    assert not {pair.instruction_id for pair in training} & {pair.instruction_id for pair in held_out}


def test_an_empty_answer_counts_if_it_ended_and_is_refused_if_it_was_cut(base):
    [instruction] = toy.instructions(1)
    comparison, preference = toy.judged("", "w1", instruction=instruction)
    [pair], _ = encode_feedback(toy.encoder(base), [(comparison, preference)])
    assert pair.first.response_ids == [toy.encoder(base).end_id]
    cut = toy.completion(instruction, "", 0, finish_reason="length")
    comparison = comparison.model_copy(update={"first": cut})
    with pytest.raises(DataError, match="'i0' has no token"):
        encode_feedback(toy.encoder(base), [(comparison, preference)])


def test_preferences_about_other_comparisons_are_refused(base):
    (comparison, _), (_, preference) = toy.separable_feedback(2)
    with pytest.raises(DataError, match="Join the two files by comparison id"):
        encode_feedback(toy.encoder(base), [(comparison, preference)])


def test_nothing_left_to_train_on_is_refused_with_the_counts(base, tmp_path):
    feedback = [toy.judged("w1", "w2", instruction=one, preferred="unjudged") for one in toy.instructions(3)]
    with pytest.raises(DataError, match="of 3, 3 are unjudged and 0 compare equal"):
        _train(tmp_path, base, feedback)
    with pytest.raises(DataError, match="leaves nothing to train on"):
        _train(tmp_path, base, toy.separable_feedback(30))


def _with_context(folder, place, tokens):
    """The model of a folder, made for so many tokens."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"max_position_embeddings": tokens}))
    return ModelScorer.load(place, toy.TEMPLATE)


def test_an_answer_is_read_to_its_end_however_long_those_of_the_training_were(trained, tmp_path):
    folder, _, _ = trained
    scorer = _with_context(folder / "model", tmp_path / "long", 2048)
    [instruction] = toy.instructions(1)
    long = "w5 " * 600
    answers = [toy.completion(instruction, long + word) for word in ("w1", "w2")]
    first, second = scorer([instruction] * 2, answers)
    # They differ in their last word alone.
    assert abs(first - second) > 1e-3


def test_an_answer_is_read_as_far_as_the_context_goes(trained, tmp_path):
    folder, _, _ = trained
    scorer = _with_context(folder / "model", tmp_path / "short", 24)
    [instruction] = toy.instructions(1)
    room = 24 - len(scorer.encoder.prompt(instruction))
    whole, cut = (toy.completion(instruction, "w5 " * words, finish_reason="length") for words in (300, room))
    first, second = scorer([instruction] * 2, [whole, cut])
    assert first == pytest.approx(second, abs=1e-6)


def test_a_prompt_beyond_the_context_is_told_before_there_are_answers(trained, tmp_path):
    folder, _, _ = trained
    scorer = _with_context(folder / "model", tmp_path / "short", 3)
    with pytest.raises(DataError, match="expected a prompt of 1 to 2 tokens"):
        scorer.check_prompts(toy.instructions(1))


def test_a_scorer_refuses_answers_to_other_instructions(trained):
    folder, _, _ = trained
    first, second = toy.instructions(2)
    with pytest.raises(DataError, match="Hand both over in one order"):
        ModelScorer.load(folder / "model", toy.TEMPLATE)([first], [toy.completion(second, "w1")])


def test_a_language_model_is_no_scorer(base):
    with pytest.raises(ModelError, match="no reward or value model"):
        ModelScorer.load(base, toy.TEMPLATE)
