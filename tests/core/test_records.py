"""Records are strict: what they do not define does not pass, and what passes comes back as it was."""

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pasture.core.errors import DataError
from pasture.core.records import (
    Comparison,
    Completion,
    Instruction,
    Preference,
    Record,
    Score,
    WinRate,
    by_id,
    content_id,
)

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
WORDS = TEXT.filter(str.strip)

INSTRUCTION: dict[str, Any] = {"id": "i1", "instruction": "Say hi.", "input": "", "source": "greet", "split": "sft"}
COMPLETION: dict[str, Any] = {"instruction_id": "i1", "text": "Hi.", "system": "sft", "seed": 0}
PREFERENCE: dict[str, Any] = {"comparison_id": "c1", "annotator": "person-3", "preferred": "second"}
SCORE: dict[str, Any] = {"instruction_id": "i1", "system": "sft", "seed": 0, "scorer": "rm", "value": 0.5}
WIN_RATE: dict[str, Any] = {
    **dict.fromkeys(("system", "reference", "judge"), "x"),
    **dict.fromkeys(("asked", "judged", "unjudged", "wins", "losses", "ties"), 1),
    "rate": 0.5,
    "standard_error": 0.1,
}


def refused(kind: type[Record], row: dict[str, Any]) -> tuple[str, ...]:
    """Where `kind` finds fault with `row`, first fault first; the same from Python and from JSON."""
    with pytest.raises(ValidationError) as from_json:
        kind.model_validate_json(json.dumps(row))
    return tuple(str(part) for part in from_json.value.errors()[0]["loc"])


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (Instruction, INSTRUCTION),
        (Completion, COMPLETION),
        (Preference, PREFERENCE),
        (Score, SCORE),
        (WinRate, WIN_RATE),
        (Comparison, {"id": "c", "instruction": INSTRUCTION, "first": COMPLETION, "second": {**COMPLETION, "seed": 1}}),
    ],
)
def test_a_good_row_passes_and_each_of_its_fields_is_needed_or_has_a_default(
    kind: type[Record], row: dict[str, Any]
) -> None:
    assert kind.model_validate_json(json.dumps(row)) == kind.model_validate_json(
        kind.model_validate_json(json.dumps(row)).to_json()
    )
    assert refused(kind, {**row, "colour": "red"}) == ("colour",)
    for name in row:
        without = {key: value for key, value in row.items() if key != name}
        if name == "input":  # the one field here that the definition gives a default
            kind.model_validate_json(json.dumps(without))
        else:
            assert refused(kind, without) == (name,)


@pytest.mark.parametrize(
    ("kind", "row", "change"),
    [
        (Instruction, INSTRUCTION, {"id": 7}),
        (Instruction, INSTRUCTION, {"id": ""}),
        (Instruction, INSTRUCTION, {"instruction": ""}),
        (Instruction, INSTRUCTION, {"instruction": " \t\n\u3000"}),
        (Instruction, INSTRUCTION, {"input": None}),
        (Instruction, INSTRUCTION, {"split": ["sft"]}),
        (Completion, COMPLETION, {"seed": "0"}),
        (Completion, COMPLETION, {"seed": 0.5}),
        (Completion, COMPLETION, {"seed": True}),
        (Completion, COMPLETION, {"text": 5}),
        (Completion, COMPLETION, {"finish_reason": "done"}),
        (Completion, COMPLETION, {"token_count": -1}),
        (Preference, PREFERENCE, {"preferred": 1.5}),
        (Preference, PREFERENCE, {"preferred": "First"}),
        (Preference, PREFERENCE, {"probability_first": 1.01}),
        (Preference, PREFERENCE, {"probability_first": -0.01}),
        (Preference, PREFERENCE, {"probability_first": math.nan}),
        (Preference, PREFERENCE, {"flipped_by_noise": 1}),
        (Preference, PREFERENCE, {"cost_usd": -0.01}),
        (Preference, PREFERENCE, {"cost_usd": math.inf}),
        (Preference, PREFERENCE, {"evidence": "yes"}),
        (Preference, PREFERENCE, {"evidence": {"logprob": math.nan}}),
        (Preference, PREFERENCE, {"evidence": {"deep": [{"er": -math.inf}]}}),
        (Score, SCORE, {"value": math.nan}),
        (Score, SCORE, {"value": "0.5"}),
        (WinRate, WIN_RATE, {"rate": 1.5}),
        (WinRate, WIN_RATE, {"wins": -1}),
    ],
)
def test_a_wrong_value_is_refused_at_its_field(kind: type[Record], row: dict[str, Any], change: dict[str, Any]) -> None:
    assert refused(kind, {**row, **change})[:1] == tuple(change)


def test_the_fault_in_a_nested_record_is_found_where_it_is() -> None:
    row = {"id": "c", "instruction": INSTRUCTION, "first": COMPLETION, "second": {**COMPLETION, "text": None}}
    assert refused(Comparison, row) == ("second", "text")


@pytest.mark.parametrize(
    "fields", [{"text": "\ud800"}, {"system": "a\udfffb"}, {"instruction_id": "\udc80"}], ids=["text", "system", "id"]
)
def test_no_lone_surrogate_gets_into_a_record_made_in_python(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Completion(**{**COMPLETION, **fields})


@pytest.mark.parametrize("evidence", [{"x": "\ud800"}, {"\ud800": 1}, {"x": object()}, {"x": {1, 2}}, {"x": math.nan}])
def test_evidence_is_plain_json_so_that_a_judged_record_can_always_be_stored(evidence: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="evidence"):
        Preference(**PREFERENCE, evidence=evidence)


@pytest.mark.parametrize(
    ("preferred", "error", "holds"),
    [("unjudged", None, False), ("unjudged", "429", True), ("tie", "429", False), ("tie", None, True)],
)
def test_unjudged_and_only_unjudged_has_a_reason(preferred: str, error: str | None, holds: bool) -> None:
    row = {**PREFERENCE, "preferred": preferred, "error": error}
    if holds:
        Preference(**row)
    else:
        with pytest.raises(ValidationError, match="'error' must be given exactly when"):
            Preference(**row)


@pytest.mark.parametrize("side", ["first", "second"])
def test_a_comparison_is_of_answers_to_its_own_instruction(side: str) -> None:
    sides = {"first": COMPLETION, "second": COMPLETION, side: {**COMPLETION, "instruction_id": "i2"}}
    with pytest.raises(ValidationError, match=f"{side} answers instruction 'i2', expected 'i1'"):
        Comparison.model_validate_json(json.dumps({"id": "c", "instruction": INSTRUCTION, **sides}))


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Completion(**COMPLETION).text = "Bye."  # type: ignore[misc]


@given(text=TEXT, system=WORDS, seed=st.integers(-(2**63), 2**63 - 1), tokens=st.none() | st.integers(0, 10**6))
def test_any_completion_is_one_line_and_comes_back_equal(text: str, system: str, seed: int, tokens: int | None) -> None:
    completion = Completion(instruction_id="i", text=text, system=system, seed=seed, token_count=tokens)
    line = completion.to_json()
    assert "\n" not in line
    assert "\r" not in line
    assert Completion.model_validate_json(line) == completion
    assert Completion.model_validate_json(line).to_json() == line
    assert json.loads(line)["text"] == text  # the standard library reads the same text


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_to_the_last_bit(value: float) -> None:
    score = Score(instruction_id="i", system="s", seed=0, scorer="r", value=value)
    back = Score.model_validate_json(score.to_json()).value
    assert math.copysign(1, back) == math.copysign(1, value)
    assert back == value
    assert json.loads(score.to_json())["value"] == value


def test_fields_are_written_in_the_order_of_their_definition() -> None:
    shuffled = dict(reversed(COMPLETION.items()))
    assert Completion(**shuffled).to_json() == (
        '{"instruction_id":"i1","text":"Hi.","system":"sft","seed":0,"finish_reason":"unknown","token_count":null}'
    )


def test_a_comparison_is_called_by_the_hash_of_what_it_compares() -> None:
    instruction = Instruction(**INSTRUCTION)
    first, second = Completion(**COMPLETION), Completion(**{**COMPLETION, "text": "Good day.", "seed": 1})
    # By hand from the definition: sixteen digits of SHA-256 over the JSON list of what is compared.
    identity = '["i1", "Say hi.", "", "sft", 0, "Hi.", "sft", 1, "Good day."]'
    expected = hashlib.sha256(identity.encode()).hexdigest()[:16]
    assert Comparison.of(instruction, first, second).id == expected
    assert Comparison.of(instruction, second, first).id != expected
    renamed = first.model_copy(update={"finish_reason": "stop", "token_count": 3})
    assert Comparison.of(instruction, renamed, second).id == expected


def test_two_comparisons_of_one_id_are_told_unless_they_compare_the_same() -> None:
    asked = Instruction(id="i", instruction="Say hi.", source="s", split="p")
    other_source = asked.model_copy(update={"source": "elsewhere"})
    first, second, third = (Completion(instruction_id="i", text=text, system=text, seed=0) for text in "abc")
    one = Comparison(id="1", instruction=asked, first=first, second=second)
    same = Comparison(id="1", instruction=other_source, first=first, second=second)
    assert by_id([one, same, one]) == {"1": one}
    other = Comparison(id="1", instruction=asked, first=first, second=third)
    with pytest.raises(DataError, match="id '1' and differ: 'a' with 'b' on instruction 'i', and 'a' with 'c'"):
        by_id([one, other])


def test_content_ids_tell_apart_what_joined_text_would_not() -> None:
    ids = [content_id("a", "b"), content_id("ab"), content_id("a,b"), content_id("a", 1), content_id("a", "1")]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)
