"""A real chat model of 135 million weights takes a few steps of each method, stops by itself, and is saved whole.

Needs a folder that `python recipes/smol/prepare.py FOLDER` wrote: `models/smollm2-135m-instruct`, or the one that the
variable PASTURE_SMOLLM2 names.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from pasture.core.ports import silent
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.templates import CHAT
from pasture.generate.completions import LocalSystem
from pasture.learn import best_of_n, dpo, reward_model, rloo, sft
from pasture.learn.reward_model import ModelScorer
from pasture.learn.rollouts import Environment
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, stop_token_ids
from pasture.models.sample import SamplerConfig, sample
from pasture.models.weights_config import Lora, Weights

FOLDER = Path(os.environ.get("PASTURE_SMOLLM2", Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no SmolLM2: run python recipes/smol/prepare.py"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.timeout(1800),
]

ADAPTERS = Weights(dtype="bfloat16", lora=Lora(rank=8, alpha=16))
FACTS = {
    "What is the capital of France?": "Paris is the capital of France.",
    "Name a primary color.": "Red is a primary color.",
    "How many days are in a week?": "There are seven days in a week.",
    "What do bees make?": "Bees make honey.",
    "Which animal says meow?": "A cat says meow.",
    "What is two plus two?": "Two plus two is four.",
    "Name a fruit.": "An apple is a fruit.",
    "What is frozen water called?": "Frozen water is called ice.",
}
ASKED = [Instruction(id=f"i{n}", instruction=text, source="s", split="x") for n, text in enumerate(FACTS)]


def said(instruction: Instruction, text: str, number: int = 0) -> Completion:
    return Completion(instruction_id=instruction.id, text=text, system="s", seed=number, finish_reason="stop")


def feedback() -> list[tuple[Comparison, Preference]]:
    """A short true answer is better than a question back."""
    judged = []
    for instruction, answer in zip(ASKED, FACTS.values(), strict=True):
        comparison = Comparison.of(instruction, said(instruction, answer), said(instruction, "Why do you ask me?", 1))
        judged.append((comparison, Preference(comparison_id=comparison.id, annotator="test", preferred="first")))
    return judged


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def end(folder: Path) -> dict[str, Any]:
    return {"start": FOLDER, "template": CHAT, "folder": folder, "seed": 0, "progress": silent}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    weights = ADAPTERS.model_copy(update={"dtype": "float32"})  # so that what is saved can be held to what was trained
    config = sft.Config(epochs=6, batch_size=8, learning_rate=1e-3, max_tokens=96, weights=weights)
    pairs = [(one, said(one, text)) for one, text in zip(ASKED, FACTS.values(), strict=True)]
    sft.train(config, demonstrations=pairs, **end(folder))
    return folder


def answers(folder: Path, instructions: Sequence[Instruction] = ASKED[:3]) -> list[Completion]:
    system = LocalSystem(folder, CHAT, SamplerConfig(temperature=0.0, max_new_tokens=48))
    return system.complete(instructions, system="s", samples=1, seed=0, progress=silent)


def test_it_pads_with_its_end_token_as_published_and_never_here():
    published = json.loads((FOLDER / "tokenizer_config.json").read_text())
    assert published["pad_token"] == published["eos_token"]
    tokenizer = load_tokenizer(FOLDER)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert load_causal_lm(FOLDER, tokenizer=tokenizer).get_input_embeddings().weight.shape[0] >= len(tokenizer)


def test_its_answer_ends_at_its_own_end_token():
    [answer, *_] = answers(FOLDER)
    assert answer.finish_reason == "stop"
    assert "Paris" in answer.text
    assert "<|" not in answer.text


def test_the_sampler_draws_what_transformers_own_generate_draws():
    tokenizer = load_tokenizer(FOLDER)
    model = load_causal_lm(FOLDER, tokenizer=tokenizer)
    prompt = Encoder(tokenizer, CHAT, max_tokens=128).prompt(ASKED[0])
    [drawn] = sample(
        model, stop_token_ids(model, tokenizer), [prompt], [0], SamplerConfig(temperature=0.0, max_new_tokens=32)
    )
    expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=32)[0, len(prompt) :].tolist()
    assert drawn.token_ids == expected


def test_imitation_makes_the_loss_fall(tuned: Path):
    found = losses(tuned)
    assert found[-1] < 0.5 * found[0]
    assert [one.finish_reason for one in answers(tuned / "model")] == ["stop"] * 3


def test_a_saved_adapter_loads_again_and_answers_alike(tuned: Path):
    tokenizer = load_tokenizer(FOLDER)
    merged = load_causal_lm(tuned / "model")
    # Another library's reading of the adapters, on the model that they belong to.
    adapted = PeftModel.from_pretrained(load_causal_lm(FOLDER, tokenizer=tokenizer), tuned / "model" / "adapter").eval()
    prompt = torch.tensor([Encoder(tokenizer, CHAT, max_tokens=128).prompt(ASKED[1])])
    with torch.no_grad():
        ours, theirs, began = (
            model(input_ids=prompt).logits[0, -1] for model in (merged, adapted, load_causal_lm(FOLDER))
        )
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    assert float((ours - began).abs().max()) > 0.1


PREFERRED: dict[str, Any] = {"epochs": 6, "batch_size": 8, "max_tokens": 96, "weights": ADAPTERS}


@pytest.fixture(scope="module")
def taste(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taste")
    reward_model.train(reward_model.Config(learning_rate=1e-3, **PREFERRED), feedback=feedback(), **end(folder))
    return folder


def test_the_reward_model_learns_who_was_preferred_and_scores_the_same_when_it_is_loaded_again(taste: Path):
    found = losses(taste)
    assert found[-1] < 0.5 * found[0]
    texts = [text for answer in FACTS.values() for text in (answer, "Why do you ask me?")]
    asked = [one for one in ASKED for _ in range(2)]
    answered = [said(one, text) for one, text in zip(asked, texts, strict=True)]
    first, again = (ModelScorer.load(taste / "model", CHAT)(asked, answered) for _ in range(2))
    assert first == again
    better = [first[place] > first[place + 1] for place in range(0, len(first), 2)]
    assert sum(better) >= len(better) - 1


def test_best_of_n_gives_the_answer_that_the_reward_model_likes_best(taste: Path):
    system = LocalSystem(FOLDER, CHAT, SamplerConfig(temperature=1.0, max_new_tokens=24))
    drawn = system.complete(ASKED[:3], system="s", samples=4, seed=0, progress=silent)
    by_id = {one.id: one for one in ASKED}
    scores = ModelScorer.load(taste / "model", CHAT)([by_id[one.instruction_id] for one in drawn], drawn)
    chosen = best_of_n.select(drawn, scores, n=4)
    # By NumPy: the highest of each four.
    expected = [4 * row + int(np.argmax(scores[4 * row : 4 * row + 4])) for row in range(3)]
    assert chosen == [drawn[place] for place in expected]


def test_dpo_learns_who_was_preferred_and_its_saved_adapter_answers_alike(tmp_path: Path):
    dpo.train(dpo.Config(learning_rate=5e-4, **PREFERRED), feedback=feedback(), **end(tmp_path))
    found = losses(tmp_path)
    assert found[0] == pytest.approx(np.log(2), abs=1e-3)  # policy and reference are one at the start
    assert found[-1] < 0.5 * found[0]
    check_adapter(tmp_path / "model")


def check_adapter(folder: Path) -> None:
    """The model with its adapters added in predicts what the start does under the adapters alone, read by peft."""
    tokenizer = load_tokenizer(FOLDER)
    merged = load_causal_lm(folder)
    adapted = PeftModel.from_pretrained(load_causal_lm(FOLDER, tokenizer=tokenizer), folder / "adapter").eval()
    prompt = torch.tensor([Encoder(tokenizer, CHAT, max_tokens=128).prompt(ASKED[1])])
    with torch.no_grad():
        ours, theirs = (model(input_ids=prompt).logits[0, -1].log_softmax(-1) for model in (merged, adapted))
    # The merged weights were rounded to bfloat16, the adapters were not.
    assert float((ours.exp() * (ours - theirs)).sum()) < 0.02
    assert int(ours.argmax()) == int(theirs.argmax())


def test_rloo_learns_from_its_own_answers(tmp_path: Path):
    def brief(instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
        return [-len(one.text) / 100 for one in completions]

    config = rloo.Config(
        steps=3,
        rollout_batch_size=8,
        minibatch_size=8,
        group_size=4,
        learning_rate=1e-4,
        max_prompt_tokens=64,
        max_new_tokens=24,
        save_every=3,
        weights=ADAPTERS,
    )
    given = end(tmp_path)
    environment = Environment(ASKED, given.pop("template"), brief)
    rloo.train(config, environment=environment, **given)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert (tmp_path / "steps" / "0003" / "adapter" / "adapter_model.safetensors").is_file()
    check_adapter(tmp_path / "model")
    # It still ends its answers itself.
    assert any(one.finish_reason == "stop" for one in answers(tmp_path / "model"))
