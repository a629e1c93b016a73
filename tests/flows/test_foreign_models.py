"""The whole loop on models that are none of Pasture's: other families, made by transformers; and a real small one."""

import json
import os
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from pasture.models.load import load_tokenizer
from pasture.models.tiny import Shape, tiny_model, word_tokenizer
from pasture.world.meadow import vocabulary
from pasture.world.words import END, PAD, UNKNOWN
from tests.flows.tiny import LOOP, REPOSITORY, TINY, run

SMOLLM2 = Path(os.environ.get("PASTURE_SMOLLM2", REPOSITORY / "models" / "smollm2-135m-instruct"))
OVERRIDES = [one for one in TINY if not one.startswith("model.start")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def check_finished(out: Path) -> None:
    """Every system is on the board, judged on each instruction, and every model loads without Pasture."""
    rows = json.loads((out / "5-evaluate" / "board" / "leaderboard.json").read_text())
    text = json.dumps(rows)
    assert all(f'"{name}"' in text for name in ("base", "sft", "best_of_n", "ppo"))
    assert (out / "7-report" / "index.html").is_file()
    for step in ("sft", "ppo"):
        AutoModelForCausalLM.from_pretrained(out / "4-learn" / step / "model")


@pytest.mark.parametrize("shape", ["gpt2", "neox", "qwen"])
def test_the_loop_runs_on_a_model_of_another_family(tmp_path: Path, shape: Shape) -> None:
    folder = tmp_path / "model"
    tokenizer = word_tokenizer([word for word in vocabulary() if word not in (PAD, END, UNKNOWN)])
    # As transformers writes them, without what Pasture writes beside: no pad or end in the config.
    tiny_model(shape, len(tokenizer), seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = run("run", str(LOOP), *OVERRIDES, f"model.start={folder}", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    check_finished(tmp_path / "run")


def test_the_loop_runs_on_a_model_whose_tokenizer_has_no_pad(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tokenizer = word_tokenizer([word for word in vocabulary() if word not in (PAD, END, UNKNOWN)])
    tokenizer.pad_token = tokenizer.eos_token  # as many published ones do
    tiny_model("gpt2", len(tokenizer), seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = run("run", str(LOOP), *OVERRIDES, f"model.start={folder}", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    check_finished(tmp_path / "run")
    trained = load_tokenizer(tmp_path / "run" / "4-learn" / "ppo" / "model")
    assert trained.pad_token_id != trained.eos_token_id


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="no SmolLM2: run python recipes/smol/prepare.py")
def test_the_loop_runs_on_a_real_model_with_adapters(tmp_path: Path) -> None:
    sizes = ("data.sft=8", "data.preference=8", "data.unlabeled=4", "data.validation=2", "data.evaluation=4")
    more = ("learn.sft.held_out_count=0", "learn.reward_model.held_out_count=0", "learn.reward_model.centring_count=4")
    steps = ("learn.ppo.steps=2", "learn.ppo.rollout_batch_size=4", "learn.ppo.minibatch_size=4")
    weights = ("model.weights.dtype=bfloat16", "model.weights.lora.rank=8", "learn.ppo.value=shared")
    done = run(
        *("run", str(LOOP), *OVERRIDES, *sizes, *more, *steps, *weights),
        *(f"model.start={SMOLLM2}", "model.template=chat", "learn.ppo.max_prompt_tokens=96"),
        *("learn.sft.max_tokens=160", "learn.reward_model.max_tokens=160", "--out", str(tmp_path / "run")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_finished(tmp_path / "run")
