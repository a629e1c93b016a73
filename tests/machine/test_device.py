"""Devices, types and threads."""

import pytest
import torch

from pasture.core.errors import RecipeError
from pasture.machine.device import describe_device, resolve_device, resolve_dtype, use_threads

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


@without_cuda
def test_cuda_without_a_card_is_refused_with_a_way_out():
    with pytest.raises(RecipeError, match=r"device = 'cuda'.*Set device = 'cpu' or 'auto'"):
        resolve_device("cuda")


@without_cuda
def test_auto_is_the_processor_where_there_is_no_card():
    assert resolve_device("auto") == torch.device("cpu")
    assert describe_device()["cuda"] == "none"


def test_a_card_is_taken_and_described_where_there_is_one(monkeypatch):
    class Card:
        name = "Some Card"
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cpu") == torch.device("cpu")
    assert describe_device()["cuda"] == "Some Card, 80 GiB"


def test_types_have_their_names():
    assert (resolve_dtype("float32"), resolve_dtype("bfloat16")) == (torch.float32, torch.bfloat16)


def test_threads_are_set_and_described():
    before = torch.get_num_threads()
    try:
        use_threads(2)
        assert torch.get_num_threads() == 2
        assert describe_device()["threads"] == "2"
    finally:
        use_threads(before)


def test_no_thread_is_refused():
    with pytest.raises(RecipeError, match="at least 1, got 0"):
        use_threads(0)
