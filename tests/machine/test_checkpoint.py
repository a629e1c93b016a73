"""Checkpoints: whole or absent after a kill, exact, and free of pickle."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pasture.core.errors import RunFolderError
from pasture.machine.checkpoint import (
    CHECKPOINT_FILE,
    load_checkpoint,
    optimizer_tensors,
    prefixed,
    remove_checkpoint,
    restore_optimizer,
    save_checkpoint,
    under_prefix,
)
from tests.crashes import survives_kill_at
from tests.disks import mounted


def loaded_from(folder):
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint


def test_what_was_saved_is_loaded(tmp_path):
    tensors = {
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "step": torch.tensor(3.0),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "slice": torch.arange(12.0).reshape(3, 4)[:, 1:3],
        "none": torch.zeros(0, 4),
    }
    facts = {"order": [3, 1, 2], "loss": 0.1, "name": "größer"}
    save_checkpoint(tmp_path / "here", step=7, tensors=tensors, facts=facts)
    loaded = loaded_from(tmp_path / "here")
    assert loaded.step == 7
    assert loaded.facts == facts
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_tensors_that_share_memory_are_saved_each(tmp_path):
    tied = torch.arange(4.0)
    save_checkpoint(tmp_path, step=1, tensors={"a": tied, "b": tied, "c": tied[:2], "d": tied[2:]}, facts={})
    loaded = loaded_from(tmp_path).tensors
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        "a": [0, 1, 2, 3],
        "b": [0, 1, 2, 3],
        "c": [0, 1],
        "d": [2, 3],
    }


def test_the_file_is_plain_safetensors(tmp_path):
    save_checkpoint(tmp_path, step=1, tensors={"a": torch.ones(2)}, facts={"b": 1})
    assert torch.equal(load_file(tmp_path / CHECKPOINT_FILE)["a"], torch.ones(2))
    # The format: eight bytes of header length, then the header as JSON.
    content = (tmp_path / CHECKPOINT_FILE).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"checkpoint": '{"facts": {"b": 1}, "step": 1}'}


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name, keys in (("one", "ab"), ("two", "ba")):
        save_checkpoint(
            tmp_path / name, step=1, tensors={key: torch.ones(2) for key in keys}, facts=dict.fromkeys(keys, 1)
        )
    assert (tmp_path / "one" / CHECKPOINT_FILE).read_bytes() == (tmp_path / "two" / CHECKPOINT_FILE).read_bytes()


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_a_kill_while_saving_leaves_the_old_or_the_new_and_no_draft(tmp_path):
    seen = set()
    for number in range(1, 100):
        folder = tmp_path / str(number)
        save_checkpoint(folder, step=1, tensors={"a": torch.full((1000,), 1.0)}, facts={"at": 1})

        def save(folder=folder):
            save_checkpoint(folder, step=2, tensors={"a": torch.full((1000,), 2.0)}, facts={"at": 2})

        done = survives_kill_at(number, save)
        loaded = loaded_from(folder)
        assert loaded.facts == {"at": loaded.step}
        assert loaded.tensors["a"].unique().tolist() == [loaded.step]
        assert [path.name for path in folder.iterdir()] == [CHECKPOINT_FILE]
        seen.add(loaded.step)
        if done:
            break
    assert done
    assert seen == {1, 2}


@pytest.mark.parametrize("content", [b"", b"garbage" * 20, None])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    save_checkpoint(tmp_path, step=1, tensors={"a": torch.ones(200)}, facts={})
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(RunFolderError, match=rf"{CHECKPOINT_FILE} is damaged .* Remove it"):
        loaded_from(tmp_path)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    with mounted(tmp_path / "disk", "256k") as disk:
        save_checkpoint(disk.path, step=1, tensors={"a": torch.ones(10_000)}, facts={})
        with pytest.raises(RunFolderError, match="make room"):
            save_checkpoint(disk.path, step=2, tensors={"a": torch.ones(1_000_000)}, facts={})
        assert loaded_from(disk.path).step == 1
        assert [path.name for path in disk.path.iterdir()] == [CHECKPOINT_FILE]


def test_a_removed_checkpoint_is_gone(tmp_path):
    save_checkpoint(tmp_path, step=1, tensors={}, facts={})
    remove_checkpoint(tmp_path)
    remove_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_prefixes_part_and_join():
    joined = prefixed("model.", {"w": torch.ones(1)}) | prefixed("value.", {"w": torch.zeros(1)})
    assert under_prefix("model.", joined) == {"w": torch.ones(1)}
    assert under_prefix("value.", joined)["w"].item() == 0.0


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(torch.arange(6.0).reshape(2, 3)) - 1.0).square().sum()
        loss.backward()
        optimizer.step()


def new_training(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Linear(3, 4)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=0.01)


def test_resumed_training_equals_undisturbed_training_to_the_bit(tmp_path):
    model, optimizer = new_training(1)
    train(model, optimizer, 5)
    optimizer.param_groups[1]["lr"] = 0.003
    tensors = prefixed("model.", model.state_dict()) | prefixed("optimizer.", optimizer_tensors(optimizer))
    save_checkpoint(tmp_path, step=5, tensors=tensors, facts={})
    train(model, optimizer, 5)

    other, other_optimizer = new_training(2)
    loaded = loaded_from(tmp_path).tensors
    other.load_state_dict(under_prefix("model.", loaded))
    restore_optimizer(other_optimizer, under_prefix("optimizer.", loaded))
    assert [group["lr"] for group in other_optimizer.param_groups] == [0.01, 0.003]
    train(other, other_optimizer, 5)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.bias, model.bias)


def test_an_optimizer_without_steps_is_restored():
    _, optimizer = new_training(1)
    restore_optimizer(optimizer, optimizer_tensors(optimizer))
    assert optimizer.state_dict()["state"] == {}


def test_the_state_of_another_model_is_refused():
    model, optimizer = new_training(1)
    train(model, optimizer, 1)
    tensors = optimizer_tensors(optimizer)
    other = torch.optim.AdamW(nn.Linear(5, 4).parameters())
    with pytest.raises(RunFolderError, match="another model"):
        restore_optimizer(other, tensors)
    fewer = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(4, 3))]}])
    with pytest.raises(RunFolderError, match="another model"):
        restore_optimizer(fewer, tensors)
