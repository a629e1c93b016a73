"""The formulas once more, as plain loops in float64 that share nothing with the code under test."""

import math

import numpy as np


def unmasked(x, mask):
    return [x[b][t] for b in range(len(mask)) for t in range(len(mask[b])) if mask[b][t]]


def mean(x, mask):
    values = unmasked(x, mask)
    return sum(values) / len(values)


def whiten(x, mask, *, keep_mean):
    values = unmasked(x, mask)
    mu = sum(values) / len(values)
    variance = sum((value - mu) ** 2 for value in values) / len(values)
    out = np.zeros_like(np.asarray(x, dtype=np.float64))
    for b in range(len(mask)):
        for t in range(len(mask[b])):
            if mask[b][t]:
                out[b, t] = (x[b][t] - mu) / math.sqrt(variance + 1e-8) + (mu if keep_mean else 0.0)
    return out


def logsumexp(row):
    top = max(row)
    return top + math.log(sum(math.exp(value - top) for value in row))


def selected_logprobs(logits, targets):
    return np.array([row[target] - logsumexp(row) for row, target in zip(logits, targets, strict=True)])


def probabilities(row):
    total = logsumexp(row)
    return [math.exp(value - total) for value in row]


def entropy(logits):
    return np.array([-sum(p * math.log(p) for p in probabilities(row) if p > 0) for row in logits])


def exact_kl(logits, reference):
    result = []
    for row, other in zip(logits, reference, strict=True):
        p, q = probabilities(row), probabilities(other)
        result.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0))
    return np.array(result)


def shaped_rewards(score, divergence, mask, beta):
    out = np.zeros_like(np.asarray(divergence, dtype=np.float64))
    for b, row in enumerate(mask):
        last = max(t for t, kept in enumerate(row) if kept)
        for t, kept in enumerate(row):
            if kept:
                out[b, t] = -beta * divergence[b][t] + (score[b] if t == last else 0.0)
    return out


def generalized_advantages(reward, value, mask, discount, decay):
    """The sum of Eq. 16, term by term: no recursion, so an off-by-one of a recursion cannot be in it."""
    out = np.zeros_like(np.asarray(reward, dtype=np.float64))
    for b, row in enumerate(mask):
        kept = [t for t, inside in enumerate(row) if inside]
        deltas = []
        for place, t in enumerate(kept):
            following = value[b][kept[place + 1]] if place + 1 < len(kept) else 0.0
            deltas.append(reward[b][t] + discount * following - value[b][t])
        for place, t in enumerate(kept):
            out[b, t] = sum((discount * decay) ** ahead * delta for ahead, delta in enumerate(deltas[place:]))
    return out


def leave_one_out(groups):
    """Each reward less the mean of the others of its group, the others listed one by one."""
    out = []
    for group in groups:
        others = [[other for place, other in enumerate(group) if place != own] for own in range(len(group))]
        out.append([own - sum(rest) / len(rest) for own, rest in zip(group, others, strict=True)])
    return np.array(out)


def group_standardized(groups, *, scaled):
    out = []
    for group in groups:
        mu = sum(group) / len(group)
        deviation = math.sqrt(sum((value - mu) ** 2 for value in group) / (len(group) - 1)) + 1e-6
        out.append([(value - mu) / (deviation if scaled else 1.0) for value in group])
    return np.array(out)


def clipped(log_ratio, advantage, low, high):
    """The clipped surrogate of one action, its cases written out."""
    ratio = math.exp(log_ratio)
    kept = min(max(ratio, 1 - low), 1 + high)
    return -min(advantage * ratio, advantage * kept)
