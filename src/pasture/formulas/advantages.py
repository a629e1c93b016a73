"""From scores of whole answers to what each token was worth."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pasture.formulas.masks import zero_masked


def shaped_rewards(
    score_B: Float[Tensor, " B"],
    divergence_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    kl_coefficient: float,
) -> Float[Tensor, "B T"]:
    """-kl_coefficient * divergence at every token, and the score at the last unmasked token of its row.

    Masked entries come back as 0. Every row must have an unmasked token, or its score would be lost.

    Raises:
        ValueError: if a row has no unmasked token.

    Source: Ziegler et al. 2019, Eq. 2, https://arxiv.org/abs/1909.08593, spread over tokens.
    """
    if not bool(mask_BT.any(dim=1).all()):
        raise ValueError("expected at least one unmasked token in every row, got a row with none.")
    width = mask_BT.shape[1]
    position_T = torch.arange(1, width + 1, device=mask_BT.device)
    last_B = (position_T * mask_BT).argmax(dim=1)
    reward_BT = zero_masked(-kl_coefficient * divergence_BT, mask_BT)
    return reward_BT.scatter_add(1, last_B[:, None], score_B[:, None].to(reward_BT.dtype))


def generalized_advantages(
    reward_BT: Float[Tensor, "B T"],
    value_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    *,
    discount: float,
    decay: float,
) -> Float[Tensor, "B T"]:
    """Generalized advantage estimates: sum over l of (discount * decay)^l * delta_{t+l}.

    delta_t = reward_t + discount * value_{t+1} - value_t, where value_t is the value before token t was chosen and the
    value after a row's last unmasked token is 0. The unmasked tokens of a row must follow one another without a gap.
    Masked entries come back as 0; advantage + value is the target of the value function.

    Source: Schulman et al. 2016, Eq. 16, https://arxiv.org/abs/1506.02438 (discount is gamma, decay is lambda).
    """
    reward_BT, value_BT = zero_masked(reward_BT, mask_BT), zero_masked(value_BT, mask_BT)
    advantage_BT = torch.zeros_like(reward_BT)
    following_B = torch.zeros_like(reward_BT[:, 0])
    next_value_B = torch.zeros_like(following_B)
    for t in range(reward_BT.shape[1] - 1, -1, -1):
        delta_B = reward_BT[:, t] + discount * next_value_B - value_BT[:, t]
        following_B = torch.where(mask_BT[:, t], delta_B + discount * decay * following_B, 0.0)
        advantage_BT[:, t] = following_B
        next_value_B = value_BT[:, t]
    return advantage_BT


def leave_one_out_advantages(reward_NG: Float[Tensor, "N G"]) -> Float[Tensor, "N G"]:
    """Each answer's reward less the mean reward of the other answers to its prompt; 0 in a group of equals.

    Raises:
        ValueError: if a prompt has fewer than two answers.

    Source: Kool et al. 2019, https://openreview.net/forum?id=r1lgTGL5DE; Ahmadian et al. 2024,
    https://arxiv.org/abs/2402.14740
    """
    size = reward_NG.shape[1]
    return group_centred_advantages(reward_NG) * (size / max(1, size - 1))


def group_centred_advantages(reward_NG: Float[Tensor, "N G"]) -> Float[Tensor, "N G"]:
    """Each answer's reward less the mean reward of its prompt's answers, its own included; 0 in a group of equals.

    Raises:
        ValueError: if a prompt has fewer than two answers.

    Source: Liu et al. 2025 (Dr. GRPO), Section 3.2, https://arxiv.org/abs/2503.20783
    """
    if reward_NG.shape[1] < 2:
        raise ValueError(f"a group needs at least two answers to be compared, got {reward_NG.shape[1]}.")
    # The mean of equals may round to a neighbour of theirs; divided by a deviation as small, that would be a signal.
    equal_N1 = (reward_NG == reward_NG[:, :1]).all(1, keepdim=True)
    return torch.where(equal_N1, 0.0, reward_NG - reward_NG.mean(1, keepdim=True))


def group_standardized_advantages(reward_NG: Float[Tensor, "N G"]) -> Float[Tensor, "N G"]:
    """What `group_centred_advantages` gives, over the standard deviation of the prompt's rewards.

    The variance divides by G - 1.

    Raises:
        ValueError: if a prompt has fewer than two answers.

    Source: Shao et al. 2024, Section 4.1.2, https://arxiv.org/abs/2402.03300
    """
    centred_NG = group_centred_advantages(reward_NG)
    return centred_NG / (reward_NG.std(1, keepdim=True) + _SMALLEST_DEVIATION)


_SMALLEST_DEVIATION = 1e-6
