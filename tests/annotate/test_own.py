"""An annotator that is a Python file: what its function may give, and how what it may not is told."""

from pathlib import Path

import pytest

from pasture.annotate.own import AnnotatorFile, OwnAnnotator
from pasture.core.errors import DataError, RecipeError
from pasture.core.records import Comparison, Completion, Instruction, Preference

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_annotator.py"


def pair(text: str, first: str, second: str) -> Comparison:
    asked = Instruction(id=text, instruction=text, source="test", split="test")
    sides = (Completion(instruction_id=text, text=one, system=one or "-", seed=0) for one in (first, second))
    return Comparison.of(asked, *sides)


def annotator(file: Path, text: str = "") -> OwnAnnotator:
    if text:
        file.write_text(text)
    return OwnAnnotator("mine", AnnotatorFile(file=str(file)), seed=3)


FOUR = [pair(f"say {word}", word, "no") for word in ("one", "two", "three", "four")]


@pytest.mark.parametrize(
    ("given", "preferred", "probability"),
    [
        ("'first'", "first", None),
        ("'second'", "second", None),
        ("'tie'", "tie", None),
        ("0.75", "first", 0.75),
        ("0.25", "second", 0.25),
        ("0.5", "tie", 0.5),
        ("__import__('numpy').float32(1)", "first", 1.0),
        ("0", "second", 0.0),
    ],
)
def test_a_verdict_may_be_a_word_or_a_probability(
    tmp_path: Path, given: str, preferred: str, probability: float | None
):
    mine = annotator(tmp_path / "a.py", f"def prefer(comparisons, seed):\n    return [{given}] * len(comparisons)\n")
    found = mine.annotate(FOUR)
    assert [one.comparison_id for one in found] == [one.id for one in FOUR]
    assert {(one.annotator, one.preferred, one.probability_first) for one in found} == {
        ("mine", preferred, probability)
    }


def test_no_verdict_is_unjudged_and_a_preference_stays_as_it_is(tmp_path: Path):
    mine = annotator(
        tmp_path / "a.py",
        "from pasture.core.records import Preference\n"
        "def prefer(comparisons, seed):\n"
        "    whole = Preference(comparison_id=comparisons[0].id, annotator='me', preferred='tie', cost_usd=0.5)\n"
        "    return [whole, None]\n",
    )
    whole, nothing = mine.annotate(FOUR[:2])
    assert whole == Preference(comparison_id=FOUR[0].id, annotator="me", preferred="tie", cost_usd=0.5)
    assert (nothing.preferred, nothing.error) == ("unjudged", "the annotator gave no verdict")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return ['first']", "prefer must give 4 verdicts, one for each comparison, and gave 1"),
        ("return ['a'] * 4", "prefer must give for comparison .*'a'"),
        ("return ['unjudged'] * 4", "'unjudged'"),
        ("return [1.5] * 4", "1.5"),
        ("return [float('nan')] * 4", "nan"),
        ("return [True] * 4", "True"),
        ("return [[]] * 4", r"gave \[\]"),
        ("import numpy; return [numpy.ones(2)] * 4", "gave array"),
        ("import numpy; return [numpy.True_] * 4", "gave .*True"),
        ("return comparisons[9].id", "a.py': line 2 raised IndexError"),
    ],
)
def test_what_is_no_verdict_is_told_with_what_is_one(tmp_path: Path, body: str, said: str):
    with pytest.raises(DataError, match=said):
        annotator(tmp_path / "a.py", f"def prefer(comparisons, seed):\n    {body}\n").annotate(FOUR)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("other = 1\n", "expected a function prefer.* and there is none"),
        ("def prefer(comparisons):\n    return []\n", "it cannot be called so"),
        ("1 / 0\n", "annotator .*a.py': line 1 raised ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_annotator_is_told_before_it_is_asked(tmp_path: Path, text: str, said: str):
    with pytest.raises(RecipeError, match=said):
        annotator(tmp_path / "a.py", text).check()


def test_the_example_likes_what_is_said_again_by_the_odds_that_it_says():
    mine = annotator(EXAMPLE)
    pairs = [pair(f"say again {number}", "say again", "no") for number in range(600)]
    verdicts = [one.preferred for one in mine.annotate(pairs)]
    # By hand: two of three words more, a chance of 1 / (1 + exp(-8 / 3)) = 0.935, give or take 0.01.
    assert verdicts.count("first") / 600 == pytest.approx(0.935, abs=0.04)
    assert [one.preferred for one in mine.annotate(pairs[::-1])] == verdicts[::-1]
    assert mine.annotate([pair("say", "a", "b")])[0].preferred == "tie"
