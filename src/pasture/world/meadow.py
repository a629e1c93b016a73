"""The meadow's instructions, their splits, demonstrations and vocabulary."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from pasture.core.errors import DataError
from pasture.core.records import Completion, Instruction, content_id
from pasture.core.seeds import stream, uniform
from pasture.world import words
from pasture.world.tasks import CUES, FAMILIES, GREETINGS, REQUESTS, Cue, draw_request
from pasture.world.writing import DEMONSTRATION, PRETRAINING, WRITERS, write

SPLIT_SIZES = {"sft": 10_000, "preference": 20_000, "unlabeled": 20_000, "validation": 2_000}
"""Instructions that the paper's splits hold; a recipe may draw fewer."""
SPLIT_SHARES = {
    "pretraining": 0.2,
    "sft": 0.15,
    "preference": 0.25,
    "unlabeled": 0.25,
    "validation": 0.05,
    "evaluation": 0.05,
    "live": 0.05,
}
"""How the hash of a text deals all possible instructions out to the splits."""
EVALUATION_SIZES = {"drills": 252, "chat": 188, "facts": 129, "essays": 80, "puzzles": 156}
"""The counts of the five sources of the paper's evaluation set (self-instruct, oasst, helpful, vicuna, koala)."""
EVALUATION_COUNT = 805

_EVEN: dict[str, float] = dict.fromkeys(FAMILIES, 1.0)
_MIXES: dict[str, Mapping[str, float]] = {
    "drills": {"repeat": 1, "sort": 1, "reverse": 1, "capitals": 1, "format": 2, "list": 1, "count": 1},
    "chat": {"ask": 2, "describe": 2, "check": 1, "list": 1, "which": 1},
    "facts": {"ask": 2, "check": 2, "which": 2, "describe": 1},
    "essays": {"describe": 3, "list": 1, "ask": 1},
    "puzzles": {"add": 3, "count": 2, "which": 1, "sort": 1, "reverse": 1},
    "live": {
        "ask": 3,
        "describe": 4,
        "check": 2,
        "list": 2,
        "add": 1,
        "which": 1,
        "format": 1,
        "sort": 1,
        "repeat": 0.5,
    },
}
_EVEN_CUES: dict[Cue, float] = {"brief": 0.25, "plain": 0.4, "detailed": 0.35}
_CUE_MIXES: dict[str, dict[Cue, float]] = {
    "essays": {"brief": 0.0, "plain": 0.1, "detailed": 0.9},
    "live": {"brief": 0.15, "plain": 0.6, "detailed": 0.25},
}


def split_of(instruction: str, input_text: str = "") -> str:
    """The split that a text belongs to, by its hash alone: the same in every run, whatever the seed and the sizes."""
    draw = uniform(0, "meadow-split", instruction, input_text)
    for split, share in SPLIT_SHARES.items():
        draw -= share
        if draw < 0:
            return split
    return "live"


def instructions(split: str, count: int | None = None, seed: int = 0) -> list[Instruction]:
    """`count` different instructions of a training split, evenly over the families; by default as many as the paper.

    A smaller draw with the same seed is the beginning of a larger one. `source` is the family.

    Raises:
        DataError: if there is no such split, or `count` is negative or more than the split can hold.
    """
    if split not in SPLIT_SIZES:
        raise DataError(f"the meadow has no split {split!r}; expected one of {', '.join(SPLIT_SIZES)}.")
    return _draw(split, SPLIT_SIZES[split] if count is None else count, seed)


def evaluation_set(count: int = EVALUATION_COUNT, seed: int = 0) -> list[Instruction]:
    """Instructions of five sources in the proportions of `EVALUATION_SIZES`, each with its own mix of families."""
    drawn: list[Instruction] = []
    taken: set[str] = set()
    for source, share in _apportioned(count).items():
        drawn += _draw("evaluation", share, seed, source, taken)
    return drawn


def live_set(count: int = EVALUATION_COUNT, seed: int = 0) -> list[Instruction]:
    """Instructions as users of a demo would type them: a mix that none of the other sets has."""
    return _draw("live", count, seed, "live")


def demonstrations(instructions: Sequence[Instruction], seed: int = 0) -> list[Completion]:
    """One answer each by the meadow's demonstrators (system "demonstrations"): right about three times in four.

    Raises:
        DataError: at an instruction that is none of the meadow's.
    """
    return [write(instruction, DEMONSTRATION, "demonstrations", seed) for instruction in instructions]


def written_by(writer: str, instructions: Sequence[Instruction], system: str, seed: int = 0) -> list[Completion]:
    """One answer each by one of `WRITERS`, none of whom learns anything.

    Raises:
        DataError: if there is no such writer, or an instruction is none of the meadow's.
    """
    if writer not in WRITERS:
        raise DataError(f"the meadow has no writer {writer!r}; expected one of {', '.join(WRITERS)}.")
    return [write(instruction, WRITERS[writer], system, seed) for instruction in instructions]


def pretraining_texts(count: int, seed: int = 0) -> list[tuple[Instruction, Completion]]:
    """What a base model reads: instructions of a split of their own with answers of little worth (system "found")."""
    found = _draw("pretraining", count, seed)
    return [(instruction, write(instruction, PRETRAINING, "found", seed)) for instruction in found]


@lru_cache(maxsize=1)
def vocabulary() -> list[str]:
    """Every word of the meadow, by its number: pad, end, unknown and line break, then the rest sorted.

    Texts are split at spaces, and a line break is a word of its own.
    """
    texts = [*GREETINGS, *(text for cue in CUES.values() for text in cue)]
    texts += [request.replace(">", " ") for requests in REQUESTS.values() for request in requests]
    texts += [*words.OPENINGS, *words.CLOSINGS, *words.NUMBERS, *words.NAMES, *words.GOODS, *words.PLURALS.values()]
    texts += [value for values in words.VALUES.values() for value in values]
    texts += [*words.THINGS, *(name.upper() for name in words.THINGS), *words.ATTRIBUTES]
    texts += ["yes no the is a an in . , - 1. 2. 3. 4. 5. odd even after and"]
    found = {word for text in texts for word in text.split() if "{" not in word}
    return [words.PAD, words.END, words.UNKNOWN, words.NEWLINE, *sorted(found)]


def _draw(
    split: str, count: int, seed: int, source: str | None = None, taken: set[str] | None = None
) -> list[Instruction]:
    """Different instructions of one split, from the mix of `source`, or evenly with the family as the source."""
    if count < 0:
        raise DataError(f"expected a number of instructions of 0 or more, got {count}.")
    mix, cues = _MIXES.get(source or "", _EVEN), _CUE_MIXES.get(source or "", _EVEN_CUES)
    families, chances = list(mix), np.array(list(mix.values()), dtype=float)
    cue_names, cue_chances = list(cues), np.array(list(cues.values()))
    family_bounds, cue_bounds = chances.cumsum() / chances.sum(), cue_chances.cumsum()
    rng = stream(seed, "meadow-instructions", split, source or "")
    seen = set() if taken is None else taken

    def is_new(text: str, material: str) -> bool:
        return split_of(text, material) == split and content_id("meadow", text, material) not in seen

    drawn: list[Instruction] = []
    while len(drawn) < count:
        family = families[int(np.searchsorted(family_bounds, rng.random(), side="right"))]
        cue = cue_names[int(np.searchsorted(cue_bounds, rng.random(), side="right"))]
        request = draw_request(rng, family, cue, is_new)
        if request is None:
            raise DataError(f"the meadow's split {split!r} holds fewer than {count} instructions; ask for less.")
        identity = content_id("meadow", *request)
        seen.add(identity)
        drawn.append(
            Instruction(id=identity, instruction=request[0], input=request[1], source=source or family, split=split)
        )
    return drawn


def _apportioned(count: int) -> dict[str, int]:
    """`count` over the five sources in their proportions, by largest remainder."""
    exact = {source: count * size / EVALUATION_COUNT for source, size in EVALUATION_SIZES.items()}
    whole = {source: int(share) for source, share in exact.items()}
    by_remainder = sorted(exact, key=lambda source: whole[source] - exact[source])
    for source in by_remainder[: count - sum(whole.values())]:
        whole[source] += 1
    return whole
