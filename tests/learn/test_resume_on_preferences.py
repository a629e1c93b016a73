import json
import signal
import subprocess
import sys

import pytest

from tests.learn.killed_on_preferences import TRAININGS
from tests.learn.test_resume import ROOT, _content


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, imitator):
    folder = tmp_path_factory.mktemp("killed-on-preferences")
    command = [sys.executable, "-W", "error", "-m", "tests.learn.killed_on_preferences"]
    arguments = [str(path) for path in (folder, imitator, imitator)]  # none of them needs a reward model
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("method", TRAININGS)
def test_a_training_that_is_killed_and_called_again_ends_with_the_same_bytes(trainings, method):
    folder, exit_codes, errors = trainings
    assert exit_codes[method] == [0, -signal.SIGKILL, -signal.SIGKILL, 0], errors
    left = _content(folder / f"{method}-left")
    assert "checkpoint/checkpoint.safetensors" in left
    assert "model/model.safetensors" not in left
    whole, resumed = _content(folder / f"{method}-whole"), _content(folder / f"{method}-killed")
    assert {"model/model.safetensors", "metrics.jsonl"} <= whole.keys()
    assert [name for name in whole if whole[name] != resumed.get(name)] == []
    assert whole.keys() == resumed.keys()
