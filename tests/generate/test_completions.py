"""Answers belong to their instruction and number, whoever else is asked."""

from typing import Any

import pytest

from pasture.core.errors import DataError, ModelError
from pasture.core.ports import silent
from pasture.core.records import Instruction
from pasture.core.templates import PLAIN
from pasture.generate.completions import LocalSystem
from pasture.models.load import save_model
from pasture.models.sample import SamplerConfig
from pasture.models.tiny import tiny_model, word_tokenizer

WORDS = [f"w{number}" for number in range(40)]


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = word_tokenizer(WORDS)
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, folder)
    return LocalSystem(folder, PLAIN, SamplerConfig(max_new_tokens=6))


def instructions(count: int) -> list[Instruction]:
    return [
        Instruction(id=f"i{n}", instruction=" ".join(WORDS[n : n + 1 + n % 3]), source="test", split="test")
        for n in range(count)
    ]


def test_completions_come_by_instruction_and_then_by_seed(system):
    rows = system.complete(instructions(3), system="x", samples=2, seed=0, progress=silent)
    assert [(row.instruction_id, row.seed) for row in rows] == [(f"i{n}", s) for n in range(3) for s in range(2)]
    assert {row.system for row in rows} == {"x"}


def test_an_answer_does_not_depend_on_the_other_instructions_or_samples(system):
    together = system.complete(instructions(8), system="x", samples=3, seed=7, progress=silent)
    alone = system.complete(instructions(8)[5:6], system="x", samples=1, seed=7, progress=silent)
    assert alone[0] == together[5 * 3]


def test_what_a_killed_call_left_is_not_drawn_again(system, tmp_path, monkeypatch):
    monkeypatch.setattr("pasture.generate.completions.LEAST_A_FILE", 3)
    monkeypatch.setattr("pasture.generate.completions.WORK_A_FILE", 1.0)
    asked: dict[str, Any] = {"system": "x", "samples": 2, "seed": 7}
    told: list[Any] = []
    whole = system.complete(instructions(8), **asked, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (16, 16)

    def killed(done, total):
        if done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        system.complete(instructions(8), **asked, progress=killed, kept=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.jsonl", "00001.jsonl"]
    told.clear()
    assert system.complete(instructions(8), **asked, progress=lambda done, _: told.append(done), kept=tmp_path) == whole
    assert min(told) > 12  # two instructions are left, with two answers each


def test_a_prompt_may_take_all_that_an_answer_leaves_of_the_context(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, tmp_path)
    asked: dict[str, Any] = {"system": "x", "samples": 1, "seed": 0, "progress": silent}
    # By hand: of a context of 256, 6 tokens are for the answer and one is a line break.
    longest, longer = (
        Instruction(id=str(count), instruction=" ".join(["w1"] * count), source="test", split="test")
        for count in (249, 250)
    )
    tight = LocalSystem(tmp_path, PLAIN, SamplerConfig(max_new_tokens=6))
    assert len(tight.complete([longest], **asked)) == 1
    with pytest.raises(DataError, match=r"1 to 250 tokens, got 251\..*lower max_new_tokens"):
        tight.complete([longer], **asked)
    with pytest.raises(ModelError, match="no room for a prompt in a context of 256"):
        LocalSystem(tmp_path, PLAIN, SamplerConfig(max_new_tokens=256))


def test_another_seed_gives_other_answers(system):
    one, other = (
        [row.text for row in system.complete(instructions(8), system="x", samples=1, seed=seed, progress=silent)]
        for seed in (0, 1)
    )
    assert one != other


def test_the_end_token_is_counted_and_a_full_answer_is_called_cut(system):
    rows = system.complete(instructions(30), system="x", samples=20, seed=0, progress=silent)
    assert {row.finish_reason for row in rows} == {"stop", "length"}
    for row in rows:
        words = len(row.text.split())
        # An untrained model also draws the pad token, which has no text: hence no equality.
        assert words + (row.finish_reason == "stop") <= row.token_count <= 6
        assert row.finish_reason == "stop" or row.token_count == 6
