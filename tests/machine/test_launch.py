"""What a launcher did is held against what was asked for, before anything is trained."""

import pytest

from pasture.core.errors import RecipeError
from pasture.machine.launch import Launch, check_alone, checked_launch

# As accelerate 1.15 sets them: `accelerate launch --cpu --num_processes 2` starts one process, with these.
ALONE_ON_A_CPU = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_USE_CPU": "True",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
ON_GPUS = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "False", "WORLD_SIZE": "8"}
SHARDED = ON_GPUS | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def test_without_a_launcher_there_is_one_process():
    assert checked_launch(None, "none", {}) == Launch(1, "none", on_cpu=False)
    assert checked_launch(1, "none", {}) == Launch(1, "none", on_cpu=False)


def test_accelerate_says_itself_that_weights_are_to_be_shared_out():
    assert checked_launch(8, "none", SHARDED) == Launch(8, "fsdp2", on_cpu=False)
    kept = SHARDED | {"FSDP_RESHARD_AFTER_FORWARD": "false"}
    assert checked_launch(None, "none", kept) == Launch(8, "fsdp2", on_cpu=False, reshard_after_forward=False)


@pytest.mark.parametrize(
    ("expected", "sharding", "environment", "said"),
    [
        (2, "none", {}, "expected 2 processes, and there is 1. Start them with torchrun --nproc_per_node 2"),
        (2, "none", {"WORLD_SIZE": "3"}, "expected 2 processes, and there are 3"),
        (None, "fsdp2", {}, "shares the weights out among several processes, and there is one"),
        (None, "none", ALONE_ON_A_CPU, "asked for several processes and started one"),
        (None, "none", ON_GPUS | {"ACCELERATE_MIXED_PRECISION": "bf16"}, 'weights.dtype = "bfloat16"'),
        (None, "none", ON_GPUS | {"ACCELERATE_USE_DEEPSPEED": "true"}, "--use_deepspeed"),
        (None, "none", ON_GPUS | {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "--dynamo_backend"),
        (None, "none", SHARDED | {"FSDP_VERSION": "1"}, "version 2 is supported"),
        (None, "none", SHARDED | {"FSDP_OFFLOAD_PARAMS": "true"}, "--fsdp_offload_params"),
        (None, "none", SHARDED | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "weights.gradient_checkpointing"),
    ],
)
def test_what_would_not_hold_is_refused_with_what_to_do(expected, sharding, environment, said):
    with pytest.raises(RecipeError) as caught:
        checked_launch(expected, sharding, environment)
    assert said in str(caught.value)


def test_a_command_for_one_process_is_not_done_twice():
    check_alone("run", {})
    with pytest.raises(RecipeError, match="pasture run was started as 2 processes, each of which would do all"):
        check_alone("run", {"WORLD_SIZE": "2"})
