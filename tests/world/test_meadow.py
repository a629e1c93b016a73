import hashlib
import itertools
import os
import subprocess
import sys

import pytest

from pasture.core.errors import DataError
from pasture.core.records import Instruction
from pasture.core.templates import PLAIN
from pasture.world import meadow
from pasture.world.reading import read
from pasture.world.tasks import FAMILIES
from pasture.world.words import END, NEWLINE, PAD, UNKNOWN

SPLITS = ("sft", "preference", "unlabeled", "validation")


def _texts(rows: list[Instruction]) -> set[tuple[str, str]]:
    return {(row.instruction, row.input) for row in rows}


def test_the_vocabulary_is_fixed() -> None:
    # A shipped checkpoint numbers its words by this list: a change of either figure makes it worthless.
    words = meadow.vocabulary()
    assert len(words) == len(set(words)) == 300
    assert hashlib.sha256("\t".join(words).encode()).hexdigest()[:16] == "7c8f16c2be1ebb87"
    assert words[:4] == [PAD, END, UNKNOWN, NEWLINE]


def test_every_prompt_and_answer_is_made_of_known_words() -> None:
    known = set(meadow.vocabulary())
    rows = [*meadow.instructions("preference", 1500), *meadow.evaluation_set(), *meadow.live_set(300)]
    texts = [PLAIN.render(row) for row in rows] + [answer.text for answer in meadow.demonstrations(rows)]
    texts += [answer.text for _, answer in meadow.pretraining_texts(500)]
    assert {word for text in texts for word in text.replace("\n", f" {NEWLINE} ").split(" ") if word} <= known


def test_prompts_and_answers_are_short() -> None:
    rows = meadow.instructions("preference", 1500)
    assert max(len(PLAIN.render(row).split()) for row in rows) <= 22
    lengths = sorted(len(answer.text.split()) for answer in meadow.demonstrations(rows))
    assert lengths[int(0.95 * len(lengths))] <= 32
    assert lengths[-1] <= 47  # with the end token, 48


def test_no_text_is_in_two_splits() -> None:
    drawn = [_texts(meadow.instructions(split, 800, seed)) for split in SPLITS for seed in (0, 1)]
    drawn += [
        _texts(meadow.evaluation_set()),
        _texts(meadow.live_set()),
        _texts([row for row, _ in meadow.pretraining_texts(800)]),
    ]
    by_split = [drawn[at] | drawn[at + 1] for at in range(0, 8, 2)] + drawn[8:]
    for one, other in itertools.combinations(by_split, 2):
        assert not one & other


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_each_split_holds_as_many_different_instructions_as_the_paper(split: str) -> None:
    assert (
        len(_texts(meadow.instructions(split)))
        == {"sft": 10_000, "preference": 20_000, "unlabeled": 20_000, "validation": 2_000}[split]
    )


def test_a_smaller_draw_begins_a_larger_one_and_another_seed_draws_others() -> None:
    small, large, other = (meadow.instructions("sft", count, seed) for count, seed in ((50, 0), (80, 0), (50, 1)))
    assert small == large[:50]
    assert len(_texts(small) & _texts(other)) < 5


def test_a_split_has_all_families_in_like_numbers() -> None:
    rows = meadow.instructions("sft", 1200)
    for family in FAMILIES:
        assert 60 < sum(row.source == family for row in rows) < 140  # 100 expected, standard deviation 9.6


def test_the_evaluation_set_has_the_papers_five_counts() -> None:
    rows = meadow.evaluation_set()
    assert len({row.id for row in rows}) == len(_texts(rows)) == 805
    assert sorted(sum(row.source == source for row in rows) for source in {row.source for row in rows}) == [
        80,
        129,
        156,
        188,
        252,
    ]


@pytest.mark.parametrize("count", [0, 1, 10, 100, 806])
def test_a_smaller_evaluation_set_keeps_the_proportions(count: int) -> None:
    rows = meadow.evaluation_set(count)
    assert len(rows) == count
    for source, size in meadow.EVALUATION_SIZES.items():
        assert abs(sum(row.source == source for row in rows) - count * size / 805) < 1


def test_demonstrations_are_right_three_times_in_four() -> None:
    rows = meadow.instructions("sft", 2000)
    answers = meadow.demonstrations(rows)
    right = [
        read(row.instruction, row.input, answer.text, "stop").right == 1
        for row, answer in zip(rows, answers, strict=True)
    ]
    told = [row.source != "describe" for row in rows]  # a description has no one answer to get wrong
    assert 0.71 < sum(r for r, t in zip(right, told, strict=True) if t) / sum(told) < 0.79  # four standard errors
    assert {answer.system for answer in answers} == {"demonstrations"}


def test_what_the_base_model_reads_is_worse_than_a_demonstration() -> None:
    texts = meadow.pretraining_texts(600)
    found = [read(row.instruction, row.input, answer.text, "stop") for row, answer in texts]
    shown = [
        read(row.instruction, row.input, answer.text, "stop")
        for row, answer in zip((row for row, _ in texts), meadow.demonstrations([row for row, _ in texts]), strict=True)
    ]
    assert sum(r.right for r in found) < 0.9 * sum(r.right for r in shown)
    assert sum(r.falsehoods for r in found) > 2 * sum(r.falsehoods for r in shown)


@pytest.mark.parametrize("call", [lambda: meadow.instructions("test", 5), lambda: meadow.instructions("sft", -1)])
def test_a_draw_that_cannot_be_made_says_so(call) -> None:
    with pytest.raises(DataError, match="expected"):
        call()


def test_more_than_a_split_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        meadow, "split_of", lambda text, material: "sft" if text.startswith("please is the fox") else "live"
    )
    with pytest.raises(DataError, match="holds fewer than 500"):
        meadow.instructions("sft", 500)


def test_other_processes_draw_the_same(request: pytest.FixtureRequest) -> None:
    code = (
        "from pasture.world import meadow; i = meadow.instructions('sft', 40, 3); "
        "print([r.to_json() for r in [*i, *meadow.demonstrations(i, 5)]])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, check=True
        ).stdout
        for salt in ("0", "1")
    }
    assert len(outputs) == 1
