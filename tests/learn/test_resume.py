import copy
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pasture.core.errors import RunFolderError
from pasture.learn import resume, sft
from pasture.models.load import load_causal_lm
from tests.learn import toy
from tests.learn.killed import TRAININGS

ROOT = Path(__file__).parents[2]


def _content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, imitator, taste):
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-W", "error", "-m", "tests.learn.killed", *map(str, (folder, imitator, taste))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("method", TRAININGS)
def test_a_training_that_is_killed_and_called_again_ends_with_the_same_bytes(trainings, method):
    folder, exit_codes, errors = trainings
    assert exit_codes[method] == [0, -signal.SIGKILL, -signal.SIGKILL, 0], errors
    left = _content(folder / f"{method}-left")
    # In the round that is in training, where a method has rounds.
    assert {"checkpoint/checkpoint.safetensors", "rounds/01/checkpoint/checkpoint.safetensors"} & left.keys()
    assert "model/model.safetensors" not in left
    whole, resumed = _content(folder / f"{method}-whole"), _content(folder / f"{method}-killed")
    assert {"model/model.safetensors", "metrics.jsonl"} <= whole.keys()
    assert [name for name in whole if whole[name] != resumed.get(name)] == []
    assert whole.keys() == resumed.keys()


def test_an_annotator_is_asked_about_nothing_twice_though_the_same_steps_are_drawn_again(trainings):
    folder, _, _ = trainings
    whole, killed = ((folder / f"online_dpo_annotator-{how}.ledger").read_text().split() for how in ("whole", "killed"))
    assert len(killed) == len(set(killed)) > 0
    assert killed == whole


def test_a_resumed_training_does_only_what_is_missing(tmp_path, base):
    steps = []

    def progress(done, total, **figures):
        steps.append(done)
        if len(steps) == 1:
            raise KeyboardInterrupt

    arguments = {"start": base, "demonstrations": toy.demonstrations(16), "template": toy.TEMPLATE, "seed": 0}
    config = sft.Config(epochs=3, batch_size=4, learning_rate=1e-3, max_tokens=32, checkpoint_steps=1)
    with pytest.raises(KeyboardInterrupt):
        sft.train(config, folder=tmp_path, progress=progress, **arguments)
    interrupted = steps[-1]
    sft.train(config, folder=tmp_path, progress=progress, **arguments)
    assert steps[1] == interrupted + 1
    numbers = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert numbers == list(range(1, 13))


def test_a_checkpoint_of_other_settings_data_or_model_is_refused(tmp_path, base, imitator):
    def stop(done, total, **figures):
        raise KeyboardInterrupt

    config = sft.Config(epochs=2, batch_size=4, learning_rate=1e-3, max_tokens=32, checkpoint_steps=1)
    common = {"template": toy.TEMPLATE, "folder": tmp_path / "run", "seed": 0, "progress": stop}
    rows = toy.demonstrations(8)
    with pytest.raises(KeyboardInterrupt):
        sft.train(config, start=base, demonstrations=rows, **common)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for changed in (
        {"config": config.model_copy(update={"learning_rate": 2e-3})},
        {"demonstrations": toy.demonstrations(8, seed=5)},
        {"start": imitator},
        {"seed": 1},
    ):
        arguments = {"config": config, "start": base, "demonstrations": rows} | common | changed
        with pytest.raises(RunFolderError, match="another model, other data or other settings"):
            sft.train(arguments.pop("config"), **arguments)
    assert _content(tmp_path / "run") == _content(tmp_path / "copy")


def test_fingerprints_tell_models_apart_by_their_weights(base):
    one, same, other = (load_causal_lm(base) for _ in range(3))
    other.get_input_embeddings().weight.data[0, 0] += 1e-3
    assert resume.fingerprint(1, modules=[one]) == resume.fingerprint(1, modules=[same])
    assert resume.fingerprint(1, modules=[one]) != resume.fingerprint(1, modules=[other])
    assert resume.fingerprint(1, modules=[one]) != resume.fingerprint(2, modules=[one])
    # The first values of a model that was saved in bfloat16 are the same in float32; what it computes is not.
    coarse = load_causal_lm(base, dtype=torch.bfloat16)
    fine = copy.deepcopy(coarse).float()
    assert resume.fingerprint(1, modules=[coarse]) != resume.fingerprint(1, modules=[fine])
