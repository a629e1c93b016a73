"""Lesson 4. Learning: noisy preferences become a model, here by DPO, and people are asked whether it is a better one.

Run it with `python examples/4_learn.py`; it writes to runs/examples/4_learn.
"""

import shutil
from pathlib import Path

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.files import read_json_lines
from pasture.core.ports import silent
from pasture.core.templates import TEMPLATES
from pasture.data.load import load_split
from pasture.evaluate.win_rate import win_rate
from pasture.generate.completions import LocalSystem
from pasture.generate.pairs import against_reference, sample_pairs
from pasture.learn import dpo
from pasture.models.sampler_config import SamplerConfig
from pasture.recipe import start_folder

FOLDER = Path("runs/examples/4_learn")
PLAIN, SAMPLING, BASE = TEMPLATES["plain"], SamplerConfig(max_new_tokens=48), start_folder("meadow-base")

# Lessons 1 to 3 in four lines: instructions, two answers to each, a label for each pair, a quarter of them wrong.
instructions, _ = load_split("meadow", "preference", 1200, seed=0)
base = LocalSystem(BASE, PLAIN, SAMPLING)
pairs = sample_pairs(instructions, base.complete(instructions, system="base", samples=2, seed=0, progress=silent))
labels = MeadowPool(seed=0, label_flip_probability=0.25).annotate(pairs)

# DPO raises the chance of the preferred answer against the other's, held near the model it began with by beta. Every
# method of `pasture.learn` is one file: its formula with a source, its Config, its train.
config = dpo.Config(epochs=1, batch_size=32, learning_rate=3e-4, beta=0.1, max_tokens=96, held_out_count=100)
shutil.rmtree(FOLDER, ignore_errors=True)  # else a training that was finished or killed here would be gone on with
dpo.train(
    config,
    start=BASE,
    feedback=list(zip(pairs, labels, strict=True)),
    template=PLAIN,
    folder=FOLDER,
    seed=0,
    progress=silent,
)
rows = read_json_lines(FOLDER / "metrics.jsonl")
print(f"{len(rows)} steps; loss {rows[0]['loss']:.3f} at the first (ln 2 = 0.693), {rows[-1]['loss']:.3f} at the last")

# What a method pleases is its own labels; whether it got better, others must say, on instructions that it never saw.
# Look once: who tries settings until this number pleases has trained on it. That is what the validation split is for.
evaluation, _ = load_split("meadow", "evaluation", 805, seed=0)
before = base.complete(evaluation, system="base", samples=1, seed=0, progress=silent)
learned = LocalSystem(FOLDER / "model", PLAIN, SAMPLING)
after = learned.complete(evaluation, system="dpo", samples=1, seed=0, progress=silent)
duels = against_reference(evaluation, before, after)
verdicts = MeadowPeople(seed=0, votes=3).annotate(duels)
found = win_rate(verdicts, duels, system="dpo", reference="base", judge="people", seed=0)
low, high = found.interval_low, found.interval_high
print(f"people prefer dpo to base in {found.rate:.1%} of {found.judged} cases (95% interval {low:.1%} to {high:.1%})")
