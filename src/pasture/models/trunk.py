"""A model's layers over the tokens that are there, each once, and its last layer where it is asked.

Rows of a batch are of different lengths. Here their own tokens stand in one long row for everything that a token goes
through alone, and only attention sees the rectangle that they came from: no product is spent on padding. Rows that
begin with the same tokens, as answers to one prompt do and all that are asked with one template, have the same states
there, so these tokens stand in the long row once. Behind the
last layer's attention each token goes on alone, so that layer's feed-forward part, most of it, runs only at the tokens
whose hidden state somebody reads. Losses and gradients are those of the padded rows, to rounding.

Where a model's layers do not allow it, which is found out once, on a few tokens, all rows are read as they come.
"""

import inspect
import logging
from dataclasses import dataclass
from types import MethodType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from pasture.models.reach import beyond_plain_attention

LOG = logging.getLogger("pasture.models")

NAME = "pasture_packed"
"""Of the attention below, among transformers' own."""

_LAYER_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
"""Of a layer that can end early; whether they are put together as they are here, the test on a few tokens says."""


class Packing:
    """Where the tokens of B rows of at most T stand in one row of N, and at which of them the last layer ends."""

    def __init__(self, rows: "Rows", at_K: Int[Tensor, " K"]) -> None:
        """Take rows and the places to read, of which one counts through all: token t of row b is at b T + t."""
        new_BT, order_B = _first_of_their_kind(rows)
        place_BT = torch.arange(new_BT.numel(), device=new_BT.device).view(new_BT.shape)[order_B]
        number_BT = torch.where(new_BT, new_BT.flatten().cumsum(0).view(new_BT.shape) - 1, -1)
        self.shape = new_BT.shape
        self.mask = rows.mask
        self.kept_N = place_BT[new_BT]
        """The place of each token; of one that several rows begin with, the first of its places."""
        self.source_R = torch.empty_like(place_BT).flatten()
        """The token at each place; at a pad, some token."""
        self.source_R[place_BT.flatten()] = number_BT.cummax(0).values.clamp(min=0).flatten()
        self.at_K = self.source_R[at_K]
        """The tokens to read, by their number in the row of N."""
        left_out_R = torch.ones_like(self.source_R, dtype=torch.bool)
        left_out_R[self.kept_N] = False
        self.left_out_R11 = left_out_R[:, None, None]
        """True at pads, and at places whose token has another place."""
        self.plain = torch.equal(self.kept_N, torch.arange(new_BT.numel(), device=new_BT.device))
        """Whether each place is a token of its own, in order."""
        self.again_D = (left_out_R & rows.own_BT.flatten()).nonzero().squeeze(1)
        """The other places of tokens that have several."""

    def spread(self, x_1hNd: Tensor) -> Tensor:
        """Queries, keys or values of the tokens as B h T d; what is at pads is a number and means nothing."""
        x_Nhd = x_1hNd[0].transpose(0, 1)
        if not self.plain:
            x_Nhd = _Spread.apply(x_Nhd, self)  # type: ignore[no-untyped-call]
        return x_Nhd.reshape(*self.shape, *x_Nhd.shape[1:]).transpose(1, 2)

    def gather(self, x_BThd: Tensor) -> Tensor:
        """The tokens' entries of B T h d as 1 N h d."""
        x_Rhd = x_BThd.flatten(0, 1)
        if not self.plain:
            x_Rhd = _Gather.apply(x_Rhd, self)  # type: ignore[no-untyped-call]
        return x_Rhd[None]


@dataclass(frozen=True)
class Rows:
    """Rows that are padded on the right, as a backbone is called with them."""

    ids_BT: Int[Tensor, "B T"]
    own_BT: Bool[Tensor, "B T"]
    """False right of all that is read."""
    causal_BT: Bool[Tensor, "B T"]
    """True where a token is at its place in the row and sees just what is left of it."""
    position_BT: Int[Tensor, "B T"] | None = None
    """None: all are at their place."""
    mask: Tensor | None = None
    """What is added to attention scores, B 1 T T; None: every token sees just what is left of it."""

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the backbone is called with to read them as they are."""
        more = {"position_ids": self.position_BT, "attention_mask": self.mask}
        return {"input_ids": self.ids_BT} | {name: one for name, one in more.items() if one is not None}


def _first_of_their_kind(rows: Rows) -> tuple[Bool[Tensor, "B T"], Int[Tensor, " B"]]:
    """An order of rows in which those that begin alike follow one another, and where in it they differ from the last.

    In the order of a dictionary no earlier row has more in common with one than the row before it.
    """
    ids_BT = torch.where(rows.causal_BT, rows.ids_BT, -1)
    order_B = torch.from_numpy(np.lexsort(ids_BT.flip(1).T.cpu().numpy())).to(ids_BT.device)
    ids_BT, own_BT = ids_BT[order_B], rows.own_BT[order_B]
    same_BT = torch.zeros_like(own_BT)
    same_BT[1:] = ((ids_BT[1:] == ids_BT[:-1]) & (ids_BT[1:] >= 0)).cummin(1).values
    return own_BT & ~same_BT, order_B


class _Spread(torch.autograd.Function):
    """Tokens to places: the gradient of a token is that of its place, and where it has several, of all."""

    @staticmethod
    def forward(ctx: Any, x_Nhd: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return x_Nhd.index_select(0, packing.source_R)

    @staticmethod
    def backward(ctx: Any, gradient_Rhd: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        gradient_Nhd = gradient_Rhd.index_select(0, packing.kept_N)
        if len(packing.again_D):
            again_Dhd = gradient_Rhd.index_select(0, packing.again_D)
            gradient_Nhd.index_add_(0, packing.source_R[packing.again_D], again_Dhd)
        return gradient_Nhd, None


class _Gather(torch.autograd.Function):
    """Places to tokens: pads get no gradient, nor do other places of a token."""

    @staticmethod
    def forward(ctx: Any, x_Rhd: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return x_Rhd.index_select(0, packing.kept_N)

    @staticmethod
    def backward(ctx: Any, gradient_Nhd: Tensor) -> tuple[Tensor, None]:
        gradient_Rhd = gradient_Nhd.index_select(0, ctx.packing.source_R)
        return gradient_Rhd.masked_fill_(ctx.packing.left_out_R11, 0.0), None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `sdpa_attention_forward` gives; of packed tokens, what it gives for the rows that they are of."""
    packing: Packing | None = kwargs.pop("packing", None)
    if packing is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return result
    states = (packing.spread(one) for one in (query, key, value))
    attended_BThd, _ = sdpa_attention_forward(
        module, *states, packing.mask, scaling=scaling, is_causal=packing.mask is None
    )
    return packing.gather(attended_BThd), None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


class Trunk:
    """A backbone, asked for its hidden states at some places of rows that are padded on the right."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        """Find out what the backbone's layers allow, and make them ready for it; they compute what they did."""
        self.backbone = backbone
        self.packs = self.ends_early = False
        layer = getattr(backbone, "layers", [None])[-1]
        if getattr(getattr(layer, "forward", None), "__func__", None) is _layer_that_ends_early:
            del layer.forward  # another trunk of the same backbone made it so
        obstacle = _obstacle_to_packing(backbone)
        if obstacle is None:
            before = backbone.config._attn_implementation
            backbone.set_attn_implementation(NAME)
            obstacle = self._try("packs")
            if obstacle is not None:
                backbone.set_attn_implementation(before)
        if obstacle is not None:
            LOG.info("padding is computed with the tokens: %s", obstacle)
            return
        if all(hasattr(layer, part) for part in _LAYER_PARTS):
            layer.forward = MethodType(_layer_that_ends_early, layer)
            if self._try("ends_early") is not None:
                del layer.forward

    def hidden(self, rows: Rows, at_K: Int[Tensor, " K"]) -> Float[Tensor, "K H"]:
        """The last hidden state at some places; place b T + t is token t of row b."""
        if not self.packs or not len(at_K):
            hidden_BTH: Tensor = self.backbone(**rows.inputs, use_cache=False).last_hidden_state
            return hidden_BTH.flatten(0, 1)[at_K]
        packing = Packing(rows, at_K)
        place_N = packing.kept_N
        position_N = place_N % rows.ids_BT.shape[1] if rows.position_BT is None else rows.position_BT.flatten()[place_N]
        hidden_1NH: Tensor = self.backbone(
            input_ids=rows.ids_BT.flatten()[place_N][None],
            position_ids=position_N[None],
            # Of four axes, so that transformers takes it as it is and makes none; the packing knows better.
            attention_mask=torch.zeros(1, 1, 1, 1, dtype=self.backbone.dtype, device=place_N.device),
            use_cache=False,
            packing=packing,
        ).last_hidden_state
        return hidden_1NH[0] if self.ends_early else hidden_1NH[0].index_select(0, packing.at_K)

    @torch.no_grad()
    def _try(self, ability: str) -> str | None:
        """Turn an ability on, or say why it is left off: the backbone then reads a few rows as padded rows read."""
        device, size = self.backbone.device, self.backbone.config.get_text_config().vocab_size
        own_BT = torch.arange(7, device=device) < torch.tensor([[3], [7], [1], [5]], device=device)
        ids_BT = torch.arange(3, 3 + 13 * own_BT.numel(), 13, device=device).view(own_BT.shape) % size
        ids_BT[3, :2] = ids_BT[1, :2]
        at_K = own_BT.flatten().nonzero().squeeze(1)[1::2]
        plain_KH = self.backbone(input_ids=ids_BT, use_cache=False).last_hidden_state.flatten(0, 1)[at_K].float()
        setattr(self, ability, True)
        try:
            found_KH = self.hidden(Rows(ids_BT, own_BT, own_BT), at_K).float()
            share = float((found_KH - plain_KH).norm() / plain_KH.norm()) if found_KH.shape == plain_KH.shape else 1.0
        except (TypeError, ValueError) as error:  # a layer that wants another call, or a mask of another shape
            setattr(self, ability, False)
            return str(error)
        setattr(self, ability, share <= torch.finfo(self.backbone.dtype).eps ** 0.5)
        return None if getattr(self, ability) else f"the layers then compute otherwise, by {share:.2g}"


def _obstacle_to_packing(backbone: PreTrainedModel) -> str | None:
    config = backbone.config.get_text_config()
    beyond = beyond_plain_attention(config)
    if beyond is not None:
        return beyond
    if config._attn_implementation not in ("sdpa", NAME):
        return f"{config.model_type} was told to attend with {config._attn_implementation!r}"
    parameters = inspect.signature(backbone.forward).parameters
    takes_more = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    if "position_ids" not in parameters or not takes_more:
        return f"{config.model_type} takes no positions, or nothing for its attention"
    return None


def _layer_that_ends_early(layer: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """What the layer gives; of packed tokens, at those that are read."""
    packing = kwargs.get("packing")
    if packing is None or args:
        whole: Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
        return whole
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
    hidden_1KH = (hidden_states + attended).index_select(1, packing.at_K)
    result: Tensor = hidden_1KH + layer.mlp(layer.post_attention_layernorm(hidden_1KH))
    return result
