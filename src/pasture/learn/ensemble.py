"""Reward model ensemble: several reward models from other random beginnings, and a score that doubts where they differ.

With r_1 ... r_k the members' scores of an answer, the ensemble's is

    mean          (1/k) sum r_i
    worst         min r_i
    uncertainty   mean - c (1/k) sum (r_i - mean)^2

Source: Coste et al. 2023, https://arxiv.org/abs/2310.02743 (worst-case and uncertainty-weighted
optimization), with its five members as the default. Each member is trained as in `reward_model.py`.

What differs:
1. Members differ in their heads' first weights and in the order of the pairs; they begin as one language model.
2. Each member's scores are centred on the judged answers, so that no member is always the worst for its offset.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.errors import ModelError, RecipeError
from pasture.core.files import write_text
from pasture.core.own_file import OWN_FILE_SUFFIX
from pasture.core.ports import Progress
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.seeds import derived_seed
from pasture.core.templates import PromptTemplate
from pasture.learn import reward_model
from pasture.learn.feedback import encode_feedback, split
from pasture.learn.own_scorer import OwnScorer
from pasture.learn.resume import METRICS_FILE, MODEL_FOLDER, claim, fingerprint
from pasture.machine.distributed import check_same, on_main
from pasture.machine.meter import MetricsLog
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, within_context

LIST_FILE = "ensemble.json"
"""In an ensemble's folder: who its members are, and how their scores become one."""

Aggregate = Literal["mean", "worst", "uncertainty"]


class Config(reward_model.Config):
    """Settings of a reward model ensemble: those of its members, and how their scores become one."""

    members: int = Field(5, ge=2)
    """Reward models, each with a head and an order of pairs of its own."""
    aggregate: Aggregate = "uncertainty"
    """How their scores become one: their mean, the worst, or the mean less what they disagree by."""
    variance_coefficient: float = Field(0.5, ge=0)
    """c: what a variance of one among the members' scores takes off; of use where `aggregate` is "uncertainty"."""
    held_out_count: int = Field(0, ge=0)
    """Pairs kept back from all members, whole instructions at a time, to measure the ensemble's accuracy on."""


class Listing(BaseModel):
    """What `ensemble.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: tuple[str, ...] = Field(min_length=1)
    """Folders of reward models, relative to the file's own."""
    aggregate: Aggregate
    variance_coefficient: float = Field(ge=0, allow_inf_nan=False)


def read_list(folder: Path) -> Listing:
    """The members of the ensemble in `folder`.

    Raises:
        ModelError: if there is no list, or it says something else.
    """
    path = folder / LIST_FILE
    try:
        return Listing.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        first_line = str(error).splitlines()[0]
        raise ModelError(
            f"{path} cannot be read as an ensemble ({first_line}). Expected JSON with 'members' (folders of reward "
            "models), 'aggregate' (mean, worst or uncertainty) and 'variance_coefficient'."
        ) from error


def aggregated(score_KA: np.ndarray[Any, Any], aggregate: Aggregate, variance_coefficient: float) -> list[float]:
    """One score for each of A answers from those of K members."""
    mean_A = score_KA.mean(axis=0)
    if aggregate == "worst":
        scores_A = score_KA.min(axis=0)
    elif aggregate == "uncertainty":
        scores_A = mean_A - variance_coefficient * ((score_KA - mean_A) ** 2).mean(axis=0)
    else:
        scores_A = mean_A
    return [float(score) for score in scores_A]


@dataclass(frozen=True)
class EnsembleScorer:
    """A trained ensemble as a `Scorer`."""

    members: Sequence[reward_model.ModelScorer]
    aggregate: Aggregate
    variance_coefficient: float

    @classmethod
    def load(cls, folder: Path, template: PromptTemplate, **more: Any) -> Self:
        """The ensemble that `ensemble.json` in `folder` lists; `more` goes to `ModelScorer.load`.

        Raises:
            ModelError: if there is no such list, it says something else, or a member is no reward model.
        """
        listing = read_list(folder)
        members = [reward_model.ModelScorer.load(folder / member, template, **more) for member in listing.members]
        return cls(members, listing.aggregate, listing.variance_coefficient)

    def check_prompts(self, instructions: Sequence[Instruction]) -> None:
        """See that each prompt leaves room for an answer, before there are any.

        Raises:
            DataError: if one does not.
        """
        for member in self.members:
            member.check_prompts(instructions)

    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
        """The score of each completion, higher is better.

        Raises:
            DataError: if a completion answers another instruction, or a prompt is too long.
        """
        scores = self.member_scores(instructions, completions)
        return aggregated(scores, self.aggregate, self.variance_coefficient)

    def member_scores(
        self, instructions: Sequence[Instruction], completions: Sequence[Completion]
    ) -> np.ndarray[Any, Any]:
        """Each member's score of each completion, of shape K A."""
        return np.array([member(instructions, completions) for member in self.members])


def load_scorer(
    folder: Path, template: PromptTemplate, **more: Any
) -> reward_model.ModelScorer | EnsembleScorer | OwnScorer:
    """The scorer that a folder holds: an ensemble where there is a list of members, else a reward model.

    In place of a folder a Python file of the user's own may stand, which runs as part of this process.

    Raises:
        ModelError: if it holds neither.
        RecipeError: if it is a file that is no scorer.
    """
    if folder.suffix == OWN_FILE_SUFFIX:
        return OwnScorer(folder)
    kind = EnsembleScorer if (folder / LIST_FILE).exists() else reward_model.ModelScorer
    return kind.load(folder, template, **more)


def first_reward_model(folder: Path) -> Path:
    """The reward model that a value model begins as: the folder itself, or an ensemble's first member.

    Raises:
        ModelError: if the list of members cannot be read.
        RecipeError: if it is a scorer of the user's own, which is no model.
    """
    if folder.suffix == OWN_FILE_SUFFIX:
        raise RecipeError(
            f"{folder} is no reward model, and PPO's value model begins as one. Take RLOO or GRPO with it."
        )
    return folder / read_list(folder).members[0] if (folder / LIST_FILE).exists() else folder


def train(
    config: Config,
    *,
    start: Path,
    feedback: Sequence[tuple[Comparison, Preference]],
    template: PromptTemplate,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Fit each member to `feedback`, from the language model in `start`.

    `folder` then holds `metrics.jsonl` and `model/`, with the members as `model/members/00/model/` and so on and the
    list of them. Called again after a kill, it goes on with the member in hand, to the same weights.

    Raises:
        DataError: if a preference is of another comparison, or none is left to train on.
        RunFolderError: if `folder` was begun with another model, other feedback or other settings.
        TrainingError: if a loss becomes NaN or infinite.
    """
    tokenizer = load_tokenizer(start)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    pairs, left_out = encode_feedback(encoder, feedback)
    kept = {pair.instruction_id for pair in split(pairs, config.held_out_count, seed)[0]}
    data = [(pair.first.ids, pair.second.ids, pair.first_preferred) for pair in pairs]
    claim(folder, fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, data, folders=[start]))
    training = [both for both in feedback if both[0].instruction.id in kept]
    held_out = [both for both in feedback if both[0].instruction.id not in kept]
    places = [f"members/{number:02d}" for number in range(config.members)]
    for number, place in enumerate(places):
        trained = (folder / MODEL_FOLDER / place).exists()
        check_same(trained, str(folder / MODEL_FOLDER / place))
        if trained:
            continue
        reward_model.train(
            reward_model.Config(**{name: getattr(config, name) for name in _MEMBER_SETTINGS}),
            start=start,
            feedback=training,
            template=template,
            folder=folder / f"training-{number:02d}",
            seed=derived_seed(seed, "member", number),
            progress=_Report(progress, number, config.members),
        )
        # The last act of a member: where its folder stands, it is done.
        on_main(partial(_move, folder / f"training-{number:02d}", folder / MODEL_FOLDER / place))
    on_main(lambda: _write_list(config, folder / MODEL_FOLDER, places))
    figures: dict[str, float] = {}
    if held_out:
        more = {"max_tokens": encoder.max_tokens, "device": config.device}
        figures = evaluate(EnsembleScorer.load(folder / MODEL_FOLDER, template, **more), held_out)
    with MetricsLog(folder / METRICS_FILE) as log:
        log.write(config.members, **left_out, **figures)


def _move(training: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    training.rename(target)


_MEMBER_SETTINGS = [name for name in reward_model.Config.model_fields if name != "held_out_count"]


@dataclass(frozen=True)
class _Report:
    """Progress over all members, of one of them."""

    progress: Progress
    number: int
    members: int

    def __call__(self, done: int, total: int, **figures: float) -> None:
        self.progress(self.number * total + done, self.members * total, **figures)


def _write_list(config: Config, folder: Path, places: Sequence[str]) -> None:
    listing = Listing(
        members=tuple(f"{place}/{MODEL_FOLDER}" for place in places),
        aggregate=config.aggregate,
        variance_coefficient=config.variance_coefficient,
    )
    write_text(folder / LIST_FILE, json.dumps(listing.model_dump(mode="json"), indent=2) + "\n")


def evaluate(scorer: EnsembleScorer, feedback: Sequence[tuple[Comparison, Preference]]) -> dict[str, float]:
    """Share of decided pairs whose preferred answer scores higher, by the ensemble and by its members on average.

    Nothing where no pair is decided. Also how far members disagree: the mean standard deviation of their scores.
    """
    decided = [both for both in feedback if both[1].preferred in ("first", "second")]
    decided = [(pair, label) for pair, label in decided if pair.first.text != pair.second.text]
    if not decided:
        return {}
    instructions = [pair.instruction for pair, _ in decided]
    score_KP2 = np.stack(
        [
            scorer.member_scores(instructions, [getattr(pair, side) for pair, _ in decided])
            for side in ("first", "second")
        ],
        axis=-1,
    )
    sign_P = np.array([1 if label.preferred == "first" else -1 for _, label in decided])
    members = np.sign(score_KP2[..., 0] - score_KP2[..., 1]) * sign_P
    first, second = (
        np.array(aggregated(score_KP2[..., side], scorer.aggregate, scorer.variance_coefficient)) for side in (0, 1)
    )
    return {
        "eval_accuracy": float((np.sign(first - second) * sign_P + 1).mean() / 2),
        "eval_accuracy_of_members": float((members + 1).mean() / 2),
        "eval_disagreement": float(score_KP2.std(axis=0).mean()),
    }
