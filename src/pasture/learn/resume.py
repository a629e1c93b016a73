"""Training that a kill at any moment cannot change: weights, optimizers and metrics go on from one checkpoint."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from pasture.core.errors import PastureError, RunFolderError
from pasture.core.files import read_json_lines, require_path, weights_fingerprint, write_json_lines
from pasture.core.ports import Progress
from pasture.core.run_folder import differing_keys
from pasture.machine.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    prefixed,
    remove_checkpoint,
    restore_optimizer,
    save_checkpoint,
    under_prefix,
)
from pasture.machine.distributed import check_same, is_main, on_main
from pasture.machine.meter import MetricsLog
from pasture.machine.sharded import load_whole_state, rest, whole, whole_state

CHECKPOINT_FOLDER = "checkpoint"
IDENTITY_FILE = "identity.json"
METRICS_FILE = "metrics.jsonl"
MODEL_FOLDER = "model"
_LOGS_HELD_BACK = 20
SECONDS_BETWEEN_REPORTS = 0.3


def keeps_copy(step: int, every: int, steps: int) -> bool:
    """Whether a copy of the policy is kept after a step, counted from 0: each `every` steps, and after the last."""
    return (step + 1) % every == 0 or step + 1 == steps


def claim(folder: Path, identity: str, file: str = IDENTITY_FILE, *, facts: Mapping[str, Any] | None = None) -> None:
    """Note in a file of `folder` what a training depends on, or see that it began with just that.

    `facts` are what the identity was made of, plain JSON: where it began with something else, they say with what.

    Raises:
        RunFolderError: if it began with something else.
    """
    require_path(folder, "folder")
    path = folder / file
    begun = path.exists()
    check_same(begun, str(path))
    if not begun:
        known = {} if facts is None else {"facts": facts}
        on_main(lambda: write_json_lines(path, [{"identity": identity, **known}]))
    elif [row.get("identity") for row in read_json_lines(path)] != [identity]:
        raise RunFolderError(
            f"{folder} was begun with another model, other data or other settings; a reward model and a judge count."
            f"{different(path, facts)} Remove it to begin anew, or choose another folder."
        )


def different(begun: Path, facts: Mapping[str, Any] | None) -> str:
    """A sentence with the names of what is not as in a file that `claim` wrote; nothing where it does not say."""
    rows = read_json_lines(begun) if begun.exists() else []
    noted = [cast("Mapping[str, object]", row["facts"]) for row in rows if isinstance(row.get("facts"), Mapping)]
    names = differing_keys(noted[0], facts) if noted and facts is not None else []
    return f" Different: {', '.join(names)}." if names else ""


class Resumable:
    """What one training run keeps in its folder, while its block runs: checkpoint, metrics and, at the end, the model.

    Random draws must come from named streams that the step alone decides; then nothing else needs keeping. Of several
    processes the main one writes; as what it writes is whole, another number of processes may go on from there.
    """

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        *,
        identity: str,
    ) -> None:
        require_path(folder, "folder")
        self.folder = folder
        self.modules = modules
        self.optimizer = optimizer
        self.identity = identity
        """Hash of what the result depends on, to tell another run's checkpoint from this one's.

        What a scorer or a judge is, a method cannot know: who hands it over sees to that, with `claim`.
        """
        self._held_back: list[tuple[int, Mapping[str, Tensor | float]]] = []
        self._log: MetricsLog | None = None
        self._reported_at = -SECONDS_BETWEEN_REPORTS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            try:
                if isinstance(error, PastureError):
                    self._write_logs()  # where weights are NaN, a figure of the step before says so first
            finally:
                self._log.close()

    def resume(self) -> tuple[int, dict[str, float]]:
        """Steps finished and the numbers kept with them, everything else put back as it was; (0, {}) at the start.

        Raises:
            RunFolderError: if the checkpoint is of another model, other data or other settings.
        """
        found = load_checkpoint(self.folder / CHECKPOINT_FOLDER)
        if found is not None:
            if found.facts["identity"] != self.identity:
                raise RunFolderError(
                    f"{self.folder / CHECKPOINT_FOLDER} was left by a training with another model, other data or "
                    "other settings. Remove it to begin anew, or choose another folder."
                )
            for name, module in self.modules.items():
                _put_back(module, under_prefix(f"{name}/", found.tensors))
            restore_optimizer(self.optimizer, under_prefix("optimizer/", found.tensors))
        step = 0 if found is None else found.step
        check_same(step, str(self.folder / CHECKPOINT_FOLDER))
        self._log = MetricsLog(self.folder / METRICS_FILE, after_step=step)
        return step, {} if found is None else found.facts["numbers"]  # type: ignore[return-value]

    def log(self, step: int, figures: Mapping[str, Tensor | float]) -> None:
        """Keep a step's figures for `metrics.jsonl`; tensors are read later, so that no device is waited for.

        Raises:
            TrainingError: sooner or later, if a figure is not finite.
        """
        self._held_back.append((step, figures))
        if len(self._held_back) >= _LOGS_HELD_BACK:
            self._write_logs()

    def report(self, progress: Progress, done: int, total: int, **figures: Tensor | float) -> None:
        """Tell `progress` where training is, unless it was told a moment ago."""
        now = time.monotonic()
        if not is_main():
            return
        if done == total or now - self._reported_at >= SECONDS_BETWEEN_REPORTS:
            self._reported_at = now
            progress(done, total, **{name: float(value) for name, value in figures.items()})

    def checkpoint(self, step: int, **numbers: float) -> None:
        """Make `step` the one to go on from; `numbers` come back from `resume`."""
        self._write_logs()
        tensors = prefixed("optimizer/", optimizer_tensors(self.optimizer))
        for name, module in self.modules.items():
            tensors |= prefixed(f"{name}/", _changing(module))
        facts = {"identity": self.identity, "numbers": numbers}
        folder = self.folder / CHECKPOINT_FOLDER
        on_main(lambda: save_checkpoint(folder, step=step, tensors=tensors, facts=facts))

    def finish(self, save: Callable[[Path], None]) -> None:
        """Write the model with `save`, then drop the checkpoint."""
        self._write_logs()
        save(self.folder / MODEL_FOLDER)
        on_main(self._drop_checkpoint)

    def _drop_checkpoint(self) -> None:
        remove_checkpoint(self.folder / CHECKPOINT_FOLDER)
        if (self.folder / CHECKPOINT_FOLDER).exists():
            (self.folder / CHECKPOINT_FOLDER).rmdir()

    def _write_logs(self) -> None:
        if self._log is None:
            raise ValueError("resume() comes before the first step")
        for step, figures in self._held_back:
            self._log.write(step, **{name: float(value) for name, value in figures.items()})
        self._held_back.clear()


def _changing(module: nn.Module) -> dict[str, Tensor]:
    """What training can change of a module: its state but for frozen weights, which the start brings back."""
    frozen = _frozen(module)
    return {name: tensor for name, tensor in whole_state(module).items() if name not in frozen}


def _frozen(module: nn.Module) -> set[str]:
    return {name for name, one in module.named_parameters(remove_duplicate=False) if not one.requires_grad}


def _put_back(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = set(module.state_dict()) - _frozen(module)
    if expected != set(tensors):
        raise RunFolderError(
            f"the checkpoint holds other weights than this training changes (first: "
            f"{min(expected ^ set(tensors))}). Remove it to begin anew."
        )
    load_whole_state(module, tensors)


def fingerprint(*parts: object, modules: Sequence[nn.Module] = (), folders: Sequence[Path] = ()) -> str:
    """Hash of settings and data given as plain JSON, and of the models that a training begins with, or their folders.

    Of each weight the name, the shape, the type and the first values are taken: enough to tell models apart, and quick.
    Of a folder its files of weights are, so that no model is loaded for it.
    """
    for folder in folders:
        require_path(folder, "start")
    digest = hashlib.sha256(json.dumps(parts).encode())
    for module in modules:
        rest(module)
        for name, parameter in module.named_parameters():
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            head = whole(parameter.detach()).flatten()[:16].float().cpu()
            digest.update(head.numpy().tobytes())
    for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
        digest.update(f"{path.name} {weights_fingerprint(path)}".encode())
    return digest.hexdigest()
