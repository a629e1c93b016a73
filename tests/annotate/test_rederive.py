"""Preferences made again from raw replies are those that AlpacaEval wrote down."""

import json
import math
from typing import Any

import pytest

from pasture.annotate.alpaca_eval.parsers import parser_of
from pasture.annotate.alpaca_eval.rederive import rederived, reply_of
from pasture.annotate.compat import shows_second_first
from pasture.core.errors import DataError
from pasture.core.tables import Row, read_rows
from tests.evaluate import published

RANKING = parser_of("ranking_parser", {"model_1_name": "model_1"})
LOGPROB = parser_of("logprob_parser", {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False})

STRAIGHT = next(f"i{number}" for number in range(9) if not shows_second_first(f"i{number}", 0))
SWITCHED = next(f"i{number}" for number in range(9) if shows_second_first(f"i{number}", 0))

FIRST = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"


def choice(**logprobs: float) -> dict[str, Any]:
    """A choice as OpenAI's service gives it, with the tokens that could have stood first."""
    top = [{"token": token, "bytes": None, "logprob": value} for token, value in logprobs.items()]
    content = [{"token": "?", "bytes": None, "logprob": -1.0, "top_logprobs": top}]
    return {"finish_reason": "length", "index": 0, "logprobs": {"content": content}, "text": "?"}


@pytest.mark.parametrize(
    ("row", "preference"),
    [
        ({"instruction": STRAIGHT, "raw_completion": FIRST}, 1),
        ({"instruction": SWITCHED, "raw_completion": FIRST}, 2),
        ({"instruction": STRAIGHT, "is_switched": True, "raw_completion": FIRST}, 2),
        ({"instruction": STRAIGHT, "raw_completion": "I like both."}, None),
        ({"instruction": STRAIGHT, "raw_completion": None}, None),
        ({"instruction": STRAIGHT, "raw_completion": None, "output_1": "x", "output_2": "x"}, 1.5),
        ({"instruction": STRAIGHT, "raw_completion": "{broken"}, None),
    ],
)  # fmt: skip
def test_rankings_are_read_and_turned_back(row, preference):
    assert rederived([row], RANKING) == [preference]


@pytest.mark.parametrize(
    ("switched", "preference"),
    [
        (False, 1), ("False", 1), ("0", 1), (0, 1),
        (True, 2), ("True", 2), ("true", 2), (1.0, 2),
        # Nothing known: AlpacaEval's draw, which switches this instruction.
        (math.nan, 2), ("", 2), ("nan", 2), (None, 2),
    ],
)  # fmt: skip
def test_whether_answers_were_switched_is_read_as_tables_write_it(switched, preference):
    row: Row = {"instruction": SWITCHED, "is_switched": switched, "raw_completion": FIRST}
    assert rederived([row], RANKING) == [preference]


def test_whether_answers_were_switched_is_never_guessed():
    row: Row = {"instruction": SWITCHED, "is_switched": "perhaps", "raw_completion": FIRST}
    with pytest.raises(DataError, match="annotation 1: is_switched is 'perhaps'"):
        rederived([row], RANKING)


@pytest.mark.parametrize("reply", ["7", "-1", "True", "0.5"])
def test_a_value_that_is_no_preference_is_none(reply):
    row: Row = {"instruction": STRAIGHT, "is_switched": False, "raw_completion": reply}
    assert rederived([row], parser_of("eval_parser", {})) == [None]


@pytest.mark.parametrize("wrap", [lambda value: value, json.dumps])
def test_log_probabilities_are_turned_back_too(wrap):
    # By hand: 2 - 0.3 / (0.3 + 0.1) = 1.25 as shown, 1.75 where the second was shown first.
    raw = wrap(choice(m=math.log(0.3), M=math.log(0.1), Both=math.log(0.2)))
    rows = [{"instruction": STRAIGHT, "raw_completion": raw}, {"instruction": SWITCHED, "raw_completion": raw}]
    assert rederived(rows, LOGPROB) == pytest.approx([1.25, 1.75], abs=1e-12)


def test_a_choice_without_log_probabilities_has_its_text():
    assert reply_of({"text": "m", "logprobs": None}).text == "m"
    assert reply_of({"text": "m", "logprobs": None}).logprobs == ()


def given(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def tokens(row: Row) -> dict[str, float]:
    return {name: float(str(row[f"logprob_{name}"])) for name in "mM" if given(row[f"logprob_{name}"])}


@published.needs_published
@pytest.mark.parametrize("system", [name for name in published.systems("ae2") if not name.startswith("FuseChat")])
def test_published_preferences_follow_from_their_replies(system):
    texts = {row["instruction_sha16"]: row["instruction"] for row in published.instructions()}
    rows = read_rows(published.FOLDER / f"ae2/annotations/{system}.parquet")
    judged = [
        {
            "instruction": texts[str(row["instruction_sha16"])],
            "raw_completion": choice(**tokens(row)),
            "preference": row["preference"],
        }
        for row in rows
        if not row["same_output"] and given(row["preference"])
    ]
    made = rederived(judged, LOGPROB)
    differences = [abs((value or math.nan) - row["preference"]) for value, row in zip(made, judged, strict=True)]
    assert len(differences) >= 790
    assert max(differences) < 1e-9
