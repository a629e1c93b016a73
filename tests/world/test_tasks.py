"""Every expected answer below was written by hand from the instruction."""

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.world.tasks import CUES, FAMILIES, draw_request, right_part, understand

BY_HAND = [
    ("repeat fox three times", "", "fox fox fox"),
    ("please write fox owl two times", "", "fox owl fox owl"),
    ("sort from a to z : owl ant fox", "", "ant fox owl"),
    ("sort these words by letter :", "whale bean boot", "bean boot whale"),
    ("in detail : write from last to first : owl ant fox", "", "fox ant owl"),
    ("use capital letters : fox owl", "", "FOX OWL"),
    ("hello , how many words are here : fox owl fox ant", "", "four"),
    ("what is seven plus eight ?", "", "fifteen"),
    ("anna has two cups and gets nine more . how many now ?", "", "eleven"),
    ("add zero pens and ten eggs .", "", "ten"),
    ("which is bigger , the ant or the whale ?", "", "the whale"),
    ("which is smaller , the ant or the whale ?", "", "the ant"),
    ("which one is a kind of tool , the saw or the fox ?", "", "the saw"),
    ("is the fox red ?", "", "yes"),
    ("yes or no : is the fox green ?", "", "no"),
    ("what place is the fox ?", "", "forest"),
    ("briefly : tell me the kind of the plum .", "", "food"),
    ("write as a numbered list : fox owl", "", "1. fox 2. owl"),
    ("write as bullets : fox owl ant", "", "- fox - owl - ant"),
    ("join with commas : fox owl ant", "", "fox , owl , ant"),
]


@pytest.mark.parametrize(("instruction", "material", "answer"), BY_HAND)
def test_the_answer_follows_from_the_text(instruction: str, material: str, answer: str) -> None:
    assert " ".join(understand(instruction, material).expected) == answer


@pytest.mark.parametrize(
    ("instruction", "cue"),
    [
        ("describe the fox .", "plain"),
        ("be brief . describe the fox .", "brief"),
        ("please say much . describe the fox .", "detailed"),
    ],
)
def test_the_cue_says_how_much_detail_is_wanted(instruction: str, cue: str) -> None:
    assert understand(instruction).cue == cue


def test_more_detail_is_wanted_at_length_than_in_short() -> None:
    brief, plain, detailed = (understand(f"{cue} is the fox red ?".strip()) for cue in ("briefly :", "", "in detail :"))
    assert brief.wanted_facts < plain.wanted_facts < detailed.wanted_facts


@pytest.mark.parametrize(
    "text",
    [
        "write a poem about the fox",
        "which is bigger , the fox or the owl ?",  # both are small
        "describe the fox and the fox .",
        "repeat fox nine times",
        "name three animals but not the saw or the axe",
        "is the fox red ? ignore the rest",
        "{thing}",
    ],
)
def test_what_sets_no_task_of_the_meadow_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(DataError, match="expected an instruction of the meadow") as refusal:
        understand(text)
    assert text in str(refusal.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_drawn_request_is_understood_as_the_family_and_cue_it_was_drawn_for(family: str) -> None:
    rng = np.random.default_rng(0)
    for cue in CUES:
        for _ in range(40):
            request = draw_request(rng, family, cue, lambda text, material: True)
            assert request is not None
            task = understand(*request)
            assert (task.family, task.cue) == (family, cue)


@pytest.mark.parametrize(
    ("instruction", "answer", "right"),
    [
        ("sort from a to z : owl ant fox", "ant fox owl", 1.0),
        ("sort from a to z : owl ant fox", "ant owl fox", 1 / 6),  # one of three in place, halved
        ("sort from a to z : owl ant fox", "ant fox", 1 / 3),  # two of three in place, halved
        ("sort from a to z : owl ant fox", "", 0.0),
        ("what is two plus two ?", "four", 1.0),
        ("what is two plus two ?", "four four", 0.0),
        ("which is bigger , the ant or the whale ?", "the ant", 0.0),  # no credit for the article
        ("name three animals", "ant , fox , owl", 1.0),
        ("name three animals", "ant , ant , owl", 1 / 6),  # two animals less one said twice, of three, halved
        ("name three animals", "ant , fox , saw", 1 / 6),
        ("name two animals but not the ant or the fox", "ant , owl", 0.0),  # one right less one wrong
        ("list one animals and two tools", "saw , axe , owl", 1.0),
    ],
)
def test_partial_credit(instruction: str, answer: str, right: float) -> None:
    assert right_part(understand(instruction), tuple(answer.split())) == pytest.approx(right)
