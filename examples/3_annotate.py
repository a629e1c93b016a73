"""Lesson 3. Preferences: simulated annotators stand in for people, and are made to differ and err as people do.

Run it with `python examples/3_annotate.py`; it writes to runs/examples/3_annotate.
"""

from collections.abc import Sequence
from pathlib import Path

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.files import write_records
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Preference
from pasture.data.load import load_split
from pasture.world.meadow import demonstrations

FOLDER = Path("runs/examples/3_annotate")


class Longer:
    """An annotator of one's own: `identity` and `annotate` are all that it takes, be it a rule, a model or a person."""

    identity = {"annotator": "longer"}  # noqa: RUF012

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """The longer answer wins, whatever it says."""
        longer = ["first" if len(one.first.text) > len(one.second.text) else "second" for one in comparisons]
        return [
            Preference(comparison_id=one.id, annotator="longer", preferred=side)
            for one, side in zip(comparisons, longer, strict=True)
        ]


# Two people's answers to each instruction; equal ones leave nothing to prefer.
instructions, _ = load_split("meadow", "sft", 1500, seed=0)
answers = zip(instructions, demonstrations(instructions, seed=1), demonstrations(instructions, seed=2), strict=True)
pairs = [Comparison.of(*three) for three in answers if three[1].text != three[2].text]

# The truth to measure against: what the majority of three hidden people says. Nothing may train on it.
majority = MeadowPeople(seed=1, votes=3).annotate(pairs)

annotators: dict[str, Annotator] = {
    "one person": MeadowPeople(seed=0),
    "pool": MeadowPool(seed=0, label_flip_probability=0.0),
    "pool, 25% flips": MeadowPool(seed=0, label_flip_probability=0.25),
    "longer": Longer(),
}
# People differ, so a pool that always agreed with them would be no likeness. Flips of 25% throw a coin for half of all
# labels: with less noise than people's, a method could be pushed ever further and never be seen to go too far. And
# agreement is not all: "longer" agrees well, and a model that learns from it learns to talk.
print(f"agreement with the majority of people on {len(pairs)} pairs")
for name, annotator in annotators.items():
    labels = annotator.annotate(pairs)
    write_records(FOLDER / f"{name.replace(', ', '-').replace(' ', '-').replace('%', '')}.jsonl", labels)
    agreed = sum(one.preferred == other.preferred for one, other in zip(labels, majority, strict=True)) / len(pairs)
    print(f"  {name:<16}{agreed:.0%}   chosen by a coin: {sum(one.flipped_by_noise for one in labels)}")
