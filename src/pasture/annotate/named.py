"""The annotators that a recipe may name: the meadow's own, pools of language models, campaigns of people, files."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pasture.annotate.choose import PoolSettings, chosen_annotator
from pasture.annotate.human import People, PeopleConfig
from pasture.annotate.own import AnnotatorFile, OwnAnnotator
from pasture.annotate.raters import MEADOW_ANNOTATORS
from pasture.core.errors import RecipeError
from pasture.core.ports import Annotator, Progress, silent


class Annotators(BaseModel):
    """Annotators of the user's own, by the name that the recipe gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pools: Mapping[str, PoolSettings] = {}
    campaigns: Mapping[str, PeopleConfig] = {}
    files: Mapping[str, AnnotatorFile] = {}

    def only(self, name: str) -> "Annotators":
        """What is needed to ask the annotator `name`, and no more."""
        return Annotators(
            pools={name: self.pools[name]} if name in self.pools else {},
            campaigns={name: self.campaigns[name]} if name in self.campaigns else {},
            files={name: self.files[name]} if name in self.files else {},
        )


def named_annotator(
    name: str,
    own: Annotators,
    *,
    seed: int,
    label_flip_probability: float = 0.0,
    people_votes: int = 1,
    ledgers: Path | None = None,
    progress: Progress = silent,
) -> Annotator:
    """The annotator that a recipe calls `name`; nothing is asked, opened or spent before its first comparison.

    People of a campaign and files bring their own noise: flips are for pools. So is `ledgers`, the folder where a run
    keeps what it has spent of each pool.

    Raises:
        RecipeError: if nobody has that name, or a pool's settings do not fit together.
    """
    if name in own.campaigns:
        return People(own.campaigns[name], progress=progress)
    if name in own.files:
        return OwnAnnotator(name, own.files[name], seed=seed)
    if name not in own.pools and name not in MEADOW_ANNOTATORS:
        known = ", ".join(["people", "greedy", "pool", "pool-1 to pool-13", *own.pools, *own.campaigns, *own.files])
        raise RecipeError(
            f"no annotator is called {name!r}. Expected one of {known}; language models are named by a table "
            "[pools.NAME], a labelling campaign by [campaigns.NAME], a Python file by [annotators.NAME]."
        )
    return chosen_annotator(
        name,
        own.pools,
        seed=seed,
        label_flip_probability=label_flip_probability,
        people_votes=people_votes,
        ledgers=ledgers,
        progress=progress,
    )
