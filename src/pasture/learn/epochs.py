"""Which rows each step learns from and how fast, where the same rows are gone through several times."""

from dataclasses import dataclass

from pasture.core.seeds import stream
from pasture.learn.resume import keeps_copy
from pasture.learn.update import cosine_factor


@dataclass(frozen=True)
class Epochs:
    """Every epoch takes all rows once, in an order of its own; its last batch may be smaller.

    Steps count from 0. All draws are decided by seed, name and step, so that nothing needs keeping across a kill.
    """

    row_count: int
    batch_size: int
    epochs: int
    seed: int
    name: str
    """Of the random stream."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-self.row_count // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Batches in all."""
        return self.steps_per_epoch * self.epochs

    def rows(self, step: int) -> list[int]:
        """Numbers of the rows in a step's batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = stream(self.seed, self.name, epoch).permutation(self.row_count)
        return [int(row) for row in order[place * self.batch_size : (place + 1) * self.batch_size]]

    def ends_epoch(self, step: int) -> bool:
        """Whether all rows have been seen equally often after this step."""
        return (step + 1) % self.steps_per_epoch == 0

    def saves(self, step: int, every: int) -> bool:
        """Whether a copy of the policy is kept after this step: each `every` steps, and after the last."""
        return keeps_copy(step, every, self.total_steps)

    def cosine_factor(self, step: int, warmup_fraction: float) -> float:
        """Share of the highest learning rate at this step."""
        return cosine_factor(step, self.total_steps, round(warmup_fraction * self.total_steps))
