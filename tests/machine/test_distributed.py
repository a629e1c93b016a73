"""How micro-batches are shared, without any second process; with one, tests/learn/test_several_processes.py."""

import pytest
import torch

from pasture.core.errors import RecipeError
from pasture.machine import distributed
from pasture.machine.device import resolve_device


def _as_process(monkeypatch, number, count):
    place = distributed.Joined(count, number, torch.device("cpu"), "none", reshard_after_forward=True)
    monkeypatch.setattr(distributed._State, "joined", place)


def test_one_process_keeps_all_that_it_is_given():
    batches, value = [[0, 2], [1]], torch.ones(2)
    assert distributed.share(batches) == [([0, 2], 1.0), ([1], 1.0)]
    assert distributed.own_part(5) == slice(0, 5)
    assert distributed.total(value) is value
    assert distributed.together(batches) is batches
    assert distributed.is_main()


@pytest.mark.parametrize(
    ("rows", "size", "count"), [(1, 1, 2), (7, 7, 2), (7, 2, 3), (9, 1, 4), (64, 64, 8), (3, 2, 8)]
)
def test_every_row_counts_once_and_all_processes_have_equally_many_passes(monkeypatch, rows, size, count):
    batches = [list(range(begin, min(begin + size, rows))) for begin in range(0, rows, size)]
    passes, counted = set(), []
    for number in range(count):
        _as_process(monkeypatch, number, count)
        own = distributed.share(batches)
        passes.add(len(own))
        counted += [row for part, weight in own for row in part if weight == 1.0]
        assert all(part for part, _ in own)
        assert {weight for _, weight in own} <= {0.0, 1.0}
    assert sorted(counted) == list(range(rows))
    assert len(passes) == 1


def test_one_large_micro_batch_is_cut_so_that_no_process_waits():
    assert [len(part) for part in distributed.cut_finer([list(range(64))], 8)] == [8] * 8
    # Five of eight rows: three are cut in two, two stay.
    assert sorted(len(part) for part in distributed.cut_finer([list(range(8))] * 5, 8)) == [4] * 6 + [8, 8]


def test_parts_of_rows_follow_one_another(monkeypatch):
    parts = []
    for number in range(3):
        _as_process(monkeypatch, number, 3)
        parts += list(range(10))[distributed.own_part(10)]
    assert parts == list(range(10))


def test_processes_that_were_started_and_not_joined_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="2 processes were started and not joined"):
        resolve_device("cpu")


def test_a_device_other_than_that_of_the_processes_is_refused(monkeypatch):
    _as_process(monkeypatch, 1, 2)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(RecipeError, match="joined on 'cpu'"):
        resolve_device("cuda")
