"""What a first day brings: each thing that is wrong with the input is one clear error before any step is taken."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pasture.core.errors import DataError, ModelError, RecipeError, RunFolderError, ScorerError, TrainingError
from pasture.models.load import HEAD_FILE
from tests.cli.test_train import QUICK, base, call, demonstrations, reward, write
from tests.learn import toy

__all__ = ["base", "reward"]
OWN = (
    *("steps=1", "rollout_batch_size=4", "minibatch_size=4", "group_size=2", "save_every=1"),
    *("max_prompt_tokens=16", "max_new_tokens=4"),
)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def learn_from(rows: list[dict[str, Any]], base: Path, folder: Path, method: str = "dpo", *more: object) -> str:
    file = write(folder / "pairs.jsonl", rows)
    settings = [*QUICK, "--start", base, "--feedback", file, "--template", "plain", "-o", folder / "out", *more]
    return call("train", method, *settings)


PAIR = {"prompt": "w2 w3", "chosen": "w1 w4", "rejected": "w5"}
EQUAL = {"prompt": "w4 w5", "chosen": "w6", "rejected": "w6"}


@pytest.mark.parametrize("method", ["dpo", "reward_model"])
def test_a_pair_of_equal_answers_teaches_nothing_and_is_counted(base: Path, tmp_path: Path, method: str):
    more = ("held_out_count=0",) if method == "reward_model" else ()
    learn_from([PAIR, EQUAL, {**PAIR, "prompt": "w7"}], base, tmp_path, method, *more)
    assert rows_of(tmp_path / "out")[0]["pairs_equal"] == 1
    assert rows_of(tmp_path / "out")[0]["pairs_asked"] == 3


def test_pairs_of_equal_answers_alone_leave_nothing_to_train_on(base: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no preference is left to train on: of 1, 0 are unjudged and 1 compare equal"):
        learn_from([EQUAL], base, tmp_path)
    assert not rows_of(tmp_path / "out")


def test_an_empty_demonstration_is_left_out_and_said(base: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [{"prompt": "w1", "completion": ""}, {"prompt": "w2", "completion": "w3"}])
    settings = [*QUICK, "--start", base, "--demonstrations", file, "--template", "plain", "-o", tmp_path / "out"]
    assert "Left out 1 rows" in call("train", "sft", *settings)


def test_empty_demonstrations_alone_are_an_error(base: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [{"prompt": "w1", "completion": " "}])
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        call("train", "sft", *QUICK, "--start", base, "--demonstrations", file, "--template", "plain", "-o", tmp_path)


def test_an_empty_answer_of_a_pair_is_an_end_token_alone(base: Path, tmp_path: Path):
    learn_from([{**PAIR, "rejected": ""}, PAIR], base, tmp_path)
    assert len(rows_of(tmp_path / "out")) == 1


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_a_prompt_longer_than_the_models_context_is_told_before_its_positions_run_out(tmp_path: Path, shape: str):
    base = toy.save_base(tmp_path / "base", shape)  # made for 256 tokens
    # Longer than the context, within max_tokens: the limit that is told is the context's.
    long = write(tmp_path / "rows.jsonl", [{"prompt": "w1 " * 300, "completion": "w2"}])
    command = ["train", "sft", "epochs=1", "--start", base, "--template", "plain"]
    with pytest.raises(DataError, match=r"expected a prompt of 1 to 255 tokens, got 301\. .*leave_out_long"):
        call(*command, "--demonstrations", long, "-o", tmp_path / "long")
    # An answer that is too long is cut there, as it is cut at max_tokens.
    cut = write(tmp_path / "cut.jsonl", [{"prompt": "w1", "completion": "w2 " * 300}])
    call(*command, "--demonstrations", cut, "-o", tmp_path / "cut")
    assert rows_of(tmp_path / "cut")[0]["loss"] > 0


def test_a_prompt_and_answer_beyond_the_context_are_told_before_a_policy_draws(
    base: Path, reward: Path, tmp_path: Path
):
    command = ["train", "rloo", *OWN, "max_new_tokens=255", "--start", base, "--scorer", reward, "--template", "plain"]
    with pytest.raises(ModelError, match=r"context holds 256\. Lower max_new_tokens"):
        call(*command, "--instructions", demonstrations(tmp_path), "-o", tmp_path / "out")


def spoiled(reward: Path, folder: Path, value: float) -> Path:
    shutil.copytree(reward, folder)
    head = load_file(folder / HEAD_FILE)
    save_file({**head, "weight": torch.full_like(head["weight"], value)}, folder / HEAD_FILE)
    return folder


def test_a_reward_that_is_no_number_stops_before_the_first_step(base: Path, reward: Path, tmp_path: Path):
    scorer = spoiled(reward, tmp_path / "spoiled", float("nan"))
    command = ["train", "rloo", *OWN, "--start", base, "--scorer", scorer, "--template", "plain"]
    with pytest.raises(ScorerError, match="returned nan for an answer to instruction"):
        call(*command, "--instructions", demonstrations(tmp_path), "-o", tmp_path / "out")
    assert not rows_of(tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


OWN_METHOD = """
from pydantic import BaseModel, ConfigDict
from pasture.learn import rloo
from pasture.learn.rollouts import Environment
LEARNS_FROM = "scores"
Config = rloo.Config
def train(config, *, environment, **more):
    def scorer(instructions, completions):
        SCORER
    rloo.train(config, environment=Environment(environment.instructions, environment.template, scorer), **more)
"""


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (
            "raise KeyError('judge')",
            r"the scorer raised KeyError: 'judge' \(.*mine\.py, line \d+\)\. It was given",
        ),
        ("return [0.0]", "the scorer returned 1 numbers for 4 completions"),
        ("return None", "the scorer raised TypeError"),
    ],
)
def test_a_scorer_of_ones_own_that_fails_is_named(base: Path, reward: Path, tmp_path: Path, scorer: str, message: str):
    method = tmp_path / "mine.py"
    method.write_text(OWN_METHOD.replace("SCORER", scorer))
    command = ["train", method, *OWN, "--start", base, "--scorer", reward, "--template", "plain", "--allow-code"]
    with pytest.raises(ScorerError, match=message):
        call(*command, "--instructions", demonstrations(tmp_path), "-o", tmp_path / "out")


def test_a_language_model_in_place_of_the_reward_model_is_told(base: Path, tmp_path: Path):
    command = ["train", "rloo", *OWN, "--start", base, "--scorer", base, "--template", "plain"]
    with pytest.raises(ModelError, match=r"it is no reward or value model\. Name the folder of a trained reward model"):
        call(*command, "--instructions", demonstrations(tmp_path), "-o", tmp_path / "out")


def test_a_reward_model_in_place_of_the_language_model_is_told(reward: Path, tmp_path: Path):
    command = ["generate", demonstrations(tmp_path), "--model", reward, "-o", tmp_path / "out.json"]
    with pytest.raises(ModelError, match=r"it is a reward or value model: it scores answers and gives none\. Name the"):
        call(*command)
    assert not (tmp_path / "out.json").exists()


def test_what_is_read_is_not_written_over(base: Path, reward: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [PAIR])
    held = file.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(file)
    judge = ("--judge", "alpaca-eval-2", "--models", "m")
    for verb in (("score", reward), ("generate", "--model", base), ("annotate", *judge), ("bias", *judge)):
        for out in (file, tmp_path / "link.jsonl"):
            with pytest.raises(DataError, match=r"jsonl is what is read, and it is not overwritten\. Name another"):
                call(*verb, file, "-o", out)
    assert file.read_bytes() == held


def test_a_file_without_rows_is_named_and_nothing_is_written(base: Path, reward: Path, tmp_path: Path):
    file, out = write(tmp_path / "none.jsonl", []), write(tmp_path / "out.json", [PAIR])
    held = out.read_bytes()
    for verb in (("score", reward), ("generate", "--model", base)):
        with pytest.raises(DataError, match=r"none\.jsonl: expected .* and it holds no rows"):
            call(*verb, file, "-o", out)
    assert out.read_bytes() == held


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("dpo", "--demonstrations", "FILE"), "dpo learns from feedback: name a file with --feedback"),
        (("rloo", "--feedback", "FILE"), "rloo learns from instructions: name a file with --instructions"),
        (("dpo", "betta=0.1"), r"pasture train dpo has no key 'betta'\. Did you mean 'beta'\?"),
        (("dop", "--feedback", "FILE"), r"no method 'dop'\. Did you mean 'dpo'\?"),
        (("best_of_n",), r"best_of_n trains nothing\. Name it in a recipe, as \[learn\.best_of_n\]"),
    ],
)
def test_a_command_that_does_not_fit_is_told_before_any_file_is_read(
    tmp_path: Path, command: tuple[str, ...], said: str
):
    file = tmp_path / "rows.jsonl"
    file.write_text("not JSON")
    with pytest.raises(RecipeError, match=said):
        call("train", *(str(file) if word == "FILE" else word for word in command), "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "w1", "chosen": "w2"}, r"row 1: no column 'rejected' beside 'chosen'\. Columns: prompt, chosen"),
        ({"instruction": "w1", "output_2": "w2", "preference": 1}, "row 1: no column 'output_1' beside 'output_2'"),
        ({**PAIR, "rejected": 5}, "row 1: expected an answer under 'rejected', got the number 5"),
    ],
)
def test_a_row_that_is_no_pair_is_told_with_its_column(
    base: Path, reward: Path, tmp_path: Path, row: dict[str, Any], said: str
):
    with pytest.raises(DataError, match=rf"pairs\.jsonl: {said}"):
        learn_from([row], base, tmp_path)
    with pytest.raises(DataError, match=rf"pairs\.jsonl: {said}"):
        call("score", reward, tmp_path / "pairs.jsonl", "-o", tmp_path / "scored.jsonl")


def test_a_tokenizer_without_an_end_token_is_told(base: Path, tmp_path: Path):
    folder = tmp_path / "endless"
    shutil.copytree(base, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    command = ["train", "sft", *QUICK, "--start", folder, "--template", "plain", "-o", tmp_path / "out"]
    with pytest.raises(ModelError, match=r"has no end token, so no answer could ever end\. Set 'eos_token'"):
        call(*command, "--demonstrations", demonstrations(tmp_path))


def test_a_checkpoint_of_another_model_is_told_apart(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = toy.save_base(tmp_path / "other", hidden_size=48)
    file = demonstrations(tmp_path)
    command = ["train", "sft", *QUICK, "checkpoint_steps=1", "--demonstrations", file, "--template", "plain"]
    command += ["-o", tmp_path / "out", "--start"]
    with monkeypatch.context() as patch:
        patch.setattr("pasture.learn.resume.Resumable.finish", lambda *_: 1 / 0)
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            call(*command, base)
    with pytest.raises(RunFolderError, match="was begun with another model, other data or other settings"):
        call(*command, other)


class Full:
    """A card without room, at the first forward pass."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> None:
        raise self.error


def no_room() -> BaseException:
    """What torch says on this machine's CPU where no memory is left."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has an exbibyte of memory")


@pytest.mark.parametrize("where", ["card", "cpu"])
def test_running_out_of_memory_says_what_to_lower(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB") if where == "card" else no_room()
    monkeypatch.setattr("pasture.learn.sft.accumulate_gradients", Full(error))
    command = ["train", "sft", *QUICK, "--start", base, "--template", "plain", "-o", tmp_path / "out"]
    with pytest.raises(TrainingError) as raised:
        call(*command, "--demonstrations", demonstrations(tmp_path))
    for advice in (
        "sft ran out of memory",
        "micro_batch_tokens = ",
        "weights.gradient_checkpointing = true",
        'weights.dtype = "bfloat16"',
        "weights.lora",
        "max_tokens = 32",
    ):
        assert advice in str(raised.value)


def test_another_error_of_torch_is_not_taken_for_want_of_memory(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pasture.learn.sft.accumulate_gradients", Full(RuntimeError("shapes do not match")))
    command = ["train", "sft", *QUICK, "--start", base, "--template", "plain", "-o", tmp_path / "out"]
    with pytest.raises(AssertionError, match="shapes do not match"):
        call(*command, "--demonstrations", demonstrations(tmp_path))


def test_judgements_need_a_judge_and_a_base_model_is_named_where_it_is_asked_for(base: Path, tmp_path: Path):
    file = demonstrations(tmp_path)
    own = ["steps=1", "rollout_batch_size=4", "max_prompt_tokens=16", "max_new_tokens=4", "save_every=1"]
    command = ["train", "online_dpo", *own, "judge=annotator", "--start", base, "--instructions", file]
    with pytest.raises(RecipeError, match="learns from judgements: name who judges with --judge"):
        call(*command, "--template", "plain", "-o", tmp_path / "out")
