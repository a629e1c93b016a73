"""Answers that were rated alone: what KTO makes of them, by hand and in NumPy."""

import json
import logging

import pytest
import torch

from pasture.core.errors import DataError
from pasture.core.records import Rating
from pasture.learn import kto
from pasture.learn.lookup import check_ratings, method_named
from pasture.learn.ratings import RatedAnswers, count_kinds, encode_ratings, named_rated_figures, rated_figures
from tests.learn import pairwise, toy
from tests.learn.alone import check_equal_gradients, gradients
from tests.learn.kto_alone import expected_figures, prepared

QUICK = kto.Config(epochs=2, batch_size=8, learning_rate=1e-3, max_tokens=32)


def thumbs(count=12, every=2):
    """Ratings of toy answers: each holds the liked word or does not, and one in `every` is taken that does."""
    rated = []
    for number, (comparison, preference) in enumerate(toy.separable_feedback(count)):
        desirable = number % every == 0
        side = comparison.first if (preference.preferred == "first") == desirable else comparison.second
        rated.append(
            Rating(instruction=comparison.instruction, completion=side, annotator="a person", desirable=desirable)
        )
    return rated


def mixed(base):
    """Pairs and answers that were rated alone, twice as many of them desirable as not."""
    decided = [pair for pair in pairwise.pairs(base, pairwise.mixed_feedback(9)) if pair.first_preferred != 0.5]
    alone = encode_ratings(toy.encoder(base), [one for one in thumbs(18) if one.desirable][:4] + thumbs(4)[1::2])
    return [*map(RatedAnswers.of_pair, decided), *alone]


def test_the_loss_of_pairs_and_of_single_answers_is_a_mean_over_answers(tmp_path, base, imitator):
    config = QUICK.model_copy(update={"beta": 0.3, "desirable_weight": 0.5, "undesirable_weight": 1.5})
    rated = mixed(base)
    rows = prepared(base, rated, tmp_path, config)
    policy, layout = pairwise.policy(imitator)
    expected = expected_figures(config, rows, policy.model, pairwise.policy(base)[0].model)
    figures = kto.accumulate_gradients(config, policy, layout, rows)
    kinds = [desirable for one in rated for desirable in one.desirable]
    assert (sum(kinds), len(kinds)) == (10, 18)
    assert {name: float(figures[name]) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert float(figures["loss"]) == pytest.approx(expected["loss"], abs=1e-5)


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_gradients_do_not_depend_on_the_micro_batch(tmp_path, base, rows_at_once):
    rated = mixed(base)
    rows = prepared(base, rated, tmp_path, QUICK)
    whole, layout = pairwise.policy(base, moved=0.05)
    kto.accumulate_gradients(QUICK, whole, layout, rows)
    cut, layout = pairwise.policy(base, moved=0.05)
    budget = rows_at_once * max(layout.token_count(one.answers) for one in rated)
    kto.accumulate_gradients(QUICK.model_copy(update={"micro_batch_tokens": budget}), cut, layout, rows)
    check_equal_gradients(gradients(cut.model.parameters()), gradients(whole.model.parameters()))


def test_what_there_is_none_of_has_no_figure(base):
    alone = [one for one in encode_ratings(toy.encoder(base), thumbs(6)) if one.desirable == (True,)]
    sums = rated_figures(alone, torch.tensor([0.5, 0.25, 0.75]), torch.tensor([1.0, 2.0, 6.0]))
    found = named_rated_figures(sums, alone, prefix="eval_")
    assert {name: float(value) for name, value in found.items()} == {"eval_loss": 0.5, "eval_rewards/chosen": 3.0}


@pytest.mark.parametrize(
    ("every", "weights", "told"),
    [
        (2, (1.0, 1.0), None),
        (3, (1.0, 1.0), "of 12 answers 4 are desirable: with these weights they count 0.5 times"),
        (3, (2.0, 1.0), None),
        (3, (1.4, 1.0), None),
        (1, (1.0, 1.0), "of 12 answers 12 are desirable: with these weights they count inf times"),
        (1, (1.0, 0.0), None),
    ],
)
def test_a_lopsided_loss_is_warned_of(base, caplog, every, weights, told):
    rated = encode_ratings(toy.encoder(base), thumbs(12, every))
    with caplog.at_level(logging.WARNING, "pasture"):
        counts = count_kinds(rated, *weights)
    # By hand: one in `every` of twelve.
    assert counts == {"answers_desirable": 12 // every, "answers_undesirable": 12 - 12 // every}
    assert [told in message for message in caplog.messages] == ([True] if told else [])


def test_a_policy_learns_from_thumbs_what_people_like(tmp_path, imitator):
    config = QUICK.model_copy(update={"epochs": 4, "batch_size": 32, "held_out_count": 60})
    feedback = [(one,) for one in thumbs(480)]
    kto.train(
        config, start=imitator, feedback=feedback, template=toy.TEMPLATE, folder=tmp_path, seed=0, progress=toy.quiet
    )
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["answers_desirable"] + metrics[0]["answers_undesirable"] == 420
    assert "pairs_asked" not in metrics[0]
    assert metrics[-1]["eval_rewards/margins"] > 0.2
    assert pairwise.likes(tmp_path / "model") >= pairwise.likes(imitator) + 20


def test_methods_that_learn_from_pairs_say_so(base):
    feedback = [(one,) for one in thumbs(4)]
    with pytest.raises(DataError, match=r"^dpo learns from pairs, and the feedback holds 4 answers that were rated"):
        check_ratings("dpo", method_named("dpo"), feedback)
    check_ratings("kto", method_named("kto"), feedback)
