"""The same jobs on a Ray cluster: each goes where its CPUs and GPUs are free, and again where a node is lost.

Every node must see the run folder under one path, on a shared file system, and have Pasture installed.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Self

from pasture.core.errors import DependencyError, RunFolderError
from pasture.machine.executor import Job

TRIES_AFTER_LOSS = 8
"""Of one job, each after the node or the process that did it was lost; an error that it raises is final."""
_MOST_AT_ONCE = 10_000
_KNOCK_SECONDS = 10.0


class RayWorkers:
    """The nodes of a Ray cluster."""

    count = _MOST_AT_ONCE
    """Ray itself holds jobs back until there is room."""

    def __init__(self, address: str, do: Callable[[Any, Callable[..., None]], Any]) -> None:
        """`address` is that of a running cluster, "auto" for the one that this machine belongs to."""
        self._address, self._do = address, do

    def __enter__(self) -> Self:
        """Join the cluster.

        Raises:
            DependencyError: if Ray is not installed.
            RunFolderError: if no cluster answers.
        """
        try:
            import ray  # noqa: PLC0415 - an extra that only clusters need
        except ImportError as error:
            raise DependencyError("a Ray cluster needs the package ray: pip install 'pasture[ray]'.") from error
        self._ray = ray
        try:
            _knock(self._address)  # Ray itself would wait for minutes
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise RunFolderError(
                f"no Ray cluster answers at {self._address!r} ({error}). Start one with 'ray start --head', and name "
                "its address, or run with --workers on this machine alone."
            ) from error
        self._remote = ray.remote(_work)
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def submit(self, job: Job) -> "Future[Any]":
        """Hand the job to the cluster."""
        placed = self._remote.options(
            num_cpus=job.cpus, num_gpus=job.gpus, max_retries=TRIES_AFTER_LOSS, retry_exceptions=False, name=job.name
        )
        done: Future[Any] = placed.remote(self._do, job.order).future()
        return done

    def messages(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """None: what a distant job says on its way is not carried here."""
        return iter(())


def _knock(address: str) -> None:
    """Whether anybody listens at HOST:PORT; other addresses are for Ray to resolve.

    Raises:
        OSError: if nobody does.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _work(do: Callable[[Any, Callable[..., None]], Any], order: Any) -> Any:
    return do(order, _unheard)


def _unheard(*message: object) -> None:
    """What is said on the way."""
