"""Two processes train what one trains: whole copies or weights shared out, every method, through kills and errors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from pasture.models.load import HEAD_FILE, load_causal_lm
from tests.learn import in_processes, killed, toy

# Every test starts pairs of processes, each of which imports torch.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "--"]

FIRST = ["none:sft", "none:kto", "none:ppo", "none:quark", "fsdp2:reward_model", "fsdp2:dpo", "fsdp2:rloo"]
"""A few of each kind, in one launch."""
FINE = [method for method in in_processes.TRAININGS if "bfloat16" not in method]
COARSE = [method for method in in_processes.TRAININGS if "bfloat16" in method]
REST = [f"{sharding}:{method}" for sharding in ("none", "fsdp2") for method in FINE]


def launch(*arguments, **environment):
    """A command in two processes; what they said and how they ended."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **environment}
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


def train_in_two(folder, base, value, jobs, **environment):
    return launch("tests.learn.in_processes", folder, base, value, *jobs, **environment)


def both(tmp_path_factory, imitator, taste, jobs):
    """Folders of the trainings by two processes and by one."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    done = train_in_two(two, imitator, taste, jobs)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(killed, "environment", in_processes.environment)
        for method in {job.split(":")[1] for job in jobs}:
            in_processes.train(method, imitator, taste, one / method)
    return two, one


@pytest.fixture(scope="module")
def first(tmp_path_factory, imitator, taste):
    return both(tmp_path_factory, imitator, taste, FIRST)


@pytest.fixture(scope="module")
def rest(tmp_path_factory, imitator, taste):
    return both(tmp_path_factory, imitator, taste, REST)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory, imitator, taste):
    return both(tmp_path_factory, imitator, taste, [f"{way}:{name}" for way in ("none", "fsdp2") for name in COARSE])


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def check_equal(two, one, job, *, weights=1e-5, figures=1e-4):
    """The same files, and in them the same weights and figures."""
    sharding, method = job.split(":")
    several, alone = two / sharding / method, one / method
    names = [
        {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} for place in (several, alone)
    ]
    assert names[0] == names[1]
    for name in sorted(name for name in names[1] if name.endswith(".safetensors")):
        found, expected = load_file(several / name), load_file(alone / name)
        if name.endswith(HEAD_FILE):
            # Differences of scores do not see the bias, which drifts on rounding; the offset takes back what it adds.
            found, expected = ({"weight": t["weight"], "shift": t["bias"] - t["offset"]} for t in (found, expected))
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            np.testing.assert_allclose(found[key], tensor, rtol=0, atol=weights, err_msg=f"{name} {key}")
    for row, expected_row in zip(rows(several), rows(alone), strict=True):
        assert row.keys() == expected_row.keys()
        for name, value in expected_row.items():
            if name.endswith("accuracies") and expected_row["step"] == 1:
                continue  # before any step the policy is its reference: all margins are 0 but for rounding
            assert row[name] == pytest.approx(value, rel=figures, abs=figures), (expected_row["step"], name)


@pytest.mark.parametrize("job", FIRST)
def test_two_processes_end_where_one_does(first, job):
    two, one = first
    check_equal(two, one, job)


@pytest.mark.slow
@pytest.mark.parametrize("job", REST)
def test_two_processes_end_where_one_does_with_every_method(rest, job):
    two, one = rest
    check_equal(two, one, job)


@pytest.mark.slow
@pytest.mark.parametrize("method", COARSE)
def test_in_bfloat16_sharing_out_weights_changes_less_than_a_rounding(coarse, method):
    two, _ = coarse
    copies, parts = (load_tensors(two / way / method / "model" / "model.safetensors") for way in ("none", "fsdp2"))
    for name, tensor in copies.items():
        # A bfloat16 has 8 bits: the distance to its neighbour is at most a 128th of it. Steps are of 1e-3 at most.
        np.testing.assert_allclose(
            parts[name].float().numpy(), tensor.float().numpy(), rtol=1 / 128, atol=1e-2, err_msg=name
        )


@pytest.mark.parametrize("method", ["dpo", "rloo"])
def test_a_model_whose_weights_were_shared_out_is_a_plain_folder(first, method):
    two, _ = first
    folder = two / "fsdp2" / method / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert len(list(folder.glob("*.safetensors"))) == 1
    load_causal_lm(folder)  # which refuses a folder that lacks a weight


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_a_kill_changes_nothing_and_another_number_of_processes_may_go_on(tmp_path, imitator, taste, first, sharding):
    _, one = first
    jobs = [f"{sharding}:ppo"]
    done = train_in_two(tmp_path / "killed", imitator, taste, jobs, LAST_STEP="5")
    assert done.returncode != 0
    left = tmp_path / "killed" / sharding / "ppo"
    assert (left / "checkpoint" / "checkpoint.safetensors").exists()
    assert not (left / "model").exists()
    shutil.copytree(left, tmp_path / "by-one" / "ppo")
    done = train_in_two(tmp_path / "killed", imitator, taste, jobs)
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "killed", one, jobs[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(killed, "environment", in_processes.environment)
        in_processes.train("ppo", imitator, taste, tmp_path / "by-one" / "ppo")
    (tmp_path / "none").mkdir()
    (tmp_path / "by-one" / "ppo").rename(tmp_path / "none" / "ppo")
    check_equal(tmp_path, one, "none:ppo")


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_and_is_told_once(tmp_path, imitator, taste):
    done = train_in_two(tmp_path, imitator, taste, ["none:rloo"], FAILS="1")
    assert done.returncode != 0
    told = "ScorerError: the scorer raised RuntimeError: the second scorer has fallen over"
    assert done.stderr.count(told) == 1
    assert "[rank0]" not in done.stderr


def _demonstrations(path, count):
    path.write_text(
        "".join(
            json.dumps({"instruction": instruction.instruction, "input": "", "output": answer.text}) + "\n"
            for instruction, answer in toy.demonstrations(count)
        )
    )
    return path


@pytest.mark.slow
def test_the_command_trains_with_several_processes_and_speaks_once(tmp_path, imitator):
    data = _demonstrations(tmp_path / "demonstrations.jsonl", 12)
    command = ["pasture", "train", "sft", "epochs=1", "batch_size=4", "--start", imitator, "--template", "plain"]
    command += ["--demonstrations", data, "--processes", "2"]
    done = launch(*command, "--sharding", "fsdp2", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Model and its card") == 1
    load_causal_lm(tmp_path / "out" / "model")
    assert (tmp_path / "out" / "model" / "README.md").is_file()
    refused = launch(*command, "max_tokens=4", "--out", tmp_path / "refused")
    assert refused.returncode != 0
    # Both processes meet it; one tells it.
    assert refused.stderr.count("DataError") == 1
    assert "src/pasture" not in refused.stderr  # no traceback but torchrun's own


@pytest.mark.slow
def test_one_process_where_accelerate_was_asked_for_two_is_an_error(tmp_path, imitator):
    data = _demonstrations(tmp_path / "demonstrations.jsonl", 4)
    program = Path(sys.executable).with_name("accelerate")
    command = [program, "launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "-m", "pasture", "train", "sft", "--start", imitator]
    command += ["--demonstrations", data, "--out", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "asked for several processes and started one" in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
