"""Large tensors on a CPU have pages of their own, which are the machine's again when they are gone."""

import sys
from pathlib import Path

import pytest
import torch

from pasture.machine import heap
from pasture.machine.heap import give_back_holes, mapped_empty
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import tiny_model

MIB = 2**20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status, which Linux alone has")


def held_mib() -> int:
    """What this process holds of its own, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [row] = [line for line in lines if line.startswith("RssAnon")]
    return int(row.split()[1]) // 1024


@on_linux
def test_what_a_large_tensor_held_is_given_back_with_its_last_view():
    before = held_mib()
    one = mapped_empty(torch.empty(0), 64, MIB // 4).fill_(1.0)
    view = one[3:]
    assert one.shape == (64, MIB // 4)
    assert one.dtype == torch.float32
    assert held_mib() - before >= 60
    del one
    assert held_mib() - before >= 60
    assert float(view.sum()) == view.numel()
    del view
    assert held_mib() - before < 8


@on_linux
def test_holes_between_what_is_in_use_are_given_back():
    large = torch.ones(7 * MIB)
    del large  # from now on blocks of less than that come from the heap, and not from pages of their own
    blocks = [torch.ones(MIB // 16) for _ in range(400)]
    del blocks[::2]
    before = held_mib()
    give_back_holes()
    assert before - held_mib() >= 40  # of 50 in 200 holes
    assert all(float(one.min()) == 1.0 for one in blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_in_pages_of_its_own_changes_no_token(monkeypatch, dtype):
    model = tiny_model("llama", 43, seed=0).to(dtype)
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [38, 4], [6, 2], [40, 11, 12]] * 5
    config = SamplerConfig(max_new_tokens=50, batch_tokens=400)
    expected = sample(model, [7, 8], prompts, range(30), config)
    monkeypatch.setattr(heap, "MAPPED_BYTES", 1)
    assert sample(model, [7, 8], prompts, range(30), config) == expected
