"""What can be seen in an answer by rule: how right it is, its remarks and their truth, courtesy, repetition, strays.

The one place that takes answers apart; people and raters weigh what it finds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pasture.core.records import FinishReason
from pasture.world.tasks import Task, right_part, understand
from pasture.world.words import ATTRIBUTES, CLOSINGS, NUMBERS, OPENINGS, THINGS, VALUES, parity

_THING = "|".join(THINGS)
_NUMBER = "|".join(NUMBERS)
_VALUE = "|".join(value for attribute in ATTRIBUTES for value in VALUES[attribute])
_STATEMENT = re.compile(
    rf"\bthe (?P<thing>{_THING}) is (?:(?:an?|in the) )?(?P<value>{_VALUE})\b(?: \.)?"
    rf"|\b(?P<number>{_NUMBER}) is (?P<claim>odd|even|after (?:{_NUMBER}))\b(?: \.)?"
)
_COURTESY = re.compile("|".join(re.escape(phrase) for phrase in (*OPENINGS, *CLOSINGS)))
_CUT = " | "


@dataclass(frozen=True)
class Reading:
    """What one answer to one task holds."""

    right: float
    """0 to 1; see `right_part`."""
    facts: int
    """True remarks about what the task is about, each counted once."""
    wanted_facts: int
    """How many of them the instruction asks for."""
    falsehoods: int
    """Remarks that are not true."""
    courtesies: int
    """Opening and closing phrases."""
    repeats: int
    """Remarks and courtesies said before, and words said three times in a row beside the answer."""
    stray_words: int
    """Words that belong to no answer, remark or courtesy, and true remarks about something else."""
    words: int
    marks: int
    """Numbers and bullets that begin a point of a list."""
    ended: bool
    """False where the answer was cut off."""


@lru_cache(maxsize=400_000)
def read(instruction: str, input_text: str, text: str, finish_reason: FinishReason) -> Reading:
    """Everything that people and raters look at in an answer.

    Raises:
        DataError: if the instruction is none of the meadow's.
    """
    task = understand(instruction, input_text)
    plain = " ".join(text.split())
    courtesies = _COURTESY.findall(plain)
    rest = _COURTESY.sub(_CUT, plain)
    stated = list(_statements(rest))
    said = {key for key, _ in stated}
    facts = sum(_is_true(key) and _is_about(task, key) for key in said)
    off_topic = sum(len(words.split()) for key, words in stated if _is_true(key) and not _is_about(task, key))
    core, strays = _core(task, _STATEMENT.sub(_CUT, rest))
    return Reading(
        right=_rightness(task, core, said),
        facts=facts,
        wanted_facts=task.wanted_facts,
        falsehoods=sum(not _is_true(key) for key in said),
        courtesies=len(courtesies),
        repeats=len(stated) - len(said) + len(courtesies) - len(set(courtesies)) + _stutters(strays),
        stray_words=len(strays) + off_topic,
        words=len(plain.split()),
        marks=sum(word in _MARKS for word in plain.split()),
        ended=finish_reason != "length",
    )


_MARKS = {"-", "1.", "2.", "3.", "4.", "5."}
_Key = tuple[str, str]


def _statements(text: str) -> Iterator[tuple[_Key, str]]:
    for match in _STATEMENT.finditer(text):
        yield (match["thing"] or match["number"], match["value"] or match["claim"]), match[0]


def _is_true(key: _Key) -> bool:
    about, claim = key
    if about in THINGS:
        return any(THINGS[about].value(attribute) == claim for attribute in ATTRIBUTES)
    number = NUMBERS.index(about)
    return claim in (parity(number), f"after {NUMBERS[number - 1]}" if number else "")


def _is_about(task: Task, key: _Key) -> bool:
    about = key[0]
    return about in task.subjects or (about in NUMBERS and NUMBERS.index(about) in task.numbers)


def _core(task: Task, text: str) -> tuple[tuple[str, ...], list[str]]:
    """The words that stand for the answer itself, and the words left over.

    The answer is the first sentence that is neither remark nor courtesy; beyond twice its expected length it strays.
    """
    sentences = [sentence for piece in text.split("|") for sentence in _sentences(piece.split()) if sentence]
    if not sentences or task.family == "describe":
        return (), [word for sentence in sentences for word in sentence]
    longest = 2 * (len(task.expected) or 2 * sum(task.quota.values()))
    answer = sentences[0]
    return tuple(answer[:longest]), answer[longest:] + [word for sentence in sentences[1:] for word in sentence]


def _sentences(words: list[str]) -> Iterator[list[str]]:
    start = 0
    for at, word in enumerate([*words, "."]):
        if word == ".":
            yield words[start:at]
            start = at + 1


def _rightness(task: Task, core: tuple[str, ...], said: set[_Key]) -> float:
    if task.family == "describe":
        told = {about for about, claim in said if about in task.subjects and _is_true((about, claim))}
        return len(told) / len(task.subjects)
    if not core and task.asked_fact:
        thing, attribute = task.asked_fact
        return float((thing, THINGS[thing].value(attribute)) in said)
    return right_part(task, core)


def _stutters(words: list[str]) -> int:
    return sum(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))
