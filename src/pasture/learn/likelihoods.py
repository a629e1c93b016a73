"""How likely whole answers are: under the model in training, and once, before training, under the one it began as."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pasture.learn.resume import fingerprint
from pasture.machine.checkpoint import load_checkpoint, save_checkpoint
from pasture.models.batches import token_budget_batches
from pasture.models.encode import EncodedPair
from pasture.models.response import ResponseModel
from pasture.models.shared_prompt import AnswerLayout

REFERENCE_FOLDER = "reference"


def answer_logprobs(
    model: ResponseModel, layout: AnswerLayout, groups: Sequence[Sequence[EncodedPair]]
) -> Float[Tensor, " A"]:
    """Log-probability of each answer of each group, summed over its tokens, the end token included, in nats."""
    rows = layout.rows(groups)
    return rows.answer_sums(model.answer_logprobs(rows))


def reference_logprobs(
    model: ResponseModel,
    layout: AnswerLayout,
    groups: Sequence[Sequence[EncodedPair]],
    *,
    folder: Path,
    micro_batch_tokens: int,
) -> Float[Tensor, " A"]:
    """`answer_logprobs` of all groups before any training, kept in `folder` for a training that goes on after a kill.

    What is found there is used if it is of the same model and the same answers, and else computed again.
    """
    answers = [[(answer.prompt_ids, answer.response_ids) for answer in group] for group in groups]
    identity = fingerprint(answers, modules=[model.model])
    found = load_checkpoint(folder / REFERENCE_FOLDER)
    if found is not None and found.facts["identity"] == identity:
        return found.tensors["logprob_A"].to(layout.device)
    logprob_A = _all_logprobs(model, layout, groups, micro_batch_tokens)
    save_checkpoint(folder / REFERENCE_FOLDER, step=0, tensors={"logprob_A": logprob_A}, facts={"identity": identity})
    return logprob_A


@torch.no_grad()
def _all_logprobs(
    model: ResponseModel, layout: AnswerLayout, groups: Sequence[Sequence[EncodedPair]], micro_batch_tokens: int
) -> Float[Tensor, " A"]:
    parts: dict[int, Tensor] = {}
    for numbers in token_budget_batches([layout.token_count(group) for group in groups], micro_batch_tokens):
        batch = [groups[number] for number in numbers]
        logprobs = answer_logprobs(model, layout, batch)
        parts |= dict(zip(numbers, torch.split(logprobs, [len(group) for group in batch]), strict=True))
    return torch.cat([parts[number] for number in range(len(groups))])
