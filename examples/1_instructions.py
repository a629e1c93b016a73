"""Lesson 1. Instructions: what systems are asked, and why each instruction belongs to one split alone.

Run it with `python examples/1_instructions.py`; it writes to runs/examples/1_instructions.
"""

from collections import Counter
from pathlib import Path

from pasture.core.files import write_records
from pasture.data.load import load_split

FOLDER = Path("runs/examples/1_instructions")

# The paper's splits in small. Each has one use: demonstrations to imitate; instructions whose answers are compared;
# instructions that methods practise on; a split to choose settings by; one to report on, touched once, at the end.
SIZES = {"sft": 1000, "preference": 1000, "unlabeled": 1000, "validation": 200, "evaluation": 805}

splits = {}
for split, count in SIZES.items():
    instructions, demonstrations = load_split("meadow", split, count, seed=0)
    write_records(FOLDER / f"{split}.jsonl", instructions)
    write_records(FOLDER / f"{split}-demonstrations.jsonl", demonstrations)
    splits[split] = instructions
    print(f"{split:<11}{len(instructions):>5} instructions{len(demonstrations):>5} demonstrations")

# A record is one line of JSON, the same on every machine. This is how an instruction and its demonstration read.
instructions, demonstrations = load_split("meadow", "sft", 3, seed=0)
for instruction, demonstration in zip(instructions, demonstrations, strict=True):
    print(f"\n  asked:    {instruction.instruction} {instruction.input}\n  answered: {demonstration.text}")

# A model that has seen an evaluation instruction in training is not evaluated but quizzed on what it remembers. In the
# meadow the text of an instruction decides its split, so no draw with any seed can put it into two.
evaluation = splits.pop("evaluation")
trained_on = {(one.instruction, one.input) for instructions in splits.values() for one in instructions}
shared = sum((one.instruction, one.input) in trained_on for one in evaluation)
print(f"\n{shared} of {len(evaluation)} evaluation instructions are in another split")

# Five sources, each with a mix of its own: a system can shine on one and fail on another, and a board shows both.
sources = Counter(one.source for one in evaluation)
print("sources:", ", ".join(f"{source} {count}" for source, count in sorted(sources.items())))
