"""Lesson 2. Completions: two answers of one model to each instruction, side by side, ready to be judged.

Run it with `python examples/2_completions.py`; it writes to runs/examples/2_completions.
"""

from pathlib import Path

from pasture.core.files import write_records
from pasture.core.ports import silent
from pasture.core.templates import TEMPLATES
from pasture.data.load import load_split
from pasture.generate.completions import LocalSystem
from pasture.generate.pairs import sample_pairs
from pasture.models.sampler_config import SamplerConfig
from pasture.recipe import start_folder

FOLDER = Path("runs/examples/2_completions")

instructions, _ = load_split("meadow", "preference", 100, seed=0)

# A system is a model folder, a template that turns an instruction into a prompt, and a way to draw tokens. At
# temperature 1 the answers are drawn from the model itself; lower ones make it bolder and more alike.
base = LocalSystem(start_folder("meadow-base"), TEMPLATES["plain"], SamplerConfig(temperature=1.0, max_new_tokens=48))
completions = base.complete(instructions, system="base", samples=2, seed=0, progress=silent)

# Preferences are about pairs: the same instruction, two answers. Annotators are asked for no more than which is better,
# since people find that far easier than to give marks.
pairs = sample_pairs(instructions, completions)
write_records(FOLDER / "comparisons.jsonl", pairs)
for pair in pairs[:2]:
    print(f"  asked:  {pair.instruction.instruction} {pair.instruction.input}")
    print(f"  first:  {pair.first.text}\n  second: {pair.second.text}\n")

# The draws belong to the instruction and the number of the sample. So an answer does not depend on what else is asked,
# a larger run repeats a smaller one word for word, and two systems are compared under the same luck.
alone = base.complete(instructions[40:41], system="base", samples=2, seed=0, progress=silent)
print("asked alone, instruction 40 gets the same answers:", alone == completions[80:82])

equal = sum(pair.first.text == pair.second.text for pair in pairs)
unfinished = sum(one.finish_reason == "length" for one in completions)
print(f"{len(pairs)} pairs, {equal} of equal answers, {unfinished} answers cut by the limit of 48 tokens")
