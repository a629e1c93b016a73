"""Answers written by rule, in a style that can be set: demonstrations, pretraining texts, a model's errors."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from pasture.core.records import Completion, Instruction
from pasture.core.seeds import stream
from pasture.world.tasks import Task, understand
from pasture.world.words import (
    ATTRIBUTES,
    CLOSINGS,
    NUMBERS,
    OPENINGS,
    THINGS,
    VALUES,
    Attribute,
    number_statement,
    parity,
    statement,
)


@dataclass(frozen=True)
class Style:
    """How a writer writes, in probabilities."""

    right: float
    """That the answer itself is right."""
    true: float
    """That a remark is true, one by one."""
    opening: float
    closing: float
    on_measure: float
    """That the number of remarks is drawn up to what is wanted; else from 0 to 4, whatever is wanted."""
    detail: float = 1.0
    """The most remarks that it draws, as a share of that."""
    repeating: float = 0.0
    """That a remark or courtesy is said twice."""
    off_topic: float = 0.0
    """That a remark is about something nobody asked about, one by one."""
    cut: float = 0.0
    """That the answer breaks off."""


DEMONSTRATION = Style(right=0.75, true=0.95, opening=0.3, closing=0.25, on_measure=0.8)
"""A willing person of middling care: right three times in four, sometimes courteous, seldom thorough."""
PRETRAINING = Style(right=0.6, true=0.8, opening=0.15, closing=0.15, on_measure=0.0, repeating=0.1, off_topic=0.2)
"""What is found lying about: the meadow's language and facts, with little sense of what was asked."""
CAREFUL = Style(right=0.97, true=1.0, opening=0.4, closing=0.4, on_measure=1.0)
"""Somebody who knows the meadow and takes the time: nearly always right, as thorough as was asked."""
HASTY = Style(right=0.5, true=0.85, opening=0.1, closing=0.1, on_measure=0.5, detail=0.5)
"""Somebody in a hurry: right every other time, and brief."""
MODEL_LIKE = Style(
    right=0.39,
    true=0.88,
    opening=0.28,
    closing=0.22,
    on_measure=0.8,
    detail=0.85,
    repeating=0.12,
    off_topic=0.15,
    cut=0.005,
)
"""What a fine-tuned model of about a million parameters gives at temperature 1; calibrates people and pool in tests."""

WRITERS: Mapping[str, Style] = {"careful": CAREFUL, "hasty": HASTY, "found": PRETRAINING}
"""Writers that a recipe can set beside the systems that learn, as better and worse ones that nobody trains here."""


def write(instruction: Instruction, style: Style, system: str, seed: int, sample: int = 0) -> Completion:
    """One answer; it depends on the instruction's text, the style's draws and the two seeds alone."""
    rng = stream(seed, "answer", system, sample, instruction.instruction, instruction.input)
    task = understand(instruction.instruction, instruction.input)
    core = _core(rng, task, rng.random() < style.right)
    parts = [" ".join(core) + " ."] if core else []
    parts += _remarks(rng, task, style, core)
    if parts and rng.random() < style.repeating:
        parts.insert(int(rng.integers(len(parts))), parts[-1])
    if rng.random() < style.opening:
        parts.insert(0, OPENINGS[rng.integers(len(OPENINGS))])
    if rng.random() < style.closing:
        parts.append(CLOSINGS[rng.integers(len(CLOSINGS))])
    words = " ".join(parts).split()
    cut = rng.random() < style.cut
    if cut:
        words = words[: int(rng.integers(1, len(words) + 1))] if words else words
    return Completion(
        instruction_id=instruction.id,
        text=" ".join(words),
        system=system,
        seed=sample,
        finish_reason="length" if cut else "stop",
        token_count=len(words) + (not cut),
    )


def _core(rng: np.random.Generator, task: Task, right: bool) -> list[str]:
    """The answer itself, right or with one plausible mistake; nothing for a description."""
    if task.family == "describe":
        return []
    answer = _listed(rng, task) if task.family == "list" else list(task.expected)
    return answer if right else _mistaken(rng, task, answer)


def _listed(rng: np.random.Generator, task: Task) -> list[str]:
    names = [
        str(name)
        for kind, count in task.quota.items()
        for name in rng.choice(sorted(n for n in task.subjects if THINGS[n].kind == kind), size=count, replace=False)
    ]
    return [part for name in names for part in (",", name)][1:]


def _mistaken(rng: np.random.Generator, task: Task, answer: list[str]) -> list[str]:
    if task.family == "check":
        return ["no"] if answer == ["yes"] else ["yes"]
    if task.family == "which":
        return ["the", *(task.subjects - {answer[1]})]
    if task.family in ("add", "count"):
        number = NUMBERS.index(answer[0])
        return [NUMBERS[(number + int(rng.choice([-2, -1, 1, 2]))) % len(NUMBERS)]]
    if task.asked_fact:
        return [_other(rng, VALUES[task.asked_fact[1]], answer)]
    step = 2 if "," in answer or task.family == "format" else 1
    if rng.random() < 0.4 and len(answer) > step:
        return answer[:-step]
    if task.family != "list" and rng.random() < 0.5 and len(answer) > step and len(set(answer)) > 1:
        swapped = answer.copy()
        swapped[-1], swapped[-1 - step] = swapped[-1 - step], swapped[-1]
        return swapped
    right = task.subjects if task.family == "list" else {answer[-1]}
    foreign = _other(rng, tuple(THINGS), right)
    return [*answer[:-1], foreign.upper() if task.family == "capitals" else foreign]


def _other(rng: np.random.Generator, choices: tuple[str, ...], right: Collection[str]) -> str:
    rest = [choice for choice in choices if choice not in right]
    return rest[rng.integers(len(rest))]


def _remarks(rng: np.random.Generator, task: Task, style: Style, core: list[str]) -> list[str]:
    """Sentences beside the answer, no remark twice; a description opens with one for each thing."""
    least = len(task.subjects) if task.family == "describe" else 0
    bound = task.wanted_facts if rng.random() < style.on_measure else 4
    most = max(least, round(style.detail * bound))
    count = int(rng.integers(least, most + 1))
    named = [word for word in core if word in task.subjects]
    subjects = sorted(named or task.subjects)
    rng.shuffle(subjects)
    said: dict[str, None] = {}
    for at in range(3 * count):
        if len(said) == count:
            break
        off_topic = rng.random() < style.off_topic
        said[_remark(rng, task, subjects, at, (off_topic, rng.random() < style.true))] = None
    return list(said)


def _remark(rng: np.random.Generator, task: Task, subjects: list[str], at: int, draws: tuple[bool, bool]) -> str:
    """A sentence about the next subject, or about anything when off topic, true or false."""
    off_topic, true = draws
    if not off_topic and task.numbers and (not subjects or rng.random() < 0.5):
        number = sorted(task.numbers)[rng.integers(len(task.numbers))]
        return _number_remark(rng, number, true)
    name = list(THINGS)[rng.integers(len(THINGS))] if off_topic else subjects[at % len(subjects)]
    attribute: Attribute = ATTRIBUTES[rng.integers(len(ATTRIBUTES))]
    value = THINGS[name].value(attribute)
    return statement(name, attribute, value if true else _other(rng, VALUES[attribute], (value,)))


def _number_remark(rng: np.random.Generator, number: int, true: bool) -> str:
    if number == 0 or rng.random() < 0.5:
        return number_statement(number, parity(number if true else number + 1))
    before = NUMBERS[number - 1]
    return number_statement(number, before if true else _other(rng, NUMBERS, (before,)))
