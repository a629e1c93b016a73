"""Losses of a preference between two answers, as functions of a margin: positive where the first is the likelier.

`loss(margin)` is the loss where the first answer is preferred, so `loss(-margin)` is that where the second is.
"""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor


def logistic_loss(margin_P: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]:
    """The value -log sigma(beta m): the negative log-likelihood of a Bradley-Terry preference, in nats.

    Source: Rafailov et al. 2023, Eq. 7, https://arxiv.org/abs/2305.18290
    """
    return -F.logsigmoid(beta * margin_P)


def squared_loss(margin_P: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]:
    """The value (m - 1 / (2 beta))^2: the margin is drawn to a finite value, not pushed ever further.

    Source: Azar et al. 2023 (IPO), Eq. 17, https://arxiv.org/abs/2310.12036 (beta is tau)
    """
    return (margin_P - 1 / (2 * beta)).square()


def hinge_loss(margin_P: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]:
    """The value max(0, 1 - beta m).

    Source: Zhao et al. 2023 (SLiC-HF), https://arxiv.org/abs/2305.10425, on the margin of Liu et al. 2023 (RSO),
    https://arxiv.org/abs/2309.06657
    """
    return F.relu(1 - beta * margin_P)


MARGIN_LOSSES: dict[str, Callable[..., Tensor]] = {"sigmoid": logistic_loss, "ipo": squared_loss, "hinge": hinge_loss}
"""Losses of a margin between log-ratios, by the names that recipes call them."""


def preference_loss(
    loss: Callable[[Tensor], Tensor], margin_P: Float[Tensor, " P"], first_weight_P: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """The value w loss(m) + (1 - w) loss(-m).

    `first_weight_P` is 1 where the first answer is preferred, 0 where the second is, 1/2 for a tie, or what one of the
    functions below makes of these.
    """
    return first_weight_P * loss(margin_P) + (1 - first_weight_P) * loss(-margin_P)


def conservative_weights(first_preferred_P: Float[Tensor, " P"], label_flip_probability: float) -> Float[Tensor, " P"]:
    """Probability that the first answer is truly preferred, if labels were turned around with the given probability.

    A label that is 1 becomes 1 - e, one that is 0 becomes e; a tie stays.

    Source: Mitchell 2023 (conservative DPO), https://ericmitchell.ai/cdpo.pdf
    """
    return first_preferred_P * (1 - 2 * label_flip_probability) + label_flip_probability


def unbiased_weights(first_preferred_P: Float[Tensor, " P"], label_flip_probability: float) -> Float[Tensor, " P"]:
    """Weights under which the loss of noisy labels is, on average over the noise, that of the true ones.

    A label that is 1 becomes (1 - e) / (1 - 2 e), one that is 0 becomes -e / (1 - 2 e); a tie stays.

    Source: Chowdhury et al. 2024 (robust DPO), https://arxiv.org/abs/2403.00409

    Raises:
        ValueError: if the probability is not in [0, 1/2): labels that say nothing cannot be put right.
    """
    if not 0 <= label_flip_probability < 0.5:
        raise ValueError(f"label_flip_probability must be in [0, 0.5), got {label_flip_probability}")
    return (first_preferred_P - label_flip_probability) / (1 - 2 * label_flip_probability)


FLIP_CORRECTIONS = {"conservative": conservative_weights, "unbiased": unbiased_weights}
"""What makes weights of labels that are known to be turned around at times, by the names that recipes call it."""
