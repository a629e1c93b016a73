"""Several processes that train one model: what each computes, and what they put together.

A launcher starts them, accelerate joins them, and all of them call a method's `train` with the same arguments. Each
takes its share of a batch's micro-batches. A loss is divided by the counts of the whole batch, so gradients and figures
are sums over processes, and what comes out does not depend on how many there are but for rounding. The first process,
the main one, alone writes.

Outside of `processes` there is one process, and what is given to a function here comes back as it is.
"""

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pasture.core.errors import RecipeError
from pasture.machine.launch import Sharding, checked_launch, launched_count

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=6)
"""How long processes wait for one another; what one does alone, such as asking a judge, can take long."""

SECONDS_FOR_A_MESSAGE = 10.0
"""How long a process whose error is not told leaves another to tell its own, before it ends by itself."""

_BUCKET_BYTES = 1 << 26
"""Gradients that are summed in one go."""


@dataclass(frozen=True)
class Joined:
    """This process among those that train together."""

    count: int
    number: int
    """From 0, the main one's."""
    device: torch.device
    sharding: Sharding
    reshard_after_forward: bool


class _State:
    joined: Joined | None = None


def joined() -> Joined | None:
    """This process's place among several; None where it is alone.

    Raises:
        RecipeError: if a launcher started several and they were not joined: each would do all of the work.
    """
    if _State.joined is None and launched_count() > 1:
        raise RecipeError(
            f"{launched_count()} processes were started and not joined: each would do all of the work. Train with "
            "pasture train, or within pasture.machine.distributed.processes(); or start one process alone."
        )
    return _State.joined


def count() -> int:
    """Processes that train together."""
    return 1 if _State.joined is None else _State.joined.count


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return _State.joined is None or _State.joined.number == 0


@contextlib.contextmanager
def processes(*, expected: int | None = None, sharding: Sharding = "none", on_cpu: bool = False) -> Iterator[None]:
    """Join the processes that a launcher started; where it started none, there is nothing to join.

    With an error in one process all end, and the first error alone is told: the others leave without a word.

    Raises:
        RecipeError: if there are not as many as `expected`, or the launcher was told what does not hold here.
    """
    launch = checked_launch(expected, sharding)
    if launch.count == 1:
        yield
        return
    on_cpu = on_cpu or launch.on_cpu or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    if state.num_processes != launch.count:
        raise RecipeError(
            f"the launcher started {launch.count} processes and accelerate joined {state.num_processes}. "
            "Start them with torchrun."
        )
    if state.process_index > 0:
        logging.getLogger("pasture").setLevel(logging.ERROR)
    device = torch.device("cpu") if on_cpu else state.device
    _State.joined = Joined(launch.count, state.process_index, device, launch.sharding, launch.reshard_after_forward)
    try:
        yield
    except BaseException as error:
        if _is_first_error():
            raise
        # The launcher ends this process as soon as the one that speaks has left.
        time.sleep(0 if isinstance(error, KeyboardInterrupt) else SECONDS_FOR_A_MESSAGE)
        raise SystemExit(1) from None
    finally:
        _State.joined = None
    state.destroy_process_group()
    PartialState._reset_state()
    # The group's threads end with the last that holds it, and models that are done with hold it in cycles.
    gc.collect()


def _is_first_error() -> bool:
    """Whether no other process has failed before; where nobody can be asked any more, one has."""
    try:
        # The processes meet there, at the launcher; torch has no public way to it once they have met.
        store = torch.distributed.distributed_c10d._get_default_store()
        return bool(store.add("pasture/errors", 1) == 1)
    except (RuntimeError, ValueError):
        return False


def wait() -> None:
    """Go on when every process has come here."""
    if _State.joined is not None:
        PartialState().wait_for_everyone()


def on_main(act: Callable[[], object]) -> None:
    """Let the main process `act`, such as write a file, and the others wait until it has."""
    if is_main():
        act()
    wait()


def from_main(ask: Callable[[], T]) -> T:
    """What `ask` gives in the main process, in all of them; it must be picklable."""
    if _State.joined is None:
        return ask()
    found = [ask() if is_main() else None]
    answer: T = broadcast_object_list(found, from_process=0)[0]
    return answer


def check_same(value: object, what: str) -> None:
    """See that every process has the same `value`, such as what it found in a folder.

    Raises:
        RecipeError: if one has another.
    """
    if _State.joined is not None and len(set(gather_object([repr(value)]))) > 1:
        raise RecipeError(
            f"the processes do not see the same {what}. Inputs and --out must lie where all of them read the same "
            "files, on several machines on a shared file system."
        )


def own_part(size: int) -> slice:
    """This process's part of `size` rows: all processes' parts in order are all rows."""
    if _State.joined is None:
        return slice(0, size)
    begin, end = (size * number // _State.joined.count for number in (_State.joined.number, _State.joined.number + 1))
    return slice(begin, end)


def together(own: list[T]) -> list[T]:
    """The lists of all processes as one, in order; entries must be picklable."""
    if _State.joined is None:
        return own
    # A tensor of a GPU would come out on that GPU.
    sent = [one.cpu() if isinstance(one, Tensor) else one for one in own]
    gathered: list[T] = gather_object(sent)
    return gathered


def share(batches: list[list[int]]) -> list[tuple[list[int], float]]:
    """This process's micro-batches of `batches`, each with what its loss and figures count for.

    Every process gets equally many, as processes that share out weights need one another in each pass: `batches` are
    cut finer where that evens them out, and one that is left without has a micro-batch of another's that counts 0.
    """
    if _State.joined is None:
        return [(batch, 1.0) for batch in batches]
    number, several = _State.joined.number, _State.joined.count
    finer = cut_finer(batches, several)
    turns = [finer[begin : begin + several] for begin in range(0, len(finer), several)]
    return [(turn[number], 1.0) if number < len(turn) else (turn[0], 0.0) for turn in turns]


def cut_finer(batches: list[list[int]], several: int) -> list[list[int]]:
    """The batches, the largest cut in two until their number is a multiple of `several` or nothing can be cut."""
    finer = [list(batch) for batch in batches]
    while len(finer) % several:
        largest = max(range(len(finer)), key=lambda place: len(finer[place]))
        rows = finer[largest]
        if len(rows) < 2:
            break
        middle = len(rows) // 2
        finer[largest : largest + 1] = [rows[:middle], rows[middle:]]
    return finer


def total(own: Tensor) -> Tensor:
    """The sum of the processes' tensors."""
    if _State.joined is None:
        return own
    summed: Tensor = reduce(own, reduction="sum")
    return summed


def row_by_row(batches: list[list[int]], compute: Callable[[list[int]], Tensor]) -> Tensor:
    """What `compute` gives for the rows of each micro-batch, an entry for each row, in the rows' order.

    Each row is computed by one process, and all of them get all rows.
    """
    result: Tensor | None = None
    for numbers, weight in share(batches):
        values = compute(numbers)
        if result is None:
            result = values.new_zeros((sum(map(len, batches)), *values.shape[1:]))
        if weight:
            result[numbers] = values
    if result is None:
        raise ValueError("there are no rows to compute")
    return total(result)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up the gradients of the processes, in place; those of weights that are shared out have been already.

    Every process has gone through micro-batches, so that a parameter without a gradient has none in any of them.
    """
    if _State.joined is None:
        return
    gradients = [one.grad for one in parameters if one.grad is not None and not isinstance(one.grad, DTensor)]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type, about `_BUCKET_BYTES` at a time."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(one.nbytes for one in bucket) >= _BUCKET_BYTES
        if bucket and (full or bucket[-1].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
