"""What a launcher (torchrun, accelerate launch) says of this process, held against what was asked for; free of torch.

accelerate's launcher starts one process on a CPU whatever number it is given, and has settings of its own for what is
a method's setting here. Neither may pass in silence.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pasture.core.errors import RecipeError

Sharding: TypeAlias = Literal["none", "fsdp2"]
"""Whether each process holds a whole model, or a part of every weight."""

TORCHRUN = "torchrun --nproc_per_node N -m pasture train ..."


@dataclass(frozen=True)
class Launch:
    """How the processes of a training were started."""

    count: int
    sharding: Sharding
    on_cpu: bool
    """Whether the launcher was told to leave GPUs alone."""
    reshard_after_forward: bool = True
    """Whether a layer's weights are given up between forward and backward pass; of use where they are shared out."""


def launched_count(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that the launcher started together with this one, itself included; 1 without a launcher."""
    return int(environment.get("WORLD_SIZE", "1"))


def check_alone(verb: str, environment: Mapping[str, str] = os.environ) -> None:
    """See that a command that works in one process was not started as several.

    Raises:
        RecipeError: if it was.
    """
    count = launched_count(environment)
    if count > 1:
        raise RecipeError(
            f"pasture {verb} was started as {count} processes, each of which would do all of the work. Start it "
            f"without a launcher; of all commands, pasture train alone works as several: {TORCHRUN} "
            "In a recipe, processes = N has its trainings shared."
        )


def checked_launch(expected: int | None, sharding: Sharding, environment: Mapping[str, str] = os.environ) -> Launch:
    """What was launched, where it is what was asked for.

    `expected` is the number of processes that there must be; None takes what comes.

    Raises:
        RecipeError: if there are fewer or more processes, one alone is to share out its weights, or accelerate was told
            to do what it would not do here.
    """
    count = launched_count(environment)
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in environment
    if count == 1 and by_accelerate and "MASTER_PORT" in environment and _says(environment, "ACCELERATE_USE_CPU"):
        raise RecipeError(
            "accelerate launch was asked for several processes and started one, as it always does on a CPU. "
            f"Start them with {TORCHRUN}"
        )
    if expected is not None and count != expected:
        raise RecipeError(
            f"expected {expected} processes, and there {'is 1' if count == 1 else f'are {count}'}. "
            f"Start them with torchrun --nproc_per_node {expected} -m pasture train ..., or leave out --processes."
        )
    if by_accelerate:
        _check_accelerate(environment)
    if _says(environment, "ACCELERATE_USE_FSDP"):
        sharding = "fsdp2"
    if sharding == "fsdp2" and count == 1:
        raise RecipeError(
            f"fsdp2 shares the weights out among several processes, and there is one. Start more with {TORCHRUN}"
        )
    return Launch(
        count,
        sharding,
        on_cpu=_says(environment, "ACCELERATE_USE_CPU"),
        reshard_after_forward=_says(environment, "FSDP_RESHARD_AFTER_FORWARD", otherwise="true"),
    )


def _check_accelerate(environment: Mapping[str, str]) -> None:
    """Refuse settings of accelerate's that are a method's settings here, or that nothing here would follow."""
    sharded = _says(environment, "ACCELERATE_USE_FSDP")
    refused = {
        "--mixed_precision": (
            environment["ACCELERATE_MIXED_PRECISION"] != "no",
            'weights.dtype = "bfloat16" is the setting here',
        ),
        "--use_deepspeed": (_says(environment, "ACCELERATE_USE_DEEPSPEED"), "--use_fsdp --fsdp_version 2 shares out"),
        "--use_megatron_lm": (_says(environment, "ACCELERATE_USE_MEGATRON_LM"), "it is not supported"),
        "--dynamo_backend": (environment.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO", "it is not supported"),
        "--fsdp_version 1": (sharded and environment.get("FSDP_VERSION", "1") != "2", "version 2 is supported"),
        "--fsdp_offload_params": (sharded and _says(environment, "FSDP_OFFLOAD_PARAMS"), "it is not supported"),
        "--fsdp_activation_checkpointing": (
            sharded and _says(environment, "FSDP_ACTIVATION_CHECKPOINTING"),
            "weights.gradient_checkpointing = true is the setting here",
        ),
        "--use_parallelism_config": (
            _says(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"),
            "it is not supported",
        ),
    }
    for option, (is_set, instead) in refused.items():
        if is_set:
            raise RecipeError(
                f"accelerate launch was given {option} (perhaps by its default_config.yaml), which Pasture would not "
                f"follow: {instead}. Leave it out."
            )


def _says(environment: Mapping[str, str], name: str, otherwise: str = "false") -> bool:
    return environment.get(name, otherwise).lower() in {"1", "true", "yes"}
