"""What the page of a study says of judgements that failed, of labels that were bought and of who picked."""

import json
from pathlib import Path
from typing import Any

import pytest

from pasture.core.files import write_text
from pasture.core.records import Verdict
from tests.steps.made_study import COUNT, MadeStudy, drawn

SYSTEMS = {"base": 0.2, "sft": 0.4, "ppo": 0.6, "ppo-long": 0.7, "online": 0.5}
LEARN = {
    "sft": {"method": "sft"},
    "ppo": {"method": "ppo"},
    "ppo-long": {"method": "ppo"},
    "online": {"method": "online_dpo", "judge": "annotator"},
}
SELECTION = {"annotator": "pool-4", "label_flip_probability": 0.1}
NOTHING: list[Verdict] = ["unjudged"] * COUNT
WON: list[Verdict] = ["second"] * 9
LOST: list[Verdict] = ["first"] * 18
PARTLY = [*WON, *LOST, *NOTHING[:3]]


def _made(root: Path, change: dict[str, Any]) -> MadeStudy:
    """Two arms of one seed, both with the same systems."""
    arms = {"simulation": {"title": "noisy pool"}, "people": {"judge": "people", "change": change}}
    made = MadeStudy.of(root, {"learn": LEARN, "selection": SELECTION, "study": {"arms": arms, "seeds": [0]}})
    for arm in arms:
        made.data(f"{arm}-0")
        for system, rate in SYSTEMS.items():
            said = {judge: drawn(rate, f"{arm} {system} {judge}") for judge in ("people", "pool")}
            said |= {"pool": PARTLY} if (arm, system) == ("simulation", "online") else {}
            said |= {"pool": NOTHING} if (arm, system) == ("people", "ppo-long") else {}
            made.judge(f"{arm}-0", system, said)
        for system in ("ppo", "ppo-long"):
            made.picked(f"{arm}-0", system)
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = _made(tmp_path_factory.mktemp("study"), {})
    wins: list[float | None] = [1.0, 0.0] * 8
    made.curve("simulation-0", "ppo", "pool", {0: wins, 2: wins, 4: [None] * 16})
    made.add("simulation-0/4-learn/sft", seconds=50.0)
    details = {"judge": {"name": "pool"}, "asked": 40, "unjudged": 0, "saved_steps": 2}
    made.add("simulation-0/4-learn/online", details, seconds=3600.0, usd=2.5)
    made.results()
    return made.page()


def test_a_rate_is_over_what_was_judged_and_what_was_not_is_counted(page: dict[str, Any]) -> None:
    [table] = page["ablations"]
    titles = [column["title"] for column in table["columns"]]
    rows = {(row[0], row[1]): dict(zip(titles, row, strict=True)) for row in table["rows"]}
    rate, count = "Judged by simulated annotators", "Unjudged by simulated annotators"
    assert (rows["noisy pool", "online"][rate], rows["noisy pool", "online"][count]) == (9 / 27, 3.0)
    assert (rows["people", "ppo-long"][rate], rows["people", "ppo-long"][count]) == (None, float(COUNT))
    assert rows["noisy pool", "ppo"][count] == 0.0
    # Of people every verdict is there, so that nothing is said of it.
    assert "Unjudged by people (hidden)" not in titles


def test_a_system_claims_no_answers_of_one_whose_name_begins_alike(page: dict[str, Any]) -> None:
    [table] = page["selection"]
    assert [(row[0], row[1], row[5]) for row in table["rows"]] == [
        ("simulation-0", "ppo", 1.0),
        ("simulation-0", "ppo-long", 1.0),
        ("people-0", "ppo", 1.0),
        ("people-0", "ppo-long", 1.0),
    ]


def test_who_picked_is_told_as_the_recipe_has_it(page: dict[str, Any]) -> None:
    [table] = page["selection"]
    assert table["caption"].startswith("On the validation split, by pool-4, 10% of whose labels are flipped. ")


def test_labels_that_a_training_asked_for_are_counted_and_priced_apart_from_its_time(page: dict[str, Any]) -> None:
    cost = page["cost"]
    # Ten folders of judgements by two judges of thirty answers each, and forty while learning.
    assert cost["simulated"]["label_count"] == 10 * 2 * COUNT + 40
    assert cost["simulated"]["cost_usd"] == 2.5
    # A second for each folder of judgements; the hour of training would be there with people too.
    assert cost["simulated"]["hours"] == pytest.approx(10 / 3600)
    others = 2 + 4 + 4 + 1 + 50 + 3600 + 1  # data, picked steps, their answers, the curve, trainings, the study
    assert cost["study_hours"] == pytest.approx((10 + others) / 3600)
    [step] = [one for one in page["costs"] if one["step"].endswith("4-learn/online")]
    assert (step["seconds"], step["cost_usd"]) == (3600.0, 2.5)


def test_places_that_nobody_judged_are_told_before_the_numbers(page: dict[str, Any]) -> None:
    [said] = page["warnings"]
    assert said == (
        "ppo, trained on noisy pool, judged by pool: nothing was judged at step 4, so 1 of 3 places on its curve are "
        "left out."
    )


def test_what_a_runs_boards_say_against_their_numbers_is_told_once(tmp_path: Path) -> None:
    made = _made(tmp_path, {})
    alike, by_place = "Answers that are the same", "pool went by the place"
    boards = {"people": {"warnings": [alike]}, "pool": {"warnings": [alike, by_place]}}
    write_text(made.add("simulation-0/5-evaluate/board") / "leaderboard.json", json.dumps(boards))
    made.results()
    assert made.page()["warnings"] == [f"simulation-0: {alike}", f"simulation-0: {by_place}"]


def test_a_page_without_noise_labels_and_a_curve_says_who_picks_in_each_arm(tmp_path: Path) -> None:
    change = {"selection": {"annotator": "people"}}
    made = _made(tmp_path, change)
    made.results()
    shown = made.page()
    [table] = shown["selection"]
    picked = {row[0]: row[-1] for row in table["rows"]}
    assert table["columns"][-1]["title"] == "Picked by"
    assert picked == {"simulation-0": "pool-4, 10% of whose labels are flipped", "people-0": "people (hidden)"}
    assert shown["noise"] == []
