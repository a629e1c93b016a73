"""Lesson 6. Validation: would people have ranked the systems as the simulated annotators do?

Run it with `python examples/6_validate.py`; it writes to runs/examples/6_validate.
"""

import json
from dataclasses import replace
from pathlib import Path

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.files import write_text
from pasture.core.ports import Annotator
from pasture.data.load import load_split
from pasture.evaluate.outcomes import Floats, outcomes_of
from pasture.generate.pairs import against_reference
from pasture.validate.rank_correlation import rank_correlation
from pasture.world.writing import DEMONSTRATION, PRETRAINING, write

FOLDER = Path("runs/examples/6_validate")

# Systems that differ in ways that people may care about: being right, being thorough, staying with what was asked.
STYLES = {
    "found": PRETRAINING,
    "guessing": replace(DEMONSTRATION, right=0.3),
    "terse": replace(DEMONSTRATION, detail=0.0, opening=0.0, closing=0.0),
    "twin": DEMONSTRATION,
    "rambling": replace(DEMONSTRATION, off_topic=0.5, repeating=0.5),
    "careful": replace(DEMONSTRATION, right=1.0, true=1.0, on_measure=1.0),
}

instructions, references = load_split("meadow", "evaluation", 805, seed=0)
comparisons = {}
for name, style in STYLES.items():
    answers = [write(instruction, style, name, seed=7) for instruction in instructions]
    comparisons[name] = against_reference(instructions, references, answers)


def earned(judge: Annotator) -> dict[str, Floats]:
    """What each system earned on each instruction; the one row stands for the one seed that was run."""
    credit = {}
    for name, pairs in comparisons.items():
        [outcomes] = outcomes_of(judge.annotate(pairs), pairs, judge="judge", reference="demonstrations")
        credit[name] = outcomes.credit[None]
    return credit


# One simulation, one truth, the same systems on the same instructions: the paper's main study with methods left out.
simulated, people = earned(MeadowPool(seed=0, label_flip_probability=0.0)), earned(MeadowPeople(seed=0, votes=3))
found = rank_correlation(simulated, people, seed=0)
write_text(FOLDER / "ranking.json", json.dumps(found.to_dict(), indent=1) + "\n")
print("system      people  simulated")
for point in found.points:
    print(f"{point.system:<10}{point.people.value:>8.1%}{point.simulated.value:>11.1%}")
low, high = found.spearman.interval
print(f"Spearman {found.spearman.value:.2f}, 95% interval {low:.2f} to {high:.2f}")

# One number hides where the two part. A swap of which both were sure would be no bad luck: a blind spot of the pool.
for pair in found.swapped():
    sure = "both are sure" if pair in found.contradictions() else "may be chance"
    print(f"the pool puts {pair.first} above {pair.second}, people the other way round: {sure}")
