"""Comparisons are built from exactly the completions that belong together."""

import pytest

from pasture.core.errors import DataError
from pasture.core.records import Completion, Instruction
from pasture.generate.pairs import against_reference, sample_pairs


def instruction(number: int) -> Instruction:
    return Instruction(id=f"i{number}", instruction=f"say {number}", source="test", split="test")


def completion(number: int, seed: int, system: str = "a") -> Completion:
    return Completion(instruction_id=f"i{number}", text=f"{system} {number} {seed}", system=system, seed=seed)


def test_a_pair_is_the_two_lowest_seeds_in_order_of_the_instructions():
    rows = [completion(2, 1), completion(1, 2), completion(1, 0), completion(2, 0), completion(1, 1)]
    pairs = sample_pairs([instruction(1), instruction(2)], rows)
    assert [(p.instruction.id, p.first.seed, p.second.seed) for p in pairs] == [("i1", 0, 1), ("i2", 0, 1)]


def test_an_instruction_with_one_completion_cannot_be_compared():
    with pytest.raises(DataError, match="'i1' has 1 completions"):
        sample_pairs([instruction(1)], [completion(1, 0)])


def test_the_reference_comes_first_and_the_system_second():
    (pair,) = against_reference([instruction(1)], [completion(1, 0, "reference")], [completion(1, 0)])
    assert (pair.first.system, pair.second.system) == ("reference", "a")


def test_comparison_ids_differ_between_systems_and_stay_for_equal_content():
    reference = [completion(1, 0, "reference")]
    one, other, again = (
        against_reference([instruction(1)], reference, [completion(1, 0, system)])[0].id for system in ("a", "b", "a")
    )
    assert one == again != other


@pytest.mark.parametrize(
    ("instructions", "reference", "answers", "message"),
    [
        ([1], [1], [2], "'i2', which is no instruction"),
        ([1], [], [1], "no completion for instruction 'i1'"),
        ([1, 2], [1, 2], [1], r"1 of 2 instructions have no answer \(first: 'i2'\)"),
    ],
)
def test_what_does_not_join_is_an_error(instructions, reference, answers, message):
    with pytest.raises(DataError, match=message):
        against_reference(
            [instruction(n) for n in instructions],
            [completion(n, 0, "reference") for n in reference],
            [completion(n, 0) for n in answers],
        )


def test_texts_in_place_of_records_are_told_how_they_become_some():
    said = r"kind Completion, got 'an answer'\. A text becomes one by Completion\(instruction_id="
    for make in (
        lambda: sample_pairs([instruction(1)], ["an answer"]),  # type: ignore[list-item]
        lambda: against_reference([instruction(1)], ["an answer"], [completion(1, 0)]),  # type: ignore[list-item]
        lambda: against_reference([instruction(1)], [completion(1, 0)], ["an answer"]),  # type: ignore[list-item]
    ):
        with pytest.raises(DataError, match=said):
            make()
    with pytest.raises(DataError, match="kind Instruction, got 'say it'"):
        sample_pairs(["say it"], [completion(1, 0)])  # type: ignore[list-item]
