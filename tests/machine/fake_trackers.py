"""Stand-ins for the modules wandb and trackio, as far as accelerate calls them; they keep what they are told."""

import types
from pathlib import Path
from typing import Any


class Run:
    """A run on a service: what was told before comes back where it is resumed."""

    def __init__(self, service: "Service", key: str, settings: dict[str, Any]) -> None:
        self.service, self.key, self.settings = service, key, settings
        self.finished = False

        self.offline = service.offline
        self.rows: list[tuple[int, dict[str, float]]] = [] if self.offline else service.rows.setdefault(key, [])
        if self.offline:
            (Path(settings["dir"]) / "wandb" / f"offline-run-{len(service.runs)}-{key}").mkdir(parents=True)

    @property
    def step(self) -> int:
        """wandb's word for the next step."""
        return self.rows[-1][0] + 1 if self.rows else 0

    @property
    def _next_step(self) -> int:
        """trackio's."""
        if not self.service.says_its_step:
            raise AttributeError("_next_step")
        return self.step

    def log(self, values: dict[str, float], step: int) -> None:
        if self.service.fails_from is not None and step >= self.service.fails_from:
            raise ConnectionError("the service has gone away, key sk-very-secret-key")
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


class Service(types.ModuleType):
    """`wandb` or `trackio`."""

    class Error(Exception):
        """What wandb's errors are."""

    def __init__(self, name: str, key: str) -> None:
        super().__init__(name)
        self.key = key
        """The argument of init that tells runs apart."""
        self.rows: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.runs: list[Run] = []
        self.offline = False
        self.says_its_step = True
        self.fails_from: int | None = None
        self.logged_in = True

    def init(self, **settings: Any) -> Run:
        self.runs.append(Run(self, settings[self.key], settings))
        return self.runs[-1]

    def login(self) -> bool:
        if not self.logged_in:
            raise self.Error("No API key configured.")
        return True


def wandb() -> Service:
    return Service("wandb", "id")


def trackio() -> Service:
    return Service("trackio", "name")
