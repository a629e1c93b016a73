"""A world of thirty words in which every method can show in seconds that it learns."""

import numpy as np

from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.templates import PLAIN
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, save_model
from pasture.models.tiny import tiny_model, word_tokenizer

WORDS = tuple(f"w{number}" for number in range(28))
LIKED = "w1"
TEMPLATE = PLAIN


def quiet(done, total, **figures):
    pass


def save_base(folder, shape="llama", **sizes):
    tokenizer = word_tokenizer(WORDS)
    save_model(tiny_model(shape, len(tokenizer), seed=0, **sizes), tokenizer, folder)
    return folder


def encoder(folder, max_tokens=64):
    return Encoder(load_tokenizer(folder), TEMPLATE, max_tokens=max_tokens)


def text(rng, low, high, words=WORDS):
    return " ".join(rng.choice(words, int(rng.integers(low, high))))


def instructions(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Instruction(id=f"i{number}", instruction=text(rng, 2, 7), source="toy", split="toy") for number in range(count)
    ]


def completion(instruction, words, number=0, finish_reason="stop"):
    return Completion(instruction_id=instruction.id, text=words, system="toy", seed=number, finish_reason=finish_reason)


def demonstrations(count, seed=0):
    rng = np.random.default_rng(seed + 1)
    return [(instruction, completion(instruction, text(rng, 1, 9))) for instruction in instructions(count, seed)]


def liked_share(words):
    """What the toy's people go by: how much of an answer is the liked word."""
    spoken = words.split()
    return spoken.count(LIKED) / max(1, len(spoken))


def judged(first, second, *, preferred=None, instruction):
    comparison = Comparison.of(instruction, completion(instruction, first, 0), completion(instruction, second, 1))
    if preferred is None:
        preferred = "first" if liked_share(first) > liked_share(second) else "second"
    error = "no verdict" if preferred == "unjudged" else None
    return comparison, Preference(comparison_id=comparison.id, annotator="toy", preferred=preferred, error=error)


def separable_feedback(count, seed=0):
    """Pairs in which one answer has the liked word and the other does not: a rule that a small model can see."""
    rng = np.random.default_rng(seed + 2)
    others = [word for word in WORDS if word != LIKED]
    feedback = []
    for instruction in instructions(count, seed):
        plain, liked = text(rng, 2, 9, others).split(), text(rng, 1, 8, others).split()
        liked.insert(int(rng.integers(0, len(liked) + 1)), LIKED)
        both = [" ".join(liked), " ".join(plain)]
        rng.shuffle(both)
        feedback.append(judged(*both, instruction=instruction))
    return feedback


def count_liked(instructions, completions):
    """A scorer for PPO: the liked words of an answer, up to four."""
    return [min(4, answer.text.split().count(LIKED)) for answer in completions]
