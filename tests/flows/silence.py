"""A screen that shows nothing."""

from pasture.plan import Step


class Silence:
    """What `pasture.flow.execute` reports to in tests."""

    def skipped(self, step: Step) -> None:
        """Nothing."""

    def started(self, step: Step) -> None:
        """Nothing."""

    def advanced(self, step: Step, done: int, total: int, **figures: float) -> None:
        """Nothing."""

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        """Nothing."""
