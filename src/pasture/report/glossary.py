"""The words of a page that a newcomer trips over, each with what it means; a page lists those that it uses."""

import re
from collections.abc import Collection, Mapping
from html import unescape

SYSTEMS = {
    "base": "The language model before anything was taught: where supervised fine-tuning set out.",
    "sft": "Supervised fine-tuning: the base model after it imitated demonstrations. Other methods set out from it.",
    "best_of_n": "Draws n answers from the SFT model and keeps the one that the reward model scores highest; trains "
    "nothing.",
    "ppo": "Proximal policy optimization: learns, step by step, to write answers that the reward model scores higher.",
    "rloo": "Learns from scores of its own answers, each held against the mean of the others to the same instruction.",
    "grpo": "Learns from scores of its own answers, each held against the group of answers to the same instruction.",
    "expert_iteration": "Round by round draws several answers, keeps the best by the reward model and imitates them.",
    "quark": "Sorts its own answers by score into classes and learns to write like the best class.",
    "dpo": "Direct preference optimization: makes the preferred answer of each labelled pair likelier than the other, "
    "without a reward model.",
    "online_dpo": "As dpo, on pairs of answers that the model itself just wrote.",
    "ipo": "As dpo, with a squared loss that does not push pairs apart without end.",
    "simpo": "As dpo, without a reference model and by the mean over an answer's tokens.",
    "kto": "Learns from labels one by one: which answers were good and which were not.",
    "feedme": "Imitates the preferred answer of each pair.",
    "reward_conditioning": "Imitates both answers of each pair behind a word for good or bad, and answers behind "
    "\u201cgood\u201d.",
    "reward_model": "Learned from labelled pairs to give an answer a score, so that preferred answers score higher.",
    "demonstrations": "Answers written for imitation; here also the reference that every system is compared with.",
}
"""Systems by the names that recipes give them; what chooses or trains them is said in full in docs/methods."""

MEADOW = {
    "careful": "A writer of the meadow who learns nothing: right 97 times in 100, as thorough as was asked.",
    "hasty": "A writer of the meadow who learns nothing: right every other time, and brief.",
    "found": "A writer of the meadow: who wrote the texts that the base model grew up on.",
    "people": "The meadow's people: sixteen, simulated too. They are the truth that all else is held against, and "
    "hidden where no method learns from what they say.",
    "simulated annotators": "Thirteen raters, the pool, each with a rule of its own, none of them judging quite as "
    "people do. Training asks them in people's place.",
    "pool": "The thirteen simulated annotators, each with a rule of its own.",
    "greedy": "One simulated judge without chance: its labels have no noise, and all of the pool's bias.",
    "chat": "A source of instructions: short questions and descriptions.",
    "drills": "A source of instructions: repeating, sorting, reversing and formatting words.",
    "essays": "A source of instructions: descriptions, most of them at length.",
    "facts": "A source of instructions: questions with one right answer.",
    "puzzles": "A source of instructions: adding, counting, comparing.",
}

TERMS = {
    "win rate": "Share of comparisons with the reference that a system wins, a tie counting half.",
    "points": "Percentage points: from 40% to 45% is 5 points.",
    "SE": "Standard error: how far a figure strays by the chance of which instructions were asked.",
    "interval": "The range of values that the data leave plausible. A 95% interval holds the truth in 95 of 100 such "
    "measurements.",
    "p": "How often chance alone would show a difference as large, were the two equally good; below 0.05 is usually "
    "called significant.",
    "nats": "Unit of information, as bits are, by the natural logarithm: 1 nat is 1.44 bits.",
    "KL": "Kullback-Leibler divergence: how far a trained model has moved from the one that it set out from; 0 is not "
    "at all.",
    "entropy": "How undecided the model is about its next word; near 0 it always says the same.",
    "loss": "What a training makes small.",
    "held out": "Kept back from training, to see how it does on what it has not seen.",
    "validation split": "Instructions on which steps and settings are chosen, in place of those of the evaluation set.",
    "reward model": SYSTEMS["reward_model"],
    "proxy reward": "The reward model's score: what training aims at in place of what people want.",
    "label noise": "Labels turned round at random, to make simulated annotators as inconsistent as people.",
    "flips": "The labels that label noise turned round, as a share of all.",
    "bias": "How far the majority of an annotator's labels is from the majority of people's.",
    "variance": "How far one label of an annotator is from the majority of its other labels.",
    "Spearman": "How alike two orders are: 1 the same, 0 unrelated, \u22121 reversed.",
    "Kendall": "How alike two orders are, by the share of pairs that stand the same way in both.",
    "R²": "Share of the differences in one list that a straight line through the other explains.",
    "Holm": "A correction that keeps many tests together from raising more false alarms than one.",
    "transfer": "Trained in the simulation, judged by people.",
}  # fmt: skip

_UNREAD = re.compile(r'<(style|title|pre|h1)\b.*?</\1>|<div class="(?:said|asked)".*?</div>', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def words_of(html: str, own: Mapping[str, str], systems: Collection[str], *, meadow: bool) -> dict[str, str]:
    """The words that a page uses, with their meanings, in the order of this module's tables.

    Titles, answers and recipes are not read: what they say is not the page's own. `own` holds words of the run, such
    as names that a recipe gave its systems; they come first and win over ours. Names of systems are explained only
    where they are among `systems`, and what is the meadow's own only where the page is about the meadow.
    """
    text = unescape(_TAG.sub(" ", _UNREAD.sub(" ", html)))
    named = {name: meaning for name, meaning in SYSTEMS.items() if name in systems}
    known = {**named, **(MEADOW if meadow else {}), **TERMS}
    ordered = {**own, **{word: meaning for word, meaning in known.items() if word not in own}}
    return {word: meaning for word, meaning in ordered.items() if _uses(text, word)}


def _uses(text: str, word: str) -> bool:
    """Whether the word stands in the text, with a capital or without; a single letter only as it is."""
    flags = 0 if len(word) == 1 or word.isupper() else re.IGNORECASE
    return re.search(rf"(?<![\w@.-]){re.escape(word)}(?![\w-])", text, flags) is not None
