"""How likely whole answers are: under the model in training, and once, before training, under the one it began as."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor

from pasture.core.files import require_path
from pasture.learn.resume import fingerprint
from pasture.machine.checkpoint import load_checkpoint, save_checkpoint
from pasture.machine.distributed import check_same, on_main, row_by_row
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
    require_path(folder, "folder")
    answers = [[(answer.prompt_ids, answer.response_ids) for answer in group] for group in groups]
    identity = fingerprint(answers, modules=[model.model])
    place = folder / REFERENCE_FOLDER
    found = load_checkpoint(place)
    fits = found is not None and found.facts["identity"] == identity
    check_same(fits, str(place))
    if found is not None and fits:
        return found.tensors["logprob_A"].to(layout.device)
    logprob_A = _all_logprobs(model, layout, groups, micro_batch_tokens)
    kept, facts = {"logprob_A": logprob_A}, {"identity": identity}
    on_main(lambda: save_checkpoint(place, step=0, tensors=kept, facts=facts))
    return logprob_A


@torch.no_grad()
def _all_logprobs(
    model: ResponseModel, layout: AnswerLayout, groups: Sequence[Sequence[EncodedPair]], micro_batch_tokens: int
) -> Float[Tensor, " A"]:
    widest = max(len(group) for group in groups)

    def of_groups(numbers: list[int]) -> Tensor:
        batch = [groups[number] for number in numbers]
        parts = torch.split(answer_logprobs(model, layout, batch), [len(group) for group in batch])
        return torch.stack([F.pad(part, (0, widest - len(part))) for part in parts])

    counts = [layout.token_count(group) for group in groups]
    logprob_NG = row_by_row(token_budget_batches(counts, micro_batch_tokens), of_groups)
    return torch.cat([row[: len(group)] for row, group in zip(logprob_NG, groups, strict=True)])
