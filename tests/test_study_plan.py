"""A study is one plan: what its runs share is done once, and a change reruns what it touches."""

from collections.abc import Mapping
from typing import Any

import pytest

from pasture.core.errors import RecipeError
from pasture.plan import Plan, build_study, expanded, outline_study
from pasture.recipe import parse
from tests.test_plan import LEARN

STUDY: Mapping[str, Any] = {
    "seeds": [0, 1],
    "arms": {
        "simulation": {},
        "people": {"judge": "people", "change": {"feedback": {"annotator": "people"}}},
        "quiet": {"systems": ["ppo"], "change": {"feedback": {"label_flip_probability": 0.0}}},
    },
}


def planned(study: Mapping[str, Any] = STUDY, **changes: Any) -> Plan:
    """The plan of a small study with tables of its recipe replaced."""
    learn = {name: {**table, **changes.get("learn", {}).get(name, {})} for name, table in LEARN.items()}
    recipe = parse({"name": "tiny", **changes, "learn": learn, "study": study}, "study.toml")
    return build_study(recipe, expanded(recipe))


def steps_of(plan: Plan, run: str) -> set[str]:
    return {place.removeprefix(f"runs/{run}/") for place in plan.views if place.startswith(f"runs/{run}/")}


def where(plan: Plan, run: str, step: str) -> str:
    return plan.views[f"runs/{run}/{step}"]


def test_arms_share_all_that_comes_before_their_labels() -> None:
    plan = planned()
    for step in ("1-data", "4-learn/sft", "2-generate/preference", "3-annotate/evaluation/sft"):
        assert where(plan, "simulation-0", step) == where(plan, "people-0", step) == where(plan, "quiet-0", step)
        assert where(plan, "simulation-0", step) != where(plan, "simulation-1", step)
    for step in ("3-annotate/preference", "4-learn/reward_model", "4-learn/ppo", "5-evaluate/board"):
        assert len({where(plan, f"{arm}-0", step) for arm in ("simulation", "people", "quiet")}) == 3


def test_an_arm_makes_the_systems_that_it_names() -> None:
    assert "4-learn/best_of_n" in steps_of(planned(), "simulation-0")
    assert {step for step in steps_of(planned(), "quiet-0") if "best_of_n" in step} == set()


def test_every_step_is_listed_once_after_what_it_needs() -> None:
    plan = planned()
    assert len(set(plan.keys.values())) == len(plan.steps)
    seen: set[str] = set()
    for step in plan.steps:
        assert set(step.needs.values()) <= seen
        seen.add(step.name)


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        ({"learn": {"ppo": {"steps": 9}}}, "ppo"),
        ({"learn": {"best_of_n": {"n": 9}}}, "best_of_n"),
    ],
)
def test_a_method_s_setting_reruns_its_own_branch_in_every_run_and_nothing_else(
    changes: dict[str, Any], touched: str
) -> None:
    before, after = planned(), planned(**changes)
    for run in ("simulation-0", "people-0", "simulation-1"):
        moved = {step for step in steps_of(after, run) if where(before, run, step) != where(after, run, step)}
        assert moved == {step for step in steps_of(after, run) if step.endswith(f"/{touched}")} | {"5-evaluate/board"}


def test_a_setting_of_one_arm_leaves_the_other_arms_alone() -> None:
    change = {"feedback": {"label_flip_probability": 0.1}}
    arms = {**STUDY["arms"], "quiet": {"systems": ["ppo"], "change": change}}
    before, after = planned(), planned({**STUDY, "arms": arms})
    for run in ("simulation-0", "people-0"):
        assert {step: where(before, run, step) for step in steps_of(before, run)} == {
            step: where(after, run, step) for step in steps_of(after, run)
        }
    assert where(before, "quiet-0", "4-learn/ppo") != where(after, "quiet-0", "4-learn/ppo")


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({**STUDY, "people": "folk"}, r"study.people = 'folk', but there is no such arm"),
        ({**STUDY, "arms": {**STUDY["arms"], "x": {"systems": ["pop"]}}}, r"systems names 'pop'"),
        (
            {**STUDY, "arms": {**STUDY["arms"], "x": {"judge": "greedy"}}},
            r"judge = 'greedy' is none of evaluate.judges",
        ),
        ({**STUDY, "arms": {**STUDY["arms"], "X y": {}}}, r"expected a name of small letters"),
        ({**STUDY, "arms": {**STUDY["arms"], "x": {"change": {"feedbak": {}}}}}, r"arm 'x': .*Did you mean 'feedback'"),
    ],
)
def test_a_study_that_cannot_be_is_refused(study: Mapping[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        planned(study)


@pytest.mark.parametrize("key", ["seed", "threads", "title", "cards", "study", "processes"])
def test_an_arm_s_own_value_of_what_all_runs_share_is_refused(key: str) -> None:
    arms = {**STUDY["arms"], "x": {"change": {key: 7}}}
    with pytest.raises(RecipeError, match=rf"\[study.arms.x\]: change.{key} would do nothing"):
        planned({**STUDY, "arms": arms})


def test_baselines_stand_in_both_worlds_and_in_no_arm_of_chosen_systems() -> None:
    plan = planned(baselines={"careful": {"writer": "careful"}})
    step = "3-annotate/evaluation/careful"
    assert where(plan, "simulation-0", step) == where(plan, "people-0", step) != where(plan, "people-1", step)
    assert step not in steps_of(plan, "quiet-0")


ARMS: Mapping[str, Any] = {"simulation": {}, "people": {"judge": "people"}}
WRITERS: Mapping[str, Any] = {"careful": {"writer": "careful"}, "hasty": {"writer": "hasty"}}
JUDGED_ON_THE_WAY: Mapping[str, Any] = {
    "sft": {"method": "sft", "epochs": 2},
    "online_dpo": {"method": "online_dpo", "judge": "annotator", "steps": 4, "rollout_batch_size": 8, "save_every": 2},
}


@pytest.mark.parametrize("learn", [JUDGED_ON_THE_WAY, {"sft": JUDGED_ON_THE_WAY["sft"]}, {}])
def test_a_study_in_which_nobody_labels_pairs_has_no_noise_to_look_into(learn: Mapping[str, Any]) -> None:
    recipe = parse({"name": "tiny", "learn": learn, "baselines": WRITERS, "study": {"arms": ARMS}}, "study.toml")
    plan = build_study(recipe, expanded(recipe))
    assert not {"3-annotate/preference", "6-validate/annotators"} & steps_of(plan, "simulation-0")
    steps = {step.name: step for step in plan.steps}
    assert "6-validate/study" in steps
    assert "6-validate/noise" not in steps
    assert "noise" not in steps["7-report"].needs


def test_noise_is_looked_into_where_the_run_compares_the_meadow_s_annotators() -> None:
    steps = {step.name: step for step in planned().steps}
    settings = steps[where(planned(), "simulation-0", "6-validate/annotators")].settings
    assert steps["6-validate/noise"].settings["identities"] == settings["identities"]
    # Preferences from a file are of instructions that the meadow's annotators do not know.
    learn = {name: dict(table) for name, table in LEARN.items()}
    table = {"name": "tiny", "learn": learn, "feedback": {"file": "preferences.jsonl"}, "study": {"arms": ARMS}}
    recipe = parse(table, "study.toml")
    plan = outline_study(recipe, expanded(recipe)).plan
    assert "6-validate/noise" not in {step.name for step in plan.steps}
