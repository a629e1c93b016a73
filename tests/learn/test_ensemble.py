import json
from functools import partial

import numpy as np
import pytest

from pasture.core.errors import DataError, ModelError, RunFolderError
from pasture.learn import ensemble, resume
from pasture.learn.ensemble import EnsembleScorer, aggregated, first_reward_model, load_scorer
from pasture.learn.reward_model import ModelScorer
from tests.learn import pairwise, toy
from tests.learn.test_resume import _content

QUICK = ensemble.Config(members=3, batch_size=8, learning_rate=3e-3, max_tokens=32, checkpoint_steps=1)
train = partial(pairwise.train, ensemble)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    config = QUICK.model_copy(update={"members": 2, "epochs": 2, "batch_size": 16, "held_out_count": 60})
    return folder, train(config, folder, base, toy.separable_feedback(240))


def asked(count=20):
    pairs = [both for both, _ in toy.separable_feedback(count, seed=9)]
    return [pair.instruction for pair in pairs], [pair.first for pair in pairs]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    # By hand: members say (1, 2, 6) of the first answer and (0, 0, 3) of the second.
    # Means 3 and 1; least 1 and 0; variances (4 + 1 + 9) / 3 and (1 + 1 + 4) / 3, of which half is taken off.
    [("mean", [3.0, 1.0]), ("worst", [1.0, 0.0]), ("uncertainty", [3 - 7 / 3, 0.0])],
)
def test_members_scores_become_one_as_in_the_paper(aggregate, expected):
    scores = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    np.testing.assert_allclose(aggregated(scores, aggregate, 0.5), expected, atol=1e-12)


def test_an_ensemble_scores_with_all_its_members(trained):
    folder, _ = trained
    scorer = load_scorer(folder / "model", toy.TEMPLATE, max_tokens=32)
    assert isinstance(scorer, EnsembleScorer)
    instructions, answers = asked()
    members = [
        ModelScorer.load(folder / "model" / "members" / name / "model", toy.TEMPLATE, max_tokens=32)
        for name in ("00", "01")
    ]
    scores = np.array([member(instructions, answers) for member in members])
    # Members trained from other seeds differ, and centred ones do so about one level.
    assert scores.std(axis=0).min() > 1e-4
    expected = [np.mean(column) - 0.5 * np.var(column) for column in scores.T]
    np.testing.assert_allclose(scorer(instructions, answers), expected, atol=1e-5)


def test_pairs_kept_from_all_members_are_ranked_as_people_did(trained):
    _, [row] = trained
    assert row["eval_accuracy"] >= 0.9
    assert 0 < row["eval_accuracy_of_members"] <= 1
    assert row["eval_disagreement"] > 0
    assert row["pairs_asked"] == 240


def test_held_out_figures_are_those_of_scores_counted_by_hand():
    class Member:
        def __init__(self, likes):
            self.likes = likes

        def __call__(self, instructions, completions):
            return [float(self.likes in answer.text.split()) for answer in completions]

    one, two, three = toy.instructions(3)
    feedback = [
        toy.judged("w1 w2", "w3", instruction=one, preferred="first"),
        toy.judged("w3 w2", "w4", instruction=two, preferred="second"),
        toy.judged("w1", "w2", instruction=three, preferred="tie"),
        toy.judged("w1", "w1", instruction=three, preferred="first"),
        toy.judged("w1", "w2", instruction=three, preferred="unjudged"),
    ]
    scorer = EnsembleScorer([Member("w1"), Member("w4")], "mean", 0.0)  # type: ignore[list-item]
    # Two decided pairs. First: member one is right, member two sees no difference, together right. Second: one sees no
    # difference, two is right, together right. Scores differ by 1 between members for one answer of each pair: a
    # standard deviation of 1/2 for two of four answers.
    assert ensemble.evaluate(scorer, feedback) == {
        "eval_accuracy": 1.0,
        "eval_accuracy_of_members": 0.75,
        "eval_disagreement": 0.25,
    }
    assert ensemble.evaluate(scorer, feedback[2:]) == {}


def test_a_training_stopped_anywhere_ends_with_the_same_bytes(tmp_path, base, monkeypatch):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_REPORTS", 0.0)
    feedback = toy.separable_feedback(16)
    train(QUICK, tmp_path / "whole", base, feedback)
    # By hand: two steps a member, three members.
    for last in (1, 3, 4, 6):

        def stop(done, total, last=last, **figures):
            assert total == 6
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(QUICK, tmp_path / "stopped", base, feedback, progress=stop)
    train(QUICK, tmp_path / "stopped", base, feedback)
    whole = _content(tmp_path / "whole")
    assert "model/members/02/model/model.safetensors" in whole
    assert whole == _content(tmp_path / "stopped")


def test_members_of_other_settings_or_data_are_not_mixed(tmp_path, base, imitator):
    feedback = toy.separable_feedback(16)

    def stop(done, total, **figures):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(QUICK, tmp_path, base, feedback, progress=stop)
    for config, start, data in (
        (QUICK.model_copy(update={"learning_rate": 1e-3}), base, feedback),
        (QUICK, imitator, feedback),
        (QUICK, base, toy.separable_feedback(16, seed=3)),
    ):
        with pytest.raises(RunFolderError, match="begun with another model"):
            train(config, tmp_path, start, data)


def test_a_value_model_begins_as_the_first_member(trained, taste):
    folder, _ = trained
    assert first_reward_model(folder / "model") == folder / "model" / "members/00/model"
    assert first_reward_model(taste) == taste


def test_a_folder_without_a_list_is_one_reward_model(taste, base):
    assert isinstance(load_scorer(taste, toy.TEMPLATE), ModelScorer)
    with pytest.raises(ModelError, match="no reward or value model"):
        load_scorer(base, toy.TEMPLATE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"members": []}, "cannot be read as an ensemble"),
        ({"aggregate": "median"}, "cannot be read as an ensemble"),
        ({"more": 1}, "cannot be read as an ensemble"),
        ({"members": ["members/07/model"]}, "no such model folder"),
    ],
)
def test_a_list_that_says_something_else_is_refused(tmp_path, changes, said):
    listing = {"members": ["a"], "aggregate": "mean", "variance_coefficient": 0.5} | changes
    (tmp_path / "ensemble.json").write_text(json.dumps(listing))
    with pytest.raises(ModelError, match=said):
        load_scorer(tmp_path, toy.TEMPLATE)


def test_nothing_to_train_on_is_refused_before_any_member(tmp_path, base):
    ones = [toy.judged("w1", "w2", instruction=one, preferred="unjudged") for one in toy.instructions(3)]
    with pytest.raises(DataError, match="of 3, 3 are unjudged"):
        train(QUICK, tmp_path, base, ones)
    assert list(tmp_path.iterdir()) == []
