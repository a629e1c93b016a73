"""`max_usd` of a pool is for a whole run: its steps, and its tries after a kill; and no step leaves its pool open."""

import signal
from pathlib import Path
from typing import Any

import pytest

from pasture.annotate import stored
from pasture.core.errors import BudgetError
from tests.flows.spending import JUDGE, LABEL, PricedEngine, do, make_inputs
from tests.flows.tiny import run


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[PricedEngine]:
    """Every engine that is opened."""
    opened: list[PricedEngine] = []

    def open_engine(kind: str, settings: Any, budget: Any) -> PricedEngine:
        opened.append(PricedEngine(budget))
        return opened[-1]

    monkeypatch.setattr(stored, "open_engine", open_engine)
    return opened


def test_two_steps_stop_at_the_limit_of_their_pool_together(tmp_path: Path, engines: list[PricedEngine]) -> None:
    make_inputs(tmp_path)
    do(tmp_path, LABEL, max_usd=10.0)
    with pytest.raises(BudgetError, match=r"this run has spent \$10\.0000 of pool 'judges'"):
        do(tmp_path, JUDGE, max_usd=10.0)
    # By hand: six calls of each step; the tenth call is the last that fits.
    assert [len(engine.asked) for engine in engines] == [6, 4]
    with pytest.raises(BudgetError):
        do(tmp_path, JUDGE, max_usd=10.0)
    assert len(engines[2].asked) == 0
    do(tmp_path, JUDGE, max_usd=12.0)
    # What was stored costs nothing: two calls were missing.
    assert len(engines[3].asked) == 2
    assert [engine.closed for engine in engines] == [True] * 4


def test_a_run_that_was_killed_goes_on_from_what_was_spent(tmp_path: Path, engines: list[PricedEngine]) -> None:
    make_inputs(tmp_path)
    died = run(str(tmp_path), "4", program="tests.flows.spending")
    assert died.returncode == -signal.SIGKILL, died.stderr
    do(tmp_path, LABEL, max_usd=10.0)
    # Three answers of the killed process are stored and paid, the fourth call died before its bill came.
    assert len(engines[0].asked) == 3
    with pytest.raises(BudgetError, match=r"this run has spent \$10\.0000"):
        do(tmp_path, JUDGE, max_usd=10.0)
    assert len(engines[1].asked) == 4
