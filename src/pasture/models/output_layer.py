"""The output layer of a large vocabulary on a CPU, block by block.

For a few dozen rows in float32, MKL, which torch calls, is slower over one matrix of 49,152 x 576 than over its blocks:
32 rows took 54 ms whole and 35 ms in blocks of 1,024, one row 17 ms and 13 ms, one core.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

BLOCK = 1024
"""Rows of the matrix, which are tokens of the vocabulary, multiplied at once."""

LEAST_BLOCKS = 8
"""Of a matrix that is worth it."""


@contextlib.contextmanager
def output_in_blocks(model: Any) -> Iterator[None]:
    """Let the model's output layer work block by block, without gradients, where that is faster; it gives the same."""
    layer = model.get_output_embeddings()
    # An adapter's layer, or one that somebody else has changed, is left as it is.
    plain = type(layer) is nn.Linear and "forward" not in vars(layer)
    if not plain or not _is_worth_it(layer):
        yield
        return
    layer.forward = partial(multiply_in_blocks, layer)
    try:
        yield
    finally:
        del layer.forward


def _is_worth_it(layer: nn.Linear) -> bool:
    weight = layer.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and len(weight) >= LEAST_BLOCKS * BLOCK


def multiply_in_blocks(layer: nn.Linear, hidden_BTH: Float[Tensor, "B T H"]) -> Float[Tensor, "B T V"]:
    """What the layer gives."""
    hidden_NH = hidden_BTH.flatten(0, -2)
    logits_NV = hidden_NH.new_empty(len(hidden_NH), len(layer.weight))
    for start in range(0, len(layer.weight), BLOCK):
        block = slice(start, start + BLOCK)
        torch.mm(hidden_NH, layer.weight[block].t(), out=logits_NV[:, block])
    if layer.bias is not None:
        logits_NV += layer.bias
    return logits_NV.view(*hidden_BTH.shape[:-1], -1)
