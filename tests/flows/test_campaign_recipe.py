"""A recipe that names a campaign of people: the run stops and says what is missing, goes on with labels, skips all."""

import json
from pathlib import Path

import pytest

from pasture.annotate.campaign import acts
from pasture.core.errors import WaitingError
from pasture.core.files import read_records
from pasture.core.records import Comparison, Preference
from pasture.flow import NoScreen, execute, prepare
from pasture.plan import Step
from tests.annotate.people.test_human import act, vote

RECIPE = """
name = "asked"
threads = 1
model.start = "meadow-untrained"
data = {sft = 24, preference = 8, unlabeled = 8, validation = 8, evaluation = 6}
sampling.max_new_tokens = 6
answering.max_new_tokens = 6
learn.sft = {epochs = 1, batch_size = 8}
learn.dpo = {epochs = 1, batch_size = 8}
feedback.annotator = "class"
evaluate.judges = ["JUDGE"]

[campaigns.class]
campaign = "class.campaign"
annotators = "ann,ben,cy"
overlap = 2

[campaigns.jury]
campaign = "jury.campaign"
annotators = "dora"
votes = "majority"
"""
LABELS, DPO = "3-annotate/preference", "4-learn/dpo"


class Watched(NoScreen):
    """Which steps were done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        self.done.append(step.name)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(judge: str = "pool", workers: int = 1) -> list[str]:
    """The steps that a run did."""
    path, screen = Path("asked.toml"), Watched()
    path.write_text(RECIPE.replace("JUDGE", judge))
    execute(prepare(path, out=Path("run")), screen, workers=workers)
    return screen.done


def label(campaign: str, *names: str) -> None:
    """Everything before these people: the comparison's own first is better."""
    for name in names:
        vote(campaign, name)


def test_a_run_waits_for_people_goes_on_and_skips_all_the_third_time() -> None:
    with pytest.raises(WaitingError, match=r"16 of 16 labels are missing\. Pairs left by annotator: ann [56], ben"):
        run()
    label("class.campaign", "ann")
    with pytest.raises(WaitingError, match=r"1[01] of 16 labels are missing.*people serve class\.campaign"):
        run()
    label("class.campaign", "ben", "cy")
    done = run()
    assert LABELS in done
    assert DPO in done
    assert "7-report" in done
    assert run() == []
    said = read_records(Path("run", LABELS, "preferences.jsonl"), Preference)
    pairs = read_records(Path("run/2-generate/preference/comparisons.jsonl"), Comparison)
    assert [each.comparison_id for each in said] == [pair.id for pair in pairs for _ in range(2)]
    assert {each.annotator for each in said} == {"ann", "ben", "cy"}
    assert {each.preferred for each in said} == {"first"}
    told = json.loads(Path("run", LABELS, "step.json").read_text())
    assert told["details"]["judge"]["campaign"] == "class"

    # Who is dropped is dropped from everything that was learned of them, and from nothing else.
    act("class.campaign", lambda state: acts.drop(state, "cy"))
    pending = {step.name for step in prepare(Path("asked.toml"), out=Path("run")).pending()}
    assert {LABELS, DPO, "5-evaluate/board", "7-report"} <= pending
    assert not {"2-generate/preference", "4-learn/sft", "3-annotate/evaluation/sft"} & pending
    with pytest.raises(WaitingError, match="labels are missing"):
        run()


@pytest.mark.parametrize("workers", [1, 2])
def test_people_are_asked_about_all_systems_at_once(workers: int) -> None:
    with pytest.raises(WaitingError) as first:
        run(judge="jury", workers=workers)
    label("class.campaign", "ann", "ben", "cy")
    label("jury.campaign", "dora")
    with pytest.raises(WaitingError) as second:
        run(judge="jury", workers=workers)
    label("jury.campaign", "dora")
    run(judge="jury", workers=workers)
    judged = sorted(path.parent.name for path in Path("run/3-annotate/evaluation").glob("*/jury.jsonl"))
    assert {"base", "sft", "dpo"} == set(judged)
    # What needs no preferences is judged while these are waited for; what was learned from them, afterwards.
    assert [each.place for each in first.value.missing].count("jury.campaign") == 2
    assert [each.place for each in second.value.missing] == ["jury.campaign"]
    for system in judged:
        said = read_records(Path(f"run/3-annotate/evaluation/{system}/jury.jsonl"), Preference)
        assert len({each.comparison_id for each in said}) == len(said) == 6
        assert [(each.preferred, each.evidence) for each in said] == [("first", {"votes": {"dora": "first"}})] * 6
    assert run(judge="jury") == []
