"""A plan's keys change where the work changes and nowhere else."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import DataError, ModelError, RecipeError
from pasture.plan import Plan, Step, assemble, build, folder_fingerprint
from pasture.recipe import parse

# Settings as `pasture.flow.prepare` completes them; written here so that planning is tested without torch.
LEARN: Mapping[str, Mapping[str, Any]] = {
    "sft": {"method": "sft", "epochs": 2},
    "reward_model": {"method": "reward_model", "epochs": 1},
    "best_of_n": {"method": "best_of_n", "n": 4},
    "ppo": {"method": "ppo", "steps": 4, "rollout_batch_size": 8, "save_every": 2},
}


def planned(**changes: Any) -> Plan:
    """The plan of a small recipe with sections replaced; `learn` is merged table by table."""
    learn = {name: {**table, **changes.get("learn", {}).get(name, {})} for name, table in LEARN.items()}
    extra = {name: table for name, table in changes.pop("learn", {}).items() if name not in LEARN}
    return build(parse({"name": "tiny", **changes, "learn": {**learn, **extra}}, "loop.toml"))


def changed(before: Plan, after: Plan) -> set[str]:
    """Names of the steps whose key is new."""
    return {name for name, key in after.keys.items() if before.keys.get(name) != key}


EVERY_RUN = {"5-evaluate/board", "7-report"}
PPO = {
    "4-learn/ppo",
    "2-generate/validation/ppo",
    "3-annotate/validation/ppo",
    "5-evaluate/selection/ppo",
    "2-generate/evaluation/ppo",
    "3-annotate/evaluation/ppo",
}
BEST_OF_N = {"2-generate/evaluation/best_of_n", "4-learn/best_of_n", "3-annotate/evaluation/best_of_n"}
FEEDBACK = {"2-generate/preference", "3-annotate/preference", "4-learn/reward_model"}
SFT = {"4-learn/sft", "2-generate/evaluation/sft", "3-annotate/evaluation/sft"}
BASE = {"2-generate/evaluation/base", "3-annotate/evaluation/base"}
ANNOTATORS = {"6-validate/annotators"}
EVERYTHING = {"1-data"} | BASE | SFT | FEEDBACK | BEST_OF_N | PPO | ANNOTATORS | EVERY_RUN
ANSWERS = {f"2-generate/evaluation/{system}" for system in ("base", "sft", "ppo")}
JUDGED = {f"3-annotate/evaluation/{system}" for system in ("base", "sft", "ppo", "best_of_n")}


def test_the_loop_takes_these_steps() -> None:
    assert {step.name for step in planned().steps} == EVERYTHING


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"learn": {"ppo": {"steps": 8}}}, PPO | EVERY_RUN),
        ({"learn": {"best_of_n": {"n": 8}}}, BEST_OF_N | EVERY_RUN),
        ({"learn": {"reward_model": {"epochs": 2}}}, (FEEDBACK & {"4-learn/reward_model"}) | BEST_OF_N
            - {"2-generate/evaluation/best_of_n"} | PPO | EVERY_RUN),
        ({"learn": {"sft": {"epochs": 3}}}, EVERYTHING - {"1-data"} - BASE),
        ({"feedback": {"label_flip_probability": 0.0}}, FEEDBACK - {"2-generate/preference"}
            | BEST_OF_N - {"2-generate/evaluation/best_of_n"} | PPO | ANNOTATORS | EVERY_RUN),
        ({"sampling": {"temperature": 0.9}}, FEEDBACK | BEST_OF_N | PPO | ANNOTATORS | EVERY_RUN),
        ({"answering": {"temperature": 0.9}}, ANSWERS | (JUDGED - {"3-annotate/evaluation/best_of_n"})
            | PPO - {"4-learn/ppo"} | EVERY_RUN),
        ({"selection": {"label_flip_probability": 0.1}}, {"3-annotate/validation/ppo", "5-evaluate/selection/ppo",
            "2-generate/evaluation/ppo", "3-annotate/evaluation/ppo"} | EVERY_RUN),
        ({"evaluate": {"judges": ["people"]}}, JUDGED | EVERY_RUN),
        ({"title": "Another headline"}, {"7-report"}),
        ({"data": {"validation": 7}}, EVERYTHING),
        ({"model": {"template": "alpaca"}}, EVERYTHING - {"1-data"}),
        ({"model": {"weights": {"lora": {"rank": 4}}}}, {"7-report"}),  # each method's own table of weights decides
        ({"data": {"leave_out_long": True}}, EVERYTHING - {"1-data"} - BASE),
        ({"sampling": {"batch_tokens": 100}, "answering": {"batch_tokens": 200}}, {"7-report"}),
        ({"seed": 1}, EVERYTHING),
        ({}, set()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_change_touches_its_own_branch_and_what_builds_on_it(change: dict[str, Any], expected: set[str]) -> None:
    assert changed(planned(), planned(**change)) == expected


def test_where_a_server_draws_answers_redoes_nothing_but_the_page_that_shows_the_recipe() -> None:
    def with_rollouts(**rollouts: Any) -> Plan:
        return planned(learn={"ppo": {"rollouts": {"engine": "vllm", "url": "http://a:1", **rollouts}}})

    assert changed(with_rollouts(), with_rollouts(url="http://b:2", timeout_seconds=5.0)) == {"7-report"}
    assert changed(planned(), with_rollouts()) == PPO | EVERY_RUN
    [step] = [step for step in with_rollouts(url="http://b:2").steps if step.name == "4-learn/ppo"]
    assert step.settings["config"]["rollouts"]["url"] == "http://b:2"


def test_how_much_is_computed_at_once_redoes_nothing_but_that_page() -> None:
    def with_weights(*, dtype: str = "float32", again: bool = False, **more: Any) -> Plan:
        return planned(learn={"ppo": {"weights": {"dtype": dtype, "gradient_checkpointing": again}, **more}})

    assert changed(with_weights(), with_weights(again=True, micro_batch_tokens=64, checkpoint_steps=1)) == {"7-report"}
    assert changed(with_weights(), with_weights(dtype="bfloat16")) == PPO | EVERY_RUN


def test_a_second_system_of_the_same_method_leaves_the_first_alone() -> None:
    before, after = planned(), planned(learn={"ppo-long": {**LEARN["ppo"], "steps": 40}})
    second = {name.replace("/ppo", "/ppo-long") for name in PPO}
    assert changed(before, after) == second | EVERY_RUN
    by_name = {step.name: step for step in after.steps}
    assert by_name["4-learn/ppo-long"].settings["method"] == "ppo"


def judged(**changes: Any) -> Plan:
    """The plan of a recipe in which online DPO learns from the annotator that the recipe names, and nothing else."""
    method = {"method": "online_dpo", "judge": "annotator", "steps": 4, "rollout_batch_size": 8, "save_every": 2}
    learn = {"sft": LEARN["sft"], "online_dpo": method}
    return build(parse({"name": "tiny", "learn": learn, **changes}, "loop.toml"))


def test_online_dpo_on_the_annotator_needs_neither_labels_nor_a_reward_model_and_hashes_who_judges() -> None:
    plan = judged()
    [step] = [step for step in plan.steps if step.name == "4-learn/online_dpo"]
    assert step.work == "learn.from_judgements"
    assert set(step.needs.values()) == {"1-data", "4-learn/sft"}
    assert not FEEDBACK & {step.name for step in plan.steps}
    for feedback in ({"annotator": "people"}, {"label_flip_probability": 0.1}):
        assert "4-learn/online_dpo" in changed(plan, judged(feedback=feedback))


def test_an_annotator_cannot_be_asked_where_labels_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text("")
    with pytest.raises(RecipeError, match=r"\[learn.online_dpo\] judge = \"annotator\" asks feedback.annotator"):
        judged(feedback={"file": str(tmp_path / "labels.jsonl")})


@pytest.mark.parametrize(("start", "needs"), [("meadow-base", set()), ("meadow-untrained", {"4-learn/start"})])
def test_expert_iteration_can_begin_again_with_the_model_before_sft(start: str, needs: set[str]) -> None:
    table = {"method": "expert_iteration", "n": 2, "epochs": 1, "fine_tune": "base"}
    plan = planned(learn={"expert_iteration": table}, model={"start": start})
    [step] = [step for step in plan.steps if step.name == "4-learn/expert_iteration"]
    assert step.settings["start"] == start
    assert set(step.needs.values()) == {"1-data", "4-learn/sft", "4-learn/reward_model", *needs}


def test_each_step_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for step in planned().steps:
        assert set(step.needs.values()) <= seen, step.name
        seen.add(step.name)


def test_no_two_steps_share_a_key_or_lie_within_each_other() -> None:
    plan = planned()
    assert len(set(plan.keys.values())) == len(plan.steps) == len(plan.keys)
    for outer in plan.keys:
        assert not [inner for inner in plan.keys if inner.startswith(f"{outer}/") or inner == f"{outer}.partial"]


@pytest.mark.parametrize("hash_seed", ["0", "7"])
def test_the_same_recipe_has_the_same_keys_in_another_process(hash_seed: str) -> None:
    program = "import json; from tests.test_plan import planned; print(json.dumps(dict(planned(seed=5).keys)))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    repository = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=repository, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == dict(planned(seed=5).keys)


def test_the_content_of_a_model_folder_enters_the_keys_and_its_place_among_files_does_not_fool_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "model.safetensors").write_bytes(b"weights")
    change = {"model": {"start": str(folder)}}
    before = planned(**change)
    assert changed(before, planned(**change)) == set()
    (folder / "inner" / "model.safetensors").write_bytes(b"weighty")
    after = planned(**change)
    assert changed(before, after) == EVERYTHING - {"1-data"}
    (folder / "inner" / "model.safetensors").rename(folder / "model.safetensors")
    assert changed(after, planned(**change)) == EVERYTHING - {"1-data"}


def test_a_fingerprint_of_a_folder_sees_every_name_and_byte(tmp_path: Path) -> None:
    seen = {folder_fingerprint(tmp_path)}
    for name, content in (("a", "1"), ("a", "2"), ("b", "2"), ("c/a", "2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        seen.add(folder_fingerprint(tmp_path))
    (tmp_path / "a").unlink()
    seen.add(folder_fingerprint(tmp_path))
    assert len(seen) == 6


def test_a_model_folder_that_is_not_there_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none' is no folder"):
        planned(model={"start": str(tmp_path / "none")})


def test_an_untrained_model_is_made_once_and_everything_begins_with_it() -> None:
    plan = planned(model={"start": "meadow-untrained"})
    by_name = {step.name: step for step in plan.steps}
    assert by_name["4-learn/sft"].needs["model"] == "4-learn/start"
    assert by_name["2-generate/evaluation/base"].needs["model"] == "4-learn/start"


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        ({"ppo": LEARN["ppo"]}, r"\[learn\.ppo\] builds on \[learn\.reward_model\], which the recipe lacks"),
        ({"reward_model": LEARN["reward_model"]}, r"\[learn\.reward_model\] builds on \[learn\.sft\]"),
        ({**LEARN, "../../up": LEARN["ppo"]}, "a system cannot be called '../../up'"),
        ({**LEARN, "a/b": LEARN["ppo"]}, "a system cannot be called 'a/b'"),
        ({**LEARN, "x.partial": LEARN["ppo"]}, r"a system cannot be called 'x\.partial'"),
        ({**LEARN, "": LEARN["ppo"]}, "a system cannot be called ''"),
        ({**LEARN, "base": LEARN["ppo"]}, "a system cannot be called 'base'.* none of base, start"),
        ({**LEARN, "start": LEARN["ppo"]}, "a system cannot be called 'start'"),
        ({**LEARN, "drift": LEARN["ppo"]}, "a system cannot be called 'drift'"),
        ({**LEARN, "sft": LEARN["ppo"]}, r"\[learn\.sft\] says method = 'ppo'"),
        ({**LEARN, "more": LEARN["sft"]}, r"\[learn\.more\] says method = 'sft'"),
    ],
)  # fmt: skip
def test_systems_that_cannot_be_built_are_refused(learn: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        build(parse({"name": "tiny", "learn": learn}, "loop.toml"))


def test_no_system_may_take_a_name_that_the_run_needs_for_folders_of_its_own() -> None:
    # Rooms and their folders as a plan with everything in it has them, the systems' own left out.
    plan = planned(evaluate={"curves": ["ppo", "best_of_n"]}, data={"live": 5}, model={"start": "meadow-untrained"})
    inside = {place.split("/")[1] for place in plan.keys if place.startswith("4-learn/")} - {*LEARN}
    assert inside == {"start", "live", "curve", "drift"}
    for name in inside:
        with pytest.raises(RecipeError, match=f"a system cannot be called '{name}'"):
            planned(learn={name: LEARN["ppo"]})


def test_a_recipe_that_learns_nothing_still_compares_the_base_model() -> None:
    plan = build(parse({"name": "tiny"}, "loop.toml"))
    assert {step.name for step in plan.steps} == {"1-data"} | BASE | EVERY_RUN


def test_keys_tell_apart_everything_that_a_result_depends_on() -> None:
    before = Step("a", "data.make", {"n": 1})
    steps = [
        Step("b", "data.make", {"n": 2}),
        Step("c", "data.other", {"n": 1}),
        Step("d", "data.make", {"n": 1}, {"in": "a"}),
        Step("e", "data.make", {"n": 1}, {"out": "a"}),
        Step("f", "data.make", {"n": 1}, {"in": "b"}),
    ]
    keys = assemble([before, *steps]).keys
    assert len(set(keys.values())) == 6
    # A step's name and the size of its work change no result.
    again = assemble([Step("other-name", "data.make", {"n": 1}, units=99)]).keys
    assert again["other-name"] == keys["a"]


def test_two_steps_of_one_name_are_a_defect_of_the_plan() -> None:
    with pytest.raises(ValueError, match="two steps are called 'a'"):
        assemble([Step("a", "data.make", {}), Step("a", "data.other", {})])


def test_a_method_that_learns_from_labels_needs_no_reward_model() -> None:
    learn = {"sft": LEARN["sft"], "dpo": {"method": "dpo", "epochs": 1, "save_every": 5}}
    plan = build(parse({"name": "tiny", "learn": learn}, "loop.toml"))
    steps = {step.name: step for step in plan.steps}
    assert "4-learn/reward_model" not in steps
    assert dict(steps["4-learn/dpo"].needs) == {
        "pairs": "2-generate/preference",
        "labels": "3-annotate/preference",
        "model": "4-learn/sft",
    }
    assert "5-evaluate/selection/dpo" in steps


def test_a_checkpoint_s_win_rate_names_who_judged_it() -> None:
    steps = {step.name: step for step in planned(selection={"annotator": "people"}).steps}
    assert steps["5-evaluate/selection/ppo"].settings["judge"] == "people"


def test_a_method_that_saves_no_steps_answers_with_its_last_model() -> None:
    learn = {"sft": LEARN["sft"], "feedme": {"method": "feedme", "epochs": 1}}
    steps = {step.name: step for step in build(parse({"name": "tiny", "learn": learn}, "loop.toml")).steps}
    assert dict(steps["2-generate/evaluation/feedme"].needs) == {"data": "1-data", "checkpoints": "4-learn/feedme"}


def test_live_instructions_are_answered_and_judged_by_themselves() -> None:
    plan = planned(data={"live": 10})
    new = {name for name in plan.keys if name not in planned().keys}
    assert new == {f"{room}/live/{system}" for room in ("2-generate", "3-annotate") for system in SYSTEMS} | {
        "4-learn/live/best_of_n",
        "5-evaluate/live",
    }


SYSTEMS = ("base", "sft", "best_of_n", "ppo")


def test_a_curve_is_drawn_on_the_validation_split_and_touches_nothing_else() -> None:
    before, after = planned(), planned(evaluate={"curves": ["ppo", "best_of_n"]})
    curves = {f"{room}/curve/{system}" for room in ("3-annotate", "4-learn", "5-evaluate") for system in SYSTEMS[2:]}
    drift = "4-learn/drift/ppo"  # of best-of-n the divergence is known
    assert changed(before, after) == curves | {drift, "2-generate/validation/best_of_n", "7-report"}
    steps = {step.name: step for step in after.steps}
    assert steps["2-generate/validation/best_of_n"].settings["n"] == 64


def test_a_curve_of_a_system_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"evaluate.curves names 'pp', but there is no \[learn.pp\]"):
        planned(evaluate={"curves": ["pp"]})


@pytest.mark.parametrize("changes", [{"feedback": {"annotator": "dice"}}, {"evaluate": {"judges": ["people", "dice"]}}])
def test_an_annotator_whom_nobody_knows_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"no annotator is called 'dice'. Expected one of people, greedy, pool,"):
        planned(**changes)


POOLS = {"judges": {"pool": "greedy", "models": ["small-model"]}}


def test_a_pool_of_language_models_stands_wherever_the_meadow_s_does() -> None:
    before = planned(pools=POOLS)
    assert changed(planned(), before) == {"7-report"}  # described, and not asked
    labels = {step.name: step for step in planned(pools=POOLS, feedback={"annotator": "judges"}).steps}
    assert labels["3-annotate/preference"].settings["own"]["pools"]["judges"]["models"] == ["small-model"]
    other = {"judges": {**POOLS["judges"], "models": ["other-model"]}}
    asked = {"feedback": {"annotator": "judges"}}
    assert "3-annotate/preference" in changed(planned(pools=POOLS, **asked), planned(pools=other, **asked))


def test_what_a_pool_may_cost_and_where_it_is_asked_redoes_nothing_but_that_page() -> None:
    asked = {"feedback": {"annotator": "judges"}, "evaluate": {"judges": ["judges"]}}

    def with_pool(**more: Any) -> Plan:
        return planned(pools={"judges": {**POOLS["judges"], **more}}, **asked)

    there = {"endpoints": [{"base_url": "http://there:8000/v1"}], "in_flight": 3}
    elsewhere = with_pool(max_usd=300.0, store="others.sqlite", engine_settings=there)
    assert changed(with_pool(max_usd=5.0), elsewhere) == {"7-report"}
    assert {"3-annotate/preference", "4-learn/ppo"} <= changed(with_pool(), with_pool(retry_unjudged=True))


def test_a_curve_of_what_is_kept_by_nobody_is_refused() -> None:
    learn = {**LEARN, "feedme": {"method": "feedme", "epochs": 1}}
    recipe = {"name": "tiny", "learn": learn, "evaluate": {"curves": ["feedme"]}}
    with pytest.raises(RecipeError, match="curves names 'feedme', which keeps nothing on its way"):
        build(parse(recipe, "loop.toml"))


def test_a_curve_goes_along_the_scores_that_a_method_was_trained_on() -> None:
    own = {"scorer": "score.py", "scorer_code": "abc"}
    plan = planned(learn={"best_of_n": own}, evaluate={"curves": ["best_of_n"]})
    [scored] = [step for step in plan.steps if step.name == "4-learn/curve/best_of_n"]
    assert {key: scored.settings[key] for key in own} == own
    assert "scorer" not in scored.needs


def test_an_ensemble_takes_the_reward_model_s_place() -> None:
    ensemble = {**LEARN, "reward_model": {"method": "reward_model_ensemble", "members": 2, "epochs": 1}}
    plan = build(parse({"name": "tiny", "learn": ensemble}, "loop.toml"))
    steps = {step.name: step for step in plan.steps}
    assert steps["4-learn/reward_model"].settings["method"] == "reward_model_ensemble"
    assert set(steps) == EVERYTHING
    with pytest.raises(RecipeError, match="stand in the table of their stage"):
        build(parse({"name": "tiny", "learn": {**LEARN, "many": ensemble["reward_model"]}}, "loop.toml"))


def test_baselines_answer_every_split_that_is_judged_and_learn_nothing() -> None:
    with_them = planned(data={"live": 20}, baselines={"careful": {"writer": "careful"}})
    without = planned(data={"live": 20})
    added = {f"{room}/{split}/careful" for room in ("2-generate", "3-annotate") for split in ("evaluation", "live")}
    assert with_them.keys.keys() - without.keys.keys() == added
    assert changed(without, with_them) == added | {"5-evaluate/board", "5-evaluate/live", "7-report"}
    # A file that is wanting stops a run before it has trained anything.
    order = [step.name for step in with_them.steps]
    assert order.index("2-generate/live/careful") < order.index("4-learn/sft")


def test_a_baselines_file_is_part_of_its_key(tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text('[{"instruction": "a", "output": "b"}]')
    before = planned(baselines={"gpt-4": {"evaluation": str(answers)}})
    answers.write_text('[{"instruction": "a", "output": "c"}]')
    after = planned(baselines={"gpt-4": {"evaluation": str(answers)}})
    assert changed(before, after) == {"2-generate/evaluation/gpt-4", "3-annotate/evaluation/gpt-4", *EVERY_RUN}
    answers.unlink()
    with pytest.raises(DataError, match=r"answers\.json"):
        planned(baselines={"gpt-4": {"evaluation": str(answers)}})


@pytest.mark.parametrize(
    ("baselines", "data", "said"),
    [
        ({"careful": {"writer": "carefull"}}, {}, "Writers: careful, hasty, found"),
        ({"careful": {"writer": "careful", "evaluation": "a.json"}}, {}, "not both"),
        ({"gpt-4": {}}, {}, "no answers to the evaluation instructions"),
        ({"gpt-4": {"evaluation": "a.json"}}, {"live": 20}, "no answers to the live instructions"),
        ({"ppo": {"writer": "careful"}}, {}, "makes a system of that name"),
        ({"base": {"writer": "careful"}}, {}, "cannot be called 'base'"),
        ({"GPT 4": {"writer": "careful"}}, {}, "cannot be called 'GPT 4'"),
        ({"careful": {"writer": "careful"}}, {"source": "alpaca_data.json"}, "the meadow's instructions only"),
    ],
)
def test_baselines_that_cannot_be_are_refused(baselines: Mapping[str, Any], data: Mapping[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        planned(baselines=baselines, data=data)
