"""What KTO should make of rated answers, each read on its own: Eq. 8 of its paper in NumPy."""

import numpy as np

from pasture.learn import kto
from tests.learn import pairwise
from tests.learn.alone import token_logprobs


def prepared(base, rated, folder, config):
    """The rows of a batch, with what the model in `base` makes of them as the reference."""
    reference, layout = pairwise.policy(base)
    mismatched = kto.mismatched_answers(rated, config.max_tokens, seed=0)
    return kto.prepare(config, reference, layout, rated, mismatched, folder=folder)


def expected_figures(config, rows, policy, reference):
    """Means over all answers, the desirable and the undesirable ones, and the drift."""

    def ratio(answer):
        return token_logprobs(policy, answer).sum() - token_logprobs(reference, answer).sum()

    drift = max(0.0, np.mean([ratio(answer) for row in rows for answer in row.mismatched]))
    losses: list[float] = []
    rewards: dict[bool, list[float]] = {True: [], False: []}
    for rated in (row.rated for row in rows):
        for answer, desirable in zip(rated.answers, rated.desirable, strict=True):
            gain = config.beta * (ratio(answer) - drift)
            weight = config.desirable_weight if desirable else config.undesirable_weight
            losses.append(weight * (1 - 1 / (1 + np.exp(-gain if desirable else gain))))
            rewards[desirable].append(config.beta * ratio(answer))
    chosen, rejected = (np.mean(rewards[kind]) for kind in (True, False))
    named = {"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected}
    return {"loss": np.mean(losses), "kl": drift, **named}
