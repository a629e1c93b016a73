"""Several answers to one prompt, with the prompt read once.

A row holds the prompt and then answer after answer. Each token attends to the prompt and to the earlier tokens of its
own answer, and each answer's positions go on from the prompt's end: to the model every answer stands alone behind the
prompt. Where a model's attention has no room for that, every answer gets a row of its own.
"""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from pasture.models.batches import pad_right
from pasture.models.encode import EncodedPair
from pasture.models.reach import beyond_plain_attention
from pasture.models.trunk import Rows

LOG = logging.getLogger("pasture.models")

_PROMPT, _PAD = 0, -1
"""What a token belongs to; answers are numbered from 1."""


@dataclass(frozen=True)
class AnswerRows:
    """A answers with N tokens in all, laid out for one forward pass in B rows of T tokens.

    A place counts through all rows: token t of row b is at b T + t.
    """

    rows: Rows
    before_N: Tensor
    """Place of the token that each answer token is predicted from, answer after answer."""
    target_N: Tensor
    """Id of each answer token."""
    last_A: Tensor
    """Place of each answer's last token; the prompt's where the answer has none."""
    lengths: list[int]
    """Tokens of each answer."""

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with: ids, and where answers share a row, positions and attention mask."""
        return self.rows.inputs

    def answer_sums(self, value_N: Float[Tensor, " N"]) -> Float[Tensor, " A"]:
        """The sum over each answer's tokens."""
        return torch.stack([part.sum() for part in torch.split(value_N, self.lengths)])


class AnswerLayout:
    """How answers are put before one model: behind a shared prompt where its attention allows it, else each alone.

    Whether it does is found out once, on a few tokens; `shares_prompts` then says so.
    """

    def __init__(self, backbone: PreTrainedModel, pad_id: int) -> None:
        self.pad_id = pad_id
        self.device, self.dtype = backbone.device, backbone.dtype
        obstacle = obstacle_to_sharing(backbone)
        self.shares_prompts = obstacle is None
        if obstacle is not None:
            LOG.info("every answer is read with a prompt of its own: %s", obstacle)

    def rows(self, groups: Sequence[Sequence[EncodedPair]]) -> AnswerRows:
        """The answers of all groups in order; a group answers one prompt.

        Raises:
            ValueError: if the answers of a group have different prompts.
        """
        for group in groups:
            if any(answer.prompt_ids != group[0].prompt_ids for answer in group):
                raise ValueError("answers can share a prompt only if they have one")
        if self.shares_prompts:
            return shared_rows(groups, self.pad_id, self.device, self.dtype)
        return separate_rows([answer for group in groups for answer in group], self.pad_id, self.device)

    def token_count(self, group: Sequence[EncodedPair]) -> int:
        """Tokens that a group takes in a batch of groups like it, for `token_budget_batches`."""
        if self.shares_prompts:
            return len(group[0].prompt_ids) + sum(len(answer.response_ids) for answer in group)
        return len(group) * max(len(answer) for answer in group)


def separate_rows(answers: Sequence[EncodedPair], pad_id: int, device: torch.device) -> AnswerRows:
    """A row for each answer, padded on the right, where causal attention keeps pads from what counts."""
    ids_BT, own_BT = pad_right([answer.ids for answer in answers], pad_id)
    width = ids_BT.shape[1]
    begins = [row * width + len(answer.prompt_ids) for row, answer in enumerate(answers)]
    read = [
        [begin - 1, *range(begin, begin + len(row.response_ids))] for row, begin in zip(answers, begins, strict=True)
    ]
    return _rows(Rows(ids_BT.to(device), own_BT.to(device), own_BT.to(device)), answers, read)


def shared_rows(
    groups: Sequence[Sequence[EncodedPair]], pad_id: int, device: torch.device, dtype: torch.dtype
) -> AnswerRows:
    """A row for each group."""
    ids = [group[0].prompt_ids + [token for answer in group for token in answer.response_ids] for group in groups]
    ids_BT, own_BT = pad_right(ids, pad_id)
    width = ids_BT.shape[1]
    owners, positions, read = [], [], []
    for row, group in enumerate(groups):
        prompt_length = len(group[0].prompt_ids)
        owner, position = [_PROMPT] * prompt_length, list(range(prompt_length))
        for number, answer in enumerate(group, start=1):
            begin, length = row * width + len(owner), len(answer.response_ids)
            read.append([row * width + prompt_length - 1, *range(begin, begin + length)])
            owner += [number] * length
            position += range(prompt_length, prompt_length + length)
        # A pad's position is one that the model knows.
        owners.append(owner + [_PAD] * (width - len(owner)))
        positions.append(position + [0] * (width - len(position)))
    owner_BT = torch.tensor(owners, device=device)
    rows = Rows(
        ids_BT=ids_BT.to(device),
        own_BT=own_BT.to(device),
        causal_BT=owner_BT == _PROMPT,
        position_BT=torch.tensor(positions, device=device),
        mask=_attention(owner_BT, dtype),
    )
    return _rows(rows, [answer for group in groups for answer in group], read)


def _attention(owner_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the attention scores, B 1 T T: 0 where a token sees another, the lowest number elsewhere."""
    width = owner_BT.shape[1]
    earlier_TT = torch.ones(width, width, dtype=torch.bool, device=owner_BT.device).tril()
    own_BTT = owner_BT[:, :, None] == owner_BT[:, None, :]
    seen_BTT = earlier_TT & (own_BTT | (owner_BT == _PROMPT)[:, None, :])
    unseen_BTT = torch.full(seen_BTT.shape, torch.finfo(dtype).min, dtype=dtype, device=owner_BT.device)
    return unseen_BTT.masked_fill(seen_BTT, 0.0)[:, None]


def _rows(rows: Rows, answers: Sequence[EncodedPair], read: Sequence[Sequence[int]]) -> AnswerRows:
    """`read` has for each answer the places of the prompt's last token and of its own tokens."""
    device = rows.ids_BT.device
    return AnswerRows(
        rows=rows,
        before_N=torch.tensor([place for places in read for place in places[:-1]], dtype=torch.long, device=device),
        target_N=torch.tensor(
            [token for answer in answers for token in answer.response_ids], dtype=torch.long, device=device
        ),
        last_A=torch.tensor([places[-1] for places in read], device=device),
        lengths=[len(answer.response_ids) for answer in answers],
    )


def hidden_states(backbone: PreTrainedModel, rows: AnswerRows) -> Float[Tensor, "L H"]:
    """The last hidden state at every place, pads included."""
    hidden_BTH: Tensor = backbone(**rows.inputs, use_cache=False).last_hidden_state
    return hidden_BTH.flatten(0, 1)


@torch.no_grad()
def obstacle_to_sharing(backbone: PreTrainedModel) -> str | None:
    """Why the model cannot read answers behind a shared prompt; None where it reads them as it reads each alone."""
    config = backbone.config.get_text_config()
    beyond = beyond_plain_attention(config)
    if beyond is not None:
        return beyond
    if not {"position_ids", "attention_mask"} <= inspect.signature(backbone.forward).parameters.keys():
        return f"{config.model_type} takes no positions or no attention mask"
    token = iter(number % config.vocab_size for number in range(3, 1000, 7))
    prompts = [[next(token) for _ in range(length)] for length in (3, 5)]
    groups = [[EncodedPair(prompt, [next(token) for _ in range(size)]) for size in (2, 4, 3)] for prompt in prompts]
    alone = separate_rows([answer for group in groups for answer in group], 0, backbone.device)
    shared = shared_rows(groups, 0, backbone.device, backbone.dtype)
    expected_NH = hidden_states(backbone, alone)[alone.before_N].float()
    difference_NH = hidden_states(backbone, shared)[shared.before_N].float() - expected_NH
    share = float(difference_NH.norm() / expected_NH.norm())
    if share > torch.finfo(backbone.dtype).eps ** 0.5:
        return f"{config.model_type} then reads them otherwise, by {share:.2g} of its hidden states"
    return None
