"""What steps are told: the parts of a recipe that each kind of work depends on, as plain JSON."""

import hashlib
import json
from typing import Any

from pasture.annotate.named import Annotators, named_annotator
from pasture.core.ports import Annotator
from pasture.plan.material import files_fingerprint, identity_of, start_fingerprint
from pasture.recipe import MEADOW, Baseline, Feedback, Recipe, Selection


def method_settings(recipe: Recipe, name: str) -> dict[str, Any]:
    """The settings of the method that makes the system `name`."""
    table = recipe.learn[name]
    told = ("method", "learns_from", "code", "scorer", "scorer_code")
    return {
        **{key: table[key] for key in told if key in table and key != "learns_from"},
        "config": {key: value for key, value in table.items() if key not in told},
        "seed": recipe.seed,
        "template": recipe.model.template,
        "leave_out_long": recipe.data.leave_out_long,
    }


def start_settings(recipe: Recipe) -> dict[str, Any]:
    """The model that everything starts from, and what its files hold; what of it is trained is each method's own."""
    told = recipe.model.model_dump(exclude={"parameter_count", "weights"})
    return {**told, "start_fingerprint": start_fingerprint(recipe)}


def baseline_settings(recipe: Recipe, baseline: Baseline, split: str) -> dict[str, Any]:
    """Who wrote a baseline's answers to a split; of a file, what it holds."""
    if baseline.writer:
        return {"writer": baseline.writer, "seed": recipe.seed}
    file = getattr(baseline, split)
    return {"file": file, "fingerprint": files_fingerprint(file)}


def data_settings(recipe: Recipe) -> dict[str, Any]:
    """Which instructions there are; of files, what they hold. Which are too long to learn from each method says."""
    table = {**recipe.data.model_dump(exclude={"leave_out_long"}), "seed": recipe.seed}
    if recipe.data.source == MEADOW:
        return table
    named = [name for name in (recipe.data.source, recipe.data.evaluation_source) if name]
    return {**table, "files": [files_fingerprint(name) for name in named]}


def feedback_settings(recipe: Recipe) -> dict[str, Any]:
    """Preferences from a file, and what it holds."""
    feedback = recipe.feedback
    return {
        "file": feedback.file,
        "labels": list(feedback.labels),
        "count": recipe.data.preference,
        "fingerprint": files_fingerprint(feedback.file),
    }


def label_settings(recipe: Recipe, who: Feedback | Selection) -> dict[str, Any]:
    """Who labels; the hash of its identity redoes the labels when a release changes the annotators."""
    own = own_annotators(recipe).only(who.annotator)
    annotator = named_annotator(who.annotator, own, seed=recipe.seed, label_flip_probability=who.label_flip_probability)
    told = {"annotator": who.annotator, "label_flip_probability": who.label_flip_probability}
    asked = {"own": _plain(own), "identity": identity_hash(annotator), "retry_unjudged": _retries(own)}
    return {**told, "seed": recipe.seed, **asked}


def judge_settings(recipe: Recipe) -> dict[str, Any]:
    """Who evaluates, each without added noise."""
    votes, names = recipe.evaluate.people_votes, recipe.evaluate.judges
    own = {name: own_annotators(recipe).only(name) for name in names}
    judges = [named_annotator(name, own[name], seed=recipe.seed, people_votes=votes) for name in names]
    return {
        "judges": list(names),
        "seed": recipe.seed,
        "people_votes": votes,
        "own": {name: _plain(one) for name, one in own.items()},
        "identities": [identity_hash(judge) for judge in judges],
        "retry_unjudged": [_retries(one) for one in own.values()],
    }


def own_annotators(recipe: Recipe) -> Annotators:
    """The annotators that the recipe describes itself."""
    return Annotators(pools=recipe.pools, campaigns=recipe.campaigns, files=recipe.annotators)


def _retries(own: Annotators) -> bool:
    """Whether what was left unjudged is asked about again: no verdict depends on it, and yet it redoes a step."""
    return any(pool.retry_unjudged for pool in own.pools.values())


def _plain(own: Annotators) -> dict[str, Any]:
    return own.model_dump(mode="json", exclude_defaults=True)


def identity_hash(annotator: Annotator) -> str:
    """Hash of all that an annotator's verdicts depend on."""
    return hashlib.sha256(json.dumps(identity_of(annotator), sort_keys=True).encode()).hexdigest()
