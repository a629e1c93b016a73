"""Trackers of a recipe: beside the steps, never in them; no step is another one for being watched."""

from dataclasses import replace
from pathlib import Path

import pytest

from pasture import flow
from pasture.core.errors import DependencyError, RecipeError
from tests.flows.tiny import LOOP, REPOSITORY, TINY
from tests.machine.events import scalars

TRACKED = 'trackers=["tensorboard"]'


def prepared(out: Path, *overrides: str) -> flow.Run:
    """The tiny loop, up to its SFT model."""
    run = flow.prepare(LOOP, [*TINY, *overrides], out)
    last = [step.name for step in run.plan.steps].index("4-learn/sft")
    return replace(run, plan=replace(run.plan, steps=run.plan.steps[: last + 1]))


def results(out: Path) -> dict[str, bytes]:
    """The files of all steps, but for their records, which hold times."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.glob("[1-7]-*/**/*"))
        if path.is_file() and path.name != "step.json"
    }


@pytest.mark.parametrize("recipe", ["loop", "study", "methods"])
def test_no_step_has_another_key_for_being_tracked(tmp_path: Path, recipe: str) -> None:
    path = REPOSITORY / "recipes" / "meadow" / f"{recipe}.toml"
    plain, tracked = (flow.prepare(path, overrides, tmp_path) for overrides in ((), (TRACKED,)))
    assert tracked.recipe.trackers == ("tensorboard",)
    assert tracked.plan.keys == plain.plan.keys


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a run that is tracked and of one that is not."""
    plain, tracked = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("tracked")
    flow.execute(prepared(plain), flow.NoScreen())
    flow.execute(prepared(tracked, TRACKED), flow.NoScreen())
    return plain, tracked


def test_a_tracked_run_leaves_the_same_steps(done: tuple[Path, Path]) -> None:
    plain, tracked = map(results, done)
    assert "4-learn/sft/metrics.jsonl" in plain
    assert tracked == plain
    shown = scalars(done[1] / "trackers" / "tensorboard" / "4-learn" / "sft")
    assert [step for step, _ in shown["loss"]] == list(range(1, 4))  # 40 of 48 demonstrations, 16 a step
    assert not (done[0] / "trackers").exists()


def test_a_tracker_may_come_and_go_and_nothing_is_done_again(done: tuple[Path, Path]) -> None:
    plain, tracked = done
    for out, overrides in ((plain, [TRACKED]), (tracked, [])):
        run = prepared(out, *overrides)
        assert run.pending() == []
        flow.execute(run, flow.NoScreen())
        assert ("tensorboard" in (out / "recipe.toml").read_text()) == bool(overrides)


def test_a_tracker_that_is_not_there_is_an_error_before_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"trackers\.0.*tensorbord"):
        prepared(tmp_path / "run", 'trackers=["tensorbord"]')
    run = prepared(tmp_path / "run", TRACKED)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'pasture\[tensorboard\]'"):
        flow.execute(run, flow.NoScreen())
    assert not (tmp_path / "run").exists()
