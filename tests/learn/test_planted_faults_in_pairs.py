"""The faults that losses over pairs of answers are known for, planted one by one: the checks must fail."""

import pytest

from pasture.formulas import preference_losses
from pasture.learn import dpo, kto
from pasture.models import shared_prompt
from pasture.models.encode import EncodedPair, Encoder
from tests.formulas.test_preference_losses import (
    test_losses_match_the_formulas_of_the_papers as check_formulas,
)
from tests.learn.test_dpo import test_loss_is_that_of_answers_read_one_by_one as check_dpo
from tests.learn.test_kto import test_loss_and_drift_are_those_of_answers_read_one_by_one as check_kto
from tests.learn.test_simpo import (
    test_loss_is_that_of_mean_log_probabilities_read_one_by_one as check_simpo,
)


def _caught(check, *arguments):
    with pytest.raises(AssertionError):
        check(*arguments)


@pytest.fixture(params=["dpo", "simpo", "kto"])
def check(request, base, imitator, tmp_path):
    """The comparison of a loss with answers read one by one, which passes as long as nothing is planted."""
    checks = {
        "dpo": lambda: check_dpo(base, {}),
        "simpo": lambda: check_simpo(base, {}),
        "kto": lambda: check_kto(tmp_path, base, imitator),
    }
    checks[request.param]()
    return checks[request.param]


@pytest.mark.parametrize("shift", [-1, 1])
def test_tokens_predicted_from_a_place_beside_are_caught(monkeypatch, check, shift):
    right = shared_prompt._rows

    def shifted(inputs, answers, read):
        return right(inputs, answers, [[max(0, place + shift) for place in places] for places in read])

    monkeypatch.setattr(shared_prompt, "_rows", shifted)
    _caught(check)


def test_a_pad_that_counts_as_an_answers_token_is_caught(monkeypatch, check):
    right = shared_prompt.shared_rows

    def with_pads(groups, pad_id, device, dtype):
        padded = [
            [EncodedPair(answer.prompt_ids, [*answer.response_ids, pad_id]) for answer in group] for group in groups
        ]
        return right(padded, pad_id, device, dtype)

    monkeypatch.setattr(shared_prompt, "shared_rows", with_pads)
    monkeypatch.setattr(shared_prompt, "obstacle_to_sharing", lambda backbone: None)
    _caught(check)


def test_a_dropped_end_token_is_caught(monkeypatch, check):
    right = shared_prompt.shared_rows

    def without_end(groups, pad_id, device, dtype):
        cut = [[EncodedPair(answer.prompt_ids, answer.response_ids[:-1]) for answer in group] for group in groups]
        return right(cut, pad_id, device, dtype)

    monkeypatch.setattr(shared_prompt, "shared_rows", without_end)
    monkeypatch.setattr(shared_prompt, "obstacle_to_sharing", lambda backbone: None)
    _caught(check)


def test_an_encoder_that_drops_the_end_token_is_caught(monkeypatch, base):
    from tests.learn.test_reward_model import (
        test_an_empty_answer_counts_if_it_ended_and_is_refused_if_it_was_cut as check_end,
    )

    check_end(base)
    right = Encoder.pair

    def without_end(self, instruction, completion):
        pair = right(self, instruction, completion)
        return EncodedPair(pair.prompt_ids, [token for token in pair.response_ids if token != self.end_id])

    monkeypatch.setattr(Encoder, "pair", without_end)
    with pytest.raises((AssertionError, ValueError)):
        check_end(base)


def test_a_wrong_sign_of_the_margin_is_caught(monkeypatch, base):
    right = preference_losses.preference_loss
    monkeypatch.setattr(dpo, "preference_loss", lambda loss, margin, weight: right(loss, -margin, weight))
    _caught(check_dpo, base, {})


def test_a_forgotten_reference_is_caught(monkeypatch, base):
    right = dpo.dpo_loss
    monkeypatch.setattr(dpo, "dpo_loss", lambda first, second, *rest: right(first * 0 - 5, second, *rest))
    _caught(check_dpo, base, {})


def test_swapped_kinds_of_answers_are_caught(monkeypatch, tmp_path, base, imitator):
    right = kto.kto_loss
    monkeypatch.setattr(kto, "kto_loss", lambda ratio, desirable, *rest: right(ratio, ~desirable, *rest))
    _caught(check_kto, tmp_path, base, imitator)


def test_a_wrong_sign_of_the_reference_point_is_caught(monkeypatch, tmp_path, base, imitator):
    monkeypatch.setattr(kto, "reference_point", lambda ratio: -ratio.mean())
    _caught(check_kto, tmp_path, base, imitator)


def test_flips_taken_out_the_wrong_way_round_are_caught(monkeypatch):
    def swapped(preferred, probability):
        return preference_losses.conservative_weights(1 - preferred, probability)

    arguments = ("robust", preference_losses.logistic_loss, preference_losses.unbiased_weights, 0.25, 1.0)
    check_formulas(*arguments)
    _caught(check_formulas, *arguments[:2], swapped, *arguments[3:])
