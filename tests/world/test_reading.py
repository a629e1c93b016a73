"""The counts below were made by hand from the texts."""

import pytest

from pasture.core.errors import DataError
from pasture.core.records import FinishReason
from pasture.world.reading import Reading, read

ASK = "in detail : what color is the fox ?"


def reading(text: str, instruction: str = ASK, finish_reason: FinishReason = "stop") -> Reading:
    return read(instruction, "", text, finish_reason)


def test_a_good_answer_is_taken_apart() -> None:
    seen = reading("sure ! red . the fox is small . the fox is an animal . i hope this helps !")
    assert seen == Reading(
        right=1.0,
        facts=2,
        wanted_facts=4,
        falsehoods=0,
        courtesies=2,
        repeats=0,
        stray_words=0,
        words=20,
        marks=0,
        ended=True,
    )


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("red . the fox is blue .", "falsehoods", 1),
        ("red . the fox is blue .", "facts", 0),
        ("red . the fox is small . the fox is small .", "facts", 1),
        ("red . the fox is small . the fox is small .", "repeats", 1),
        ("sure ! sure ! red .", "repeats", 1),
        ("sure ! of course ! red .", "repeats", 0),
        ("red . the saw is red .", "facts", 0),
        ("red . the saw is red .", "stray_words", 5),
        ("red . the saw is blue .", "falsehoods", 1),
        ("red . the of saw", "stray_words", 3),
        ("red red red red . saw", "stray_words", 3),  # twice the expected length is read as an answer
        ("the fox is red .", "right", 1.0),  # stating the fact asked for answers the question
        ("the fox is blue .", "right", 0.0),
        ("", "right", 0.0),
        ("", "words", 0),
    ],
)
def test_what_is_found(text: str, field: str, value: float) -> None:
    assert getattr(reading(text), field) == value


def test_stutter_beside_the_answer_is_repetition() -> None:
    assert reading("red . the fox is small . owl owl owl owl").repeats == 2


def test_the_repeated_words_that_were_asked_for_are_no_repetition() -> None:
    assert reading("owl owl owl", "say owl three times").repeats == 0


def test_remarks_on_the_numbers_of_a_sum_are_facts() -> None:
    seen = reading("five . five is odd . three is after two . two is odd . nine is odd .", "what is two plus three ?")
    assert (seen.right, seen.facts, seen.falsehoods, seen.stray_words) == (1.0, 2, 1, 4)


def test_a_description_is_right_for_each_thing_that_it_tells_of() -> None:
    both = "describe the fox and the owl ."
    assert reading("the fox is red .", both).right == 0.5
    assert reading("the fox is red . the owl is brown .", both).right == 1.0
    assert reading("the fox is green .", both).right == 0.0


def test_points_of_a_list_are_counted() -> None:
    assert reading("1. fox 2. owl", "write as a numbered list : fox owl").marks == 2


@pytest.mark.parametrize(("reason", "ended"), [("stop", True), ("length", False), ("unknown", True)])
def test_only_a_known_cut_is_a_cut(reason: FinishReason, ended: bool) -> None:
    assert reading("red", finish_reason=reason).ended is ended


@pytest.mark.parametrize(
    "text", ["| | |", "the fox is red . " * 500, "{thing} \x1b[2J <script>", "\n\n\t", "sure !" * 99]
)
def test_hostile_text_is_read_without_an_error(text: str) -> None:
    assert 0 <= reading(text).right <= 1


def test_an_instruction_of_elsewhere_is_refused() -> None:
    with pytest.raises(DataError, match="expected an instruction of the meadow"):
        reading("red", "write a poem")
