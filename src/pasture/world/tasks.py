"""What instructions of the meadow ask for: twelve families, each drawn at random and understood again from its text.

An instruction is a greeting, a cue that says how much detail is wanted, and a request, whose material may come as
input. The text alone carries the task, so that a judge needs nothing but the record.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast

import numpy as np

from pasture.core.errors import DataError
from pasture.core.templates import fill, slots
from pasture.world.words import (
    ATTRIBUTES,
    GOODS,
    KINDS,
    NAMES,
    NUMBERS,
    PLURALS,
    SIZES,
    THINGS,
    VALUES,
    Attribute,
)

Cue = Literal["brief", "plain", "detailed"]

GREETINGS = ("", "please", "hello ,", "can you help ?", "for my class :", "quick question :")
CUES: dict[Cue, tuple[str, ...]] = {
    "brief": ("briefly :", "answer in short :", "be brief ."),
    "plain": ("",),
    "detailed": ("in detail :", "explain at length :", "say much ."),
}
WANTED_FACTS: dict[Cue, int] = {"brief": 0, "plain": 2, "detailed": 4}
"""True remarks that people like to read beside the answer itself."""

REQUESTS: dict[str, tuple[str, ...]] = {
    "repeat": ("repeat {thing} {number} times", "say {thing} {number} times", "write {thing} {thing2} {number} times"),
    "list": (
        "name {number} {kinds}",
        "list {number} {kinds} and {number2} {kinds2}",
        "name {number} {kinds} but not the {thing} or the {thing2}",
    ),
    "sort": ("sort from a to z : {words}", "put in order : {words}", "sort these words by letter :>{words}"),
    "reverse": ("reverse the order : {words}", "write from last to first : {words}", "turn this around :>{words}"),
    "capitals": ("write in capitals : {words}", "use capital letters : {words}", "put this in capitals :>{words}"),
    "count": ("how many words are here : {words}", "count these words : {words}", "count the words :>{words}"),
    "add": (
        "what is {number} plus {number2} ?",
        "{name} has {number} {goods} and gets {number2} more . how many now ?",
        "add {number} {goods} and {number2} {goods2} .",
    ),
    "which": (
        "which is bigger , the {thing} or the {thing2} ?",
        "which is smaller , the {thing} or the {thing2} ?",
        "which one is a kind of {kind} , the {thing} or the {thing2} ?",
    ),
    "check": (
        "is the {thing} {value} ?",
        "is it true that the {thing} is {value} ?",
        "yes or no : is the {thing} {value} ?",
    ),
    "ask": (
        "what {attribute} is the {thing} ?",
        "tell me the {attribute} of the {thing} .",
        "{name} asks for the {attribute} of the {thing} .",
    ),
    "describe": (
        "describe the {thing} .",
        "describe the {thing} and the {thing2} .",
        "what can you tell {name} about the {thing} ?",
    ),
    "format": (
        "write as a numbered list : {words}",
        "write as bullets : {words}",
        "join with commas : {words}",
        "make a numbered list :>{words}",
    ),
}
"""Requests by family; what follows `>` is the instruction's input."""

FAMILIES = tuple(REQUESTS)

_ADJECTIVES: tuple[Attribute, ...] = ("color", "size", "feel")
_CHOICES: dict[str, tuple[str, ...]] = {
    "thing": tuple(THINGS),
    "number": NUMBERS[:11],
    "kinds": tuple(PLURALS.values()),
    "kind": KINDS,
    "name": NAMES,
    "goods": GOODS,
    "attribute": ATTRIBUTES,
    "value": tuple(value for attribute in _ADJECTIVES for value in VALUES[attribute]),
}
_KIND_OF_PLURAL = {plural: kind for kind, plural in PLURALS.items()}


@dataclass(frozen=True)
class Task:
    """What an instruction asks for, and what a good answer holds."""

    family: str
    cue: Cue
    expected: tuple[str, ...] = ()
    """The answer itself, word for word; empty where it is open (list, describe)."""
    subjects: frozenset[str] = frozenset()
    """Things that a remark may be about."""
    numbers: frozenset[int] = frozenset()
    """Numbers that a remark may be about."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """How many things of each kind a list must name."""
    asked_fact: tuple[str, Attribute] | None = None
    """A thing and the attribute asked of it; stating that fact is an answer too."""

    @property
    def wanted_facts(self) -> int:
        """How many true remarks are welcome; a description needs at least one for each thing."""
        wanted = WANTED_FACTS[self.cue]
        return max(wanted, len(self.subjects)) if self.family == "describe" else wanted


@dataclass(frozen=True)
class _Form:
    """One request, ready to be matched."""

    family: str
    template: str
    pattern: re.Pattern[str]


def _pattern(template: str) -> re.Pattern[str]:
    text = template.replace(">", " ")
    parts = re.split(r"\{([a-z0-9]+)\}", text)
    pieces = [re.escape(part) if at % 2 == 0 else f"(?P<{part}>{_slot_pattern(part)})" for at, part in enumerate(parts)]
    return re.compile("".join(pieces))


def _slot_pattern(slot: str) -> str:
    if slot == "words":
        thing = _slot_pattern("thing")
        return f"{thing}(?: {thing})*"
    return "(?:" + "|".join(_CHOICES[slot.rstrip("2")]) + ")"


_FORMS = tuple(
    _Form(family, request, _pattern(request)) for family, requests in REQUESTS.items() for request in requests
)
_HEAD = re.compile(
    "(?:(?:" + "|".join(re.escape(greeting) for greeting in GREETINGS if greeting) + ") )?"
    "(?:(?P<cue>" + "|".join(re.escape(text) for texts in CUES.values() for text in texts if text) + ") )?"
)


@lru_cache(maxsize=200_000)
def understand(instruction: str, input_text: str = "") -> Task:
    """The task that a text of the meadow sets.

    Raises:
        DataError: if the text is no instruction of the meadow, or asks for what has no single answer.
    """
    text = f"{instruction} {input_text}".strip()
    head = _HEAD.match(text)
    rest, cue_text = (text[head.end() :], head["cue"]) if head else (text, None)
    cue = next((cue for cue, texts in CUES.items() if cue_text in texts), "plain")
    for form in _FORMS:
        match = form.pattern.fullmatch(rest)
        task = match and _task(form, cast(Cue, cue), match.groupdict())
        if task:
            return task
    raise DataError(f"expected an instruction of the meadow, got {text!r:.200}. Families: {', '.join(FAMILIES)}.")


def _task(form: _Form, cue: Cue, values: Mapping[str, str]) -> Task | None:
    """The task of one form, or None where the values do not make one."""
    family, words = form.family, tuple(values.get("words", "").split())
    named = tuple(values[slot] for slot in ("thing", "thing2") if slot in values)
    numbers = tuple(NUMBERS.index(values[slot]) for slot in ("number", "number2") if slot in values)
    if len(set(named)) < len(named):
        return None
    subjects = frozenset(words or named)
    if family in ("sort", "reverse", "capitals", "count", "format"):
        expected = _rearranged(form, words)
        counted = frozenset({len(words)}) if family == "count" else frozenset()
        return Task(family, cue, expected, subjects, counted) if _fits(family, words) else None
    if family == "repeat":
        return Task(family, cue, named * numbers[0], subjects) if 2 <= numbers[0] <= 4 else None
    if family == "list":
        return _list_task(cue, values, numbers, named)
    if family == "add":
        total = sum(numbers)
        return Task(family, cue, (NUMBERS[total],), numbers=frozenset({*numbers, total}))
    if family == "which":
        return _which_task(form, cue, values, named)
    if family == "check":
        true = any(values["value"] == THINGS[named[0]].value(attribute) for attribute in _ADJECTIVES)
        return Task(family, cue, ("yes" if true else "no",), subjects)
    if family == "ask":
        attribute = cast(Attribute, values["attribute"])
        value = THINGS[named[0]].value(attribute)
        return Task(family, cue, (value,), subjects, asked_fact=(named[0], attribute))
    return Task("describe", cue, (), subjects)


def _fits(family: str, words: tuple[str, ...]) -> bool:
    smallest = {"capitals": 1, "count": 1, "format": 2}.get(family, 2)
    return smallest <= len(words) <= 5 and (family == "count" or len(set(words)) == len(words))


def _rearranged(form: _Form, words: tuple[str, ...]) -> tuple[str, ...]:
    """The expected words of a request that does something with given words."""
    if form.family == "sort":
        return tuple(sorted(words))
    if form.family == "reverse":
        return words[::-1]
    if form.family == "capitals":
        return tuple(word.upper() for word in words)
    if form.family == "count":
        return (NUMBERS[len(words)],)
    if "commas" in form.template:
        return tuple(part for word in words for part in (",", word))[1:]
    numbered = "numbered" in form.template
    return tuple(part for at, word in enumerate(words, 1) for part in (f"{at}." if numbered else "-", word))


def _list_task(cue: Cue, values: Mapping[str, str], numbers: tuple[int, ...], named: tuple[str, ...]) -> Task | None:
    kinds = [_KIND_OF_PLURAL[values[slot]] for slot in ("kinds", "kinds2") if slot in values]
    if len(set(kinds)) < len(kinds) or min(numbers) < 1 or not 2 <= sum(numbers) <= 5:
        return None
    if any(THINGS[name].kind not in kinds for name in named):
        return None
    subjects = frozenset(name for name, thing in THINGS.items() if thing.kind in kinds and name not in named)
    return Task("list", cue, subjects=subjects, quota=dict(zip(kinds, numbers, strict=True)))


def _which_task(form: _Form, cue: Cue, values: Mapping[str, str], named: tuple[str, ...]) -> Task | None:
    if "kind" in values:
        right = [name for name in named if THINGS[name].kind == values["kind"]]
    else:
        ranks = [SIZES.index(THINGS[name].size) for name in named]
        best = max(ranks) if "bigger" in form.template else min(ranks)
        right = [name for name, rank in zip(named, ranks, strict=True) if rank == best]
    return Task("which", cue, ("the", right[0]), frozenset(named)) if len(right) == 1 else None


_ALL_OR_NOTHING = ("count", "add", "which", "check", "ask")


def right_part(task: Task, answer: tuple[str, ...]) -> float:
    """How right the answer's core is, from 0 to 1: in place word by word, half at most unless all of it is right.

    A list earns the share of its quota that it names, less what it names beside it.
    """
    if task.family == "list":
        named = Counter(THINGS[word].kind for word in dict.fromkeys(answer) if word in task.subjects)
        hits = sum(min(named[kind], count) for kind, count in task.quota.items())
        extra = sum(word not in (",", "and") for word in answer) - hits
        share = max(0.0, hits - extra) / sum(task.quota.values())
        return share if share == 1 else share / 2
    if answer == task.expected or task.family in _ALL_OR_NOTHING:
        return float(answer == task.expected)
    hits = sum(given == wanted for given, wanted in zip(answer, task.expected, strict=False))
    return hits / max(len(answer), len(task.expected)) / 2


def draw_request(
    rng: np.random.Generator, family: str, cue: Cue, accepts: Callable[[str, str], bool]
) -> tuple[str, str] | None:
    """A random instruction of one family with its input, which is often empty; always one that can be understood.

    Every greeting is tried before the request is drawn anew. None after a thousand requests that `accepts` turns down.
    """
    for _ in range(1000):
        base, _, material = _drawn_request(rng, family).partition(">")
        cue_text = _pick(rng, CUES[cue])
        start = int(rng.integers(len(GREETINGS)))
        for greeting in GREETINGS[start:] + GREETINGS[:start]:
            instruction = " ".join(part for part in (greeting, cue_text, base) if part)
            if accepts(instruction, material) and _understood(instruction, material):
                return instruction, material
    return None


def _drawn_request(rng: np.random.Generator, family: str) -> str:
    """A request with its slots filled, which may not make sense."""
    request = _pick(rng, REQUESTS[family])
    values = {slot: _draw_slot(rng, family, slot) for slot in slots(request)}
    if family == "check" and rng.random() < 0.5:  # else nearly every answer would be no
        values["value"] = THINGS[values["thing"]].value(_ADJECTIVES[rng.integers(len(_ADJECTIVES))])
    if family == "list" and "thing" in values:  # else few exceptions would be of the kind asked for
        named = tuple(name for name, thing in THINGS.items() if PLURALS[thing.kind] == values["kinds"])
        values |= {"thing": _pick(rng, named), "thing2": _pick(rng, named)}
    return fill(request, values)


def _understood(instruction: str, input_text: str) -> bool:
    try:
        understand(instruction, input_text)
    except DataError:
        return False
    return True


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[rng.integers(len(choices))]


def _draw_slot(rng: np.random.Generator, family: str, slot: str) -> str:
    if slot == "words":
        count = int(rng.integers(2, 5)) if family != "count" else int(rng.integers(1, 6))
        return " ".join(_CHOICES["thing"][at] for at in rng.permutation(len(THINGS))[:count])
    if slot.startswith("number") and family != "add":
        return NUMBERS[rng.integers(1, 5)]
    return _pick(rng, _CHOICES[slot.rstrip("2")])
