"""Memory that ran out while a model was trained, as an error that says what to lower."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pasture.core.errors import TrainingError

_SAID = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch and the libraries below it say where they raise no error of their own kind."""


@contextlib.contextmanager
def explained(method: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """Turn running out of memory, on a card or on the CPU, into what `settings` of the method can be changed.

    Raises:
        TrainingError: in its place. Every other error passes.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"{method} ran out of memory ({first_line[:200]}). Lower what it needs, the first of these first: "
            f"{'; '.join(_advice(settings))}. With another micro_batch_tokens or "
            "gradient_checkpointing training goes on where it was (a recipe's run with --update); with anything else "
            "it begins anew: choose another folder."
        ) from error


def ran_out(error: BaseException) -> bool:
    """Whether the error says that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(said in str(error).lower() for said in _SAID)


def _advice(settings: Mapping[str, Any]) -> list[str]:
    weights = settings.get("weights") or {}
    advice = []
    if "micro_batch_tokens" in settings:
        advice.append(f"micro_batch_tokens = {settings['micro_batch_tokens']} to half of that, results stay the same")
    if not weights.get("gradient_checkpointing"):
        advice.append("weights.gradient_checkpointing = true")
    if weights.get("dtype", "float32") == "float32":
        advice.append('weights.dtype = "bfloat16"')
    if not weights.get("lora"):
        advice.append(
            "weights.lora = { rank = 16 }, which needs neither a second copy nor the optimizer's for all weights"
        )
    if settings.get("value") == "own":
        advice.append('value = "shared"')
    sizes = [name for name in ("max_new_tokens", "max_tokens", "rollout_batch_size") if name in settings]
    return advice + [f"{name} = {settings[name]}" for name in sizes]
