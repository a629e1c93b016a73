"""Best-of-n: draw n answers, give the one that a scorer likes best. Nothing is trained.

Source: Stiennon et al. 2020, https://arxiv.org/abs/2009.01325; Nakano et al. 2021 (WebGPT),
https://arxiv.org/abs/2112.09332; Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387.

What differs:
1. AlpacaFarm sampled with top-p 0.9 unless told otherwise; here the recipe's sampling settings say how, once.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from pasture.core.errors import DataError, ScorerError
from pasture.core.records import Completion


class Config(BaseModel):
    """Settings of best-of-n."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    n: int = Field(16, ge=1)
    """Answers drawn for each instruction."""


def select(completions: Sequence[Completion], scores: Sequence[float], *, n: int) -> list[Completion]:
    """Of each instruction's n completions with the lowest seeds, the one with the highest score.

    Equal scores go to the lowest seed. Instructions come in the order in which they first occur.

    Raises:
        ScorerError: if there is not one finite score for each completion.
        DataError: if an instruction has fewer than n completions, or two with one seed.
    """
    _check_scores(scores, len(completions))
    by_instruction: dict[str, list[tuple[Completion, float]]] = {}
    for completion, score in zip(completions, scores, strict=True):
        by_instruction.setdefault(completion.instruction_id, []).append((completion, score))
    chosen = []
    for identifier, candidates in by_instruction.items():
        seeds = {completion.seed for completion, _ in candidates}
        if len(seeds) < len(candidates) or len(candidates) < n:
            raise DataError(
                f"instruction {identifier!r}: expected at least {n} completions with seeds of their own, "
                f"got {len(candidates)} with {len(seeds)} seeds. Draw more, or lower n."
            )
        first_n = sorted(candidates, key=lambda pair: pair[0].seed)[:n]
        # max keeps the first of equals.
        chosen.append(max(first_n, key=lambda pair: pair[1])[0])
    return chosen


def expected_best(scores: Sequence[float], n: int, *, values: Sequence[float] | None = None) -> float:
    """Expected value of the best of n answers, from N >= n answers to one instruction, in the order of their seeds.

    The mean, over all subsets of n, of the value of the highest-scored member: unbiased, and of less variance than
    one draw of n. `values` are what the answers are worth by another measure, such as the true utility when `scores`
    are a proxy's; left out, they are the scores. Of equal scores the earlier answer counts as the higher.

    Raises:
        ScorerError: if a score or a value is not finite.
        DataError: if n is not in 1 to N, or there is not one value for each score.

    Source: Nakano et al. 2021, the appendix that predicts rejection sampling,
    https://arxiv.org/abs/2112.09332
    """
    total = len(scores)
    worth = scores if values is None else values
    _check_scores(scores, total)
    _check_scores(worth, total)
    if not 1 <= n <= total:
        raise DataError(f"the best of n = {n} cannot be estimated from {total} answers. Draw more, or lower n.")
    best_first = sorted(range(total), key=lambda number: -scores[number])
    # The answer of rank k (from 0) is the best of a subset when the other n - 1 come from the total - 1 - k behind it.
    subsets = math.comb(total, n)
    return math.fsum(
        worth[number] * (math.comb(total - 1 - rank, n - 1) / subsets) for rank, number in enumerate(best_first)
    )


def analytic_kl(n: int) -> float:
    """The value log n - (n - 1)/n: an upper bound, in nats, on KL(best-of-n || the model drawn from).

    Exact in the limit where no two answers of a draw are ever equal or tied; for a language model, which repeats
    itself, the divergence is lower, and much lower where few answers are likely.

    Source: Stiennon et al. 2020, the appendix on best-of-N optimization, https://arxiv.org/abs/2009.01325, as an
    equality; that it is a bound: Beirami et al. 2024, https://arxiv.org/abs/2401.01879
    """
    return math.log(n) - (n - 1) / n


def _check_scores(scores: Sequence[float], expected: int) -> None:
    if len(scores) != expected:
        raise ScorerError(f"expected a score for each of {expected} completions, got {len(scores)}.")
    for number, score in enumerate(scores):
        if not math.isfinite(score):
            raise ScorerError(f"score {number} is {score}; every score must be a finite number.")
