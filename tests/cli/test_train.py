"""Training, scoring and answering on files of one's own, from the command line to folders that others can load."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from pasture.cli import application
from pasture.core.errors import DataError, PastureError, RecipeError, RunFolderError, TrainingError
from pasture.data.instructions import load_demonstrations
from pasture.learn.update import take_step
from pasture.world import meadow
from tests.learn import toy

QUICK = ("epochs=1", "batch_size=8", "max_tokens=32", "learning_rate=1e-3")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(toy.save_base(tmp_path_factory.mktemp("base") / "model"))


def call(*arguments: object, code: int = 0) -> str:
    words = [str(argument) for argument in arguments]
    done = CliRunner().invoke(application(words[0]), words)
    if isinstance(done.exception, PastureError):
        raise done.exception
    assert done.exit_code == code, (done.output, done.exception)
    return str(done.stdout)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def demonstrations(folder: Path) -> Path:
    rows = [
        {"prompt": instruction.instruction, "completion": answer.text} for instruction, answer in toy.demonstrations(16)
    ]
    return write(folder / "demonstrations.jsonl", rows)


def pairs(folder: Path) -> Path:
    rows = []
    for comparison, preference in toy.separable_feedback(24):
        texts = [comparison.first.text, comparison.second.text]
        chosen, rejected = texts if preference.preferred == "first" else texts[::-1]
        rows.append({"prompt": comparison.instruction.instruction, "chosen": chosen, "rejected": rejected})
    return write(folder / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def reward(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    file = pairs(folder)
    more = ("epochs=20", "batch_size=8", "max_tokens=32", "learning_rate=1e-2")
    call("train", "reward_model", *more, "--start", base, "--feedback", file, "--template", "plain", "-o", folder)
    return folder / "model"


def test_a_trained_model_is_a_plain_folder_with_a_card_that_says_how_it_came_to_be(base: Path, tmp_path: Path):
    file = demonstrations(tmp_path)
    command = ("train", "sft", *QUICK, "--start", base, "--demonstrations", file, "--template", "plain", "-o", tmp_path)
    assert call(*command).startswith("Model and its card: ")
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "pasture.json").read_text())
    assert (facts["method"], facts["template"], facts["settings"]["batch_size"]) == ("sft", "plain", 8)
    assert facts["data"]["demonstrations"]["count"] == 16
    assert len(facts["data"]["demonstrations"]["sha256"]) == 64
    assert facts["results"]["loss"] > 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert facts["data"]["demonstrations"]["sha256"] in card


def test_what_is_finished_is_not_trained_again_and_another_training_is_refused(base: Path, tmp_path: Path):
    file = demonstrations(tmp_path)
    command = ["train", "sft", *QUICK, "--start", base, "--demonstrations", file, "-o", tmp_path, "--template", "plain"]
    call(*command)
    weights = tmp_path / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert "It was trained before, and nothing was done. Model and its card: " in call(*command)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(RunFolderError, match=r"finished training with another .*Different: config.epochs, seed\."):
        call(*command, "epochs=2", "--seed", 1)


def stopping_at_the_second() -> Any:
    """A step of the optimizer that comes to its end once."""
    steps: list[int] = []

    def stop(*arguments: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise RunFolderError("the disk is full")
        return take_step(*arguments, **more)

    return stop


def test_a_stopped_training_goes_on_to_the_same_weights(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = demonstrations(tmp_path)
    command = ["train", "sft", *QUICK, "checkpoint_steps=1", "--start", base, "--demonstrations", file]
    command += ["--template", "plain"]
    call(*command, "-o", tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("pasture.learn.sft.take_step", stopping_at_the_second())
        with pytest.raises(RunFolderError, match="disk"):
            call(*command, "-o", tmp_path / "stopped")
    assert "Went on from what was there. Model and its card: " in call(*command, "-o", tmp_path / "stopped")
    whole, stopped = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


def test_a_stopped_training_does_not_go_on_with_another_reward_model(
    base: Path, reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = ("steps=2", "rollout_batch_size=4", "minibatch_size=4", "max_prompt_tokens=16", "max_new_tokens=4")
    command = ["train", "rloo", *settings, "group_size=2", "checkpoint_steps=1", "--start", base, "--template", "plain"]
    command += ["--instructions", demonstrations(tmp_path), "-o", tmp_path / "out"]
    other = tmp_path / "other"
    shutil.copytree(reward, other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, other / "model.safetensors")
    with pytest.raises(DataError, match="max_prompt_tokens"):
        call(*command, "max_prompt_tokens=1", "--scorer", reward)
    with monkeypatch.context() as patch:
        patch.setattr("pasture.learn.rloo.take_step", stopping_at_the_second())
        # What failed before it learned anything does not hold the folder.
        with pytest.raises(RunFolderError, match="disk"):
            call(*command, "--scorer", reward)
    with pytest.raises(RunFolderError, match=r"a reward model and a judge count\. Different: scorer\. Remove it"):
        call(*command, "--scorer", other)
    call(*command, "--scorer", reward)


OWN = """
from pasture.core.files import write_text
from pasture.learn import dpo

LEARNS_FROM = "preferences"


class Config(dpo.Config):
    pass


def train(config, *, folder, **given):
    left = folder / "left.txt"
    if not left.exists():
        write_text(left, "what was chosen")
        raise ValueError("half-way")
    dpo.train(config, folder=folder, **given)
"""


@pytest.mark.parametrize("as_far_as", ["half-way", "the end"])
def test_a_method_of_ones_own_that_was_changed_does_not_go_on(base: Path, tmp_path: Path, as_far_as: str):
    method = tmp_path / "mine.py"
    method.write_text(OWN)
    command = ["train", method, *QUICK, "--start", base, "--feedback", pairs(tmp_path), "--template", "plain"]
    command += ["--allow-code", "-o", tmp_path / "out"]
    with pytest.raises(TrainingError, match="half-way"):
        call(*command)
    if as_far_as == "the end":
        call(*command)
    method.write_text(OWN + "# Changed.\n")
    with pytest.raises(RunFolderError, match=r"Different: code\."):
        call(*command)


def test_a_reward_model_scores_pairs_in_one_call_and_says_how_often_it_agrees(reward: Path, tmp_path: Path):
    file = pairs(tmp_path)
    said = call("score", reward, file, "-o", tmp_path / "scored.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    agreed = sum(row["score_chosen"] > row["score_rejected"] for row in rows)
    assert agreed > 0.9 * len(rows)  # the toy's people go by a word that a small model can see
    assert f"Agrees with {agreed} of {len(rows)} labels" in said
    with pytest.raises(DataError, match="has a column 'score_chosen' already"):
        call("score", reward, tmp_path / "scored.jsonl")
    call("score", reward, tmp_path / "scored.jsonl", "--prefix", "again_", "-o", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert [row["again_score_chosen"] for row in again] == [row["score_chosen"] for row in rows]


def test_a_score_comes_about_as_the_card_of_a_reward_model_says(reward: Path, tmp_path: Path):
    assert "times `weight`, plus `bias`, less `offset`" in (reward / "README.md").read_text()
    call("score", reward, pairs(tmp_path), "-o", tmp_path / "scored.jsonl")
    row = json.loads((tmp_path / "scored.jsonl").read_text().splitlines()[0])
    tokenizer, head = AutoTokenizer.from_pretrained(reward), load_file(reward / "scalar_head.safetensors")
    prompt, answer = (tokenizer(text)["input_ids"] for text in (row["prompt"] + "\n", row["chosen"]))
    ids_1T = torch.tensor([[*prompt, *answer, tokenizer.eos_token_id]])
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(reward)(input_ids=ids_1T).last_hidden_state[0, -1]
    by_hand = float(hidden @ head["weight"][0] + head["bias"][0] - head["offset"])
    assert row["score_chosen"] == pytest.approx(by_hand, abs=1e-4)


def test_single_answers_are_scored_like_those_of_pairs(reward: Path, tmp_path: Path):
    row = {"prompt": "w2 w3", "chosen": "w1 w4", "rejected": "w5"}
    call("score", reward, write(tmp_path / "pairs.jsonl", [row]), "-o", tmp_path / "a.jsonl")
    single = write(tmp_path / "single.jsonl", [{"instruction": "w2 w3", "output": "w1 w4"}])
    call("score", reward, single, "-o", tmp_path / "b.jsonl")
    pair, alone = (json.loads((tmp_path / name).read_text()) for name in ("a.jsonl", "b.jsonl"))
    assert alone["score"] == pytest.approx(pair["score_chosen"], abs=1e-5)


def test_a_scorer_of_ones_own_takes_a_reward_model_s_place_where_code_is_allowed(base: Path, tmp_path: Path):
    file = tmp_path / "short.py"
    file.write_text("def score(instructions, completions):\n    return [-len(one.text) for one in completions]\n")
    asked = demonstrations(tmp_path)
    small = ("steps=1", "rollout_batch_size=8", "minibatch_size=8", "group_size=2", "max_new_tokens=6")
    more = ("--start", base, "--instructions", asked, "--scorer", file, "--template", "plain", "-o", tmp_path / "out")
    with pytest.raises(RecipeError, match=r"short.py' would run as part of Pasture. Read it"):
        call("train", "rloo", *small, *more)
    with pytest.raises(RecipeError, match="no reward model, and PPO's value model begins as one"):
        call("train", "ppo", "steps=1", *more, "--allow-code")
    call("train", "rloo", *small, *more, "--allow-code")
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text())
    assert row["reward"] < 0
    file.write_text(file.read_text().replace("-len", "len"))
    with pytest.raises(RunFolderError, match="another"):
        call("train", "rloo", *small, *more, "--allow-code")
    with pytest.raises(RecipeError, match="expected the folder of a reward model"):
        call("score", file, asked)


def test_methods_that_learn_from_scores_take_instructions_and_a_scorer(base: Path, reward: Path, tmp_path: Path):
    file = demonstrations(tmp_path)
    settings = ("steps=2", "rollout_batch_size=4", "minibatch_size=4", "max_prompt_tokens=16", "max_new_tokens=4")
    command = ["train", "ppo", *settings, "save_every=1", "--start", base, "--instructions", file]
    command += ["--template", "plain", "-o", tmp_path]
    with pytest.raises(RecipeError, match="--scorer"):
        call(*command)
    call(*command, "--scorer", reward)
    assert json.loads((tmp_path / "model" / "pasture.json").read_text())["judge"] == str(reward)


@pytest.fixture(scope="module")
def ensemble(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    command = ("train", "reward_model_ensemble", "members=2", *QUICK, "--start", base, "--template", "plain")
    call(*command, "--feedback", pairs(folder), "-o", folder)
    return folder / "model"


def test_an_ensemble_scores_as_its_members_do_together(ensemble: Path, tmp_path: Path):
    file = pairs(tmp_path)
    for number, scorer in enumerate([ensemble, *(ensemble / "members" / name / "model" for name in ("00", "01"))]):
        call("score", scorer, file, "--template", "plain", "-o", tmp_path / f"{number}.jsonl")
    together, first, second = (
        [json.loads(line)["score_chosen"] for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
        for number in range(3)
    )
    # The oracle: NumPy's mean and variance of what the members say on their own; half the variance is taken off.
    members = np.array([first, second])
    assert members.std(axis=0).max() > 1e-3
    assert together == pytest.approx(members.mean(axis=0) - members.var(axis=0) / 2, abs=1e-5)


@pytest.mark.parametrize("method", ["rloo", "ppo"])
def test_methods_that_learn_from_scores_take_an_ensemble(base: Path, ensemble: Path, tmp_path: Path, method: str):
    settings = ["steps=1", "rollout_batch_size=4", "minibatch_size=4", "max_prompt_tokens=16", "max_new_tokens=4"]
    settings += ["group_size=2"] if method == "rloo" else []
    command = ["train", method, *settings, "save_every=1", "--start", base, "--instructions", demonstrations(tmp_path)]
    call(*command, "--scorer", ensemble, "--template", "plain", "-o", tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")


def test_kto_takes_thumbs_and_methods_that_learn_from_pairs_do_not(base: Path, tmp_path: Path):
    rows = [
        {"prompt": comparison.instruction.instruction, "completion": side.text, "label": number == 0}
        for comparison, _ in toy.separable_feedback(8)
        for number, side in enumerate((comparison.first, comparison.second))
    ]
    file = write(tmp_path / "thumbs.jsonl", rows)
    more = (*QUICK, "--start", base, "--feedback", file, "--template", "plain")
    call("train", "kto", *more, "-o", tmp_path / "kto")
    facts = json.loads((tmp_path / "kto" / "model" / "pasture.json").read_text())
    assert (facts["data"]["feedback"]["count"], facts["judge"]) == (16, "thumbs")
    assert facts["results"]["answers_desirable"] == 8
    with pytest.raises(
        DataError, match=r"holds 16 answers that were rated alone\. Methods that learn from those: kto\."
    ):
        call("train", "dpo", *more, "-o", tmp_path / "dpo")
    assert not (tmp_path / "dpo").exists()


def test_online_dpo_learns_from_a_judge_that_is_named_and_keeps_what_it_said(tmp_path: Path):
    rows = [{"prompt": one.instruction} for one in meadow.instructions("unlabeled", 8, seed=0)]
    settings = ("judge=annotator", "steps=1", "rollout_batch_size=8", "minibatch_size=4", "save_every=1")
    command = ["train", "online_dpo", *settings, "max_prompt_tokens=64", "max_new_tokens=12", "--judge", "meadow-pool"]
    call(*command, "--instructions", write(tmp_path / "rows.jsonl", rows), "-o", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "model" / "pasture.json").read_text())["judge"] == "meadow-pool"
    assert list((tmp_path / "out" / "judged").glob("*-preferences.jsonl"))


def test_expert_iteration_can_fine_tune_the_model_before_any_fine_tuning(base: Path, reward: Path, tmp_path: Path):
    file = demonstrations(tmp_path)
    settings = ("fine_tune=base", "n=2", "max_prompt_tokens=16", "max_new_tokens=6", "--template", "plain")
    command = ["train", "expert_iteration", *QUICK, *settings, "--start", base, "--scorer", reward]
    command += ["--instructions", file, "-o", tmp_path / "out"]
    with pytest.raises(RecipeError, match="Name the model before any fine-tuning"):
        call(*command)
    call(*command, "--base", toy.save_base(tmp_path / "before"))
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")


def test_a_method_says_what_it_lacks_and_settings_are_checked(base: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match="learns from demonstrations: name a file with --demonstrations"):
        call("train", "sft", "--start", base, "-o", tmp_path)
    with pytest.raises(RecipeError, match=r"no key 'epoch'\. Did you mean 'epochs'"):
        call("train", "sft", "epoch=1", "--start", base, "-o", tmp_path)
    with pytest.raises(RecipeError, match="no method 'sfd'"):
        call("train", "sfd", "--start", base, "-o", tmp_path)
    with pytest.raises(RecipeError, match="--allow-code"):
        call("train", "mine.py", "--start", base, "-o", tmp_path)


@pytest.mark.parametrize(
    ("method", "idle"),
    [
        (["sft"], ["--scorer"]),
        (["sft"], ["--feedback"]),
        (["sft"], ["--instructions"]),
        (["sft"], ["--judge"]),
        (["sft"], ["--base"]),
        (["online_dpo", "judge=annotator"], ["--scorer"]),
        (["online_dpo"], ["--judge"]),
        (["expert_iteration"], ["--base"]),
        (["ppo"], ["--demonstrations"]),
    ],
)
def test_what_a_method_would_not_use_is_refused_before_any_file_is_read(method: list[str], idle: list[str], tmp_path):
    needed = {"sft": ["--demonstrations", "none.jsonl"]}.get(method[0], ["--instructions", "none.jsonl"])
    with pytest.raises(RecipeError, match=rf"makes no use of {idle[0]}\. Leave it out"):
        call("train", *method, *needed, *idle, "nothing", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_options_of_a_service_are_refused_beside_a_model_that_answers_here(base: Path, tmp_path: Path):
    for option, value in (("--engine", "anthropic"), ("--base-url", "http://x"), ("--max-usd", 0), ("--set", "a=1")):
        with pytest.raises(RecipeError, match=f"{option} is for services; a --model answers on this machine"):
            call("generate", demonstrations(tmp_path), "--model", base, option, value, "-o", tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_a_models_answers_come_in_every_layout_and_with_how_it_was_asked(base: Path, tmp_path: Path):
    file = demonstrations(tmp_path)
    more = ("--model", base, "--template", "plain", "--max-new-tokens", 6, "--count", 3)
    call("generate", file, *more, "-o", tmp_path / "a.json")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert list(rows[0])[:5] == ["instruction", "input", "output", "generator", "dataset"]
    facts = json.loads((tmp_path / "a.json.facts.json").read_text())
    assert (facts["template"], facts["asked"]) == ("plain", 3)
    # A training's model is called by the folder around it.
    assert {row["generator"] for row in rows} == {base.parent.name}
    call("generate", file, *more, "--system", "mine", "-o", tmp_path / "c.json")
    assert {row["generator"] for row in json.loads((tmp_path / "c.json").read_text())} == {"mine"}
    assert facts["decoding"] == {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 6}
    call("generate", file, *more, "--layout", "trl-chat", "-o", tmp_path / "b.jsonl")
    split = load_demonstrations(str(tmp_path / "b.jsonl"))
    texts = [row["output"] for row in rows if row["output"].strip()]
    assert [one.text for one in split.demonstrations] == texts


def test_prompts_beyond_the_limit_are_an_error_or_left_out_and_counted(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = [{"prompt": "w1 w2", "completion": "w3"}, {"prompt": "w1 " * 40, "completion": "w3"}]
    file = write(tmp_path / "rows.jsonl", rows)
    command = ["train", "sft", *QUICK, "--start", base, "--demonstrations", file, "--template", "plain"]
    command += ["-o", tmp_path / "out"]
    with pytest.raises(DataError, match="expected a prompt of 1 to 31 tokens, got 41"):
        call(*command)
    call(*command, "--leave-out-long")
    assert "left out 1 of 2 rows" in caplog.text
    facts = json.loads((tmp_path / "out" / "model" / "pasture.json").read_text())
    assert facts["data"]["demonstrations"]["count"] == 1


@pytest.mark.parametrize("more", [(), ("--model", "x", "--models", "y")])
def test_exactly_one_kind_of_system_is_asked(base: Path, tmp_path: Path, more: tuple[str, ...]):
    with pytest.raises(RecipeError, match="name either a --model folder"):
        call("generate", demonstrations(tmp_path), *more)
