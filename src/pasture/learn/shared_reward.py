"""A reward model that is read off the policy's own layers: its adapters and its head, and no model of its own.

Where policy and reward model are both adapters to one language model, such as an SFT model, its weights are held once:
with the policy's adapters, with the reward model's, or with none as the reference. Scores are those of the reward
model's own copy, to rounding, in the policy's type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from transformers import PreTrainedModel

from pasture.core.errors import ModelError
from pasture.core.records import Completion, Instruction
from pasture.learn.reward_model import ModelScorer
from pasture.learn.rollouts import Environment
from pasture.machine import sharded
from pasture.models.adapters import ADAPTER_FOLDER, adapters_named, add_saved_adapters, distance_to_merged
from pasture.models.heads import ScalarModel
from pasture.models.weights_config import Weights

RewardPlace = Literal["own", "shared"]

_ADAPTERS = "reward"
_ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
"""By the policy's type: how far its weights may be from the reward model's, as a share of their norm."""


def check_reward_place(place: RewardPlace, weights: Weights) -> None:
    """Hold a method's settings to what a shared trunk needs.

    Raises:
        ValueError: if all weights are trained.
    """
    if place == "shared" and weights.lora is None:
        raise ValueError(
            'reward = "shared" reads scores off the policy\'s layers, which stay as they are where adapters alone are '
            'trained: set weights.lora, or reward = "own"'
        )


def placed(environment: Environment, policy: PreTrainedModel, place: RewardPlace) -> Environment:
    """The environment with its reward model where `place` says: as it is, or on the trunk of `policy`.

    There the reward model's own copy of the weights is let go: the scorer that was handed over scores no more.

    Raises:
        ModelError: if the scorer is no single reward model, was not trained as adapters to the model that the policy
            began as, or the weights are shared out among processes.
    """
    if place == "own":
        return environment
    scorer = environment.scorer
    if not isinstance(scorer, ModelScorer):
        raise ModelError('reward = "shared" needs a single reward model to score. Set reward = "own".')
    if sharded.is_asked_for():
        raise ModelError('reward = "shared" and weights that are shared out among processes do not go together.')
    adapters = scorer.folder / ADAPTER_FOLDER
    if not adapters.is_dir():
        raise ModelError(
            f"{scorer.folder} has no {ADAPTER_FOLDER}/, so all weights of this reward model were trained. Train it "
            'with weights.lora, or set reward = "own".'
        )
    backbone = policy.base_model
    add_saved_adapters(backbone, adapters, name=_ADAPTERS)
    apart = distance_to_merged(backbone, scorer.model.backbone.state_dict(), name=_ADAPTERS)
    if apart > _ROUNDING[backbone.dtype]:
        raise ModelError(
            f"{scorer.folder} was not trained on the model that the policy begins as: with its adapters the policy's "
            f'weights differ from its own by {apart:.2g}. Start both from one model, or set reward = "own".'
        )
    model = _head_on(policy, scorer.model)
    scorer.model.to("meta")
    return replace(environment, scorer=_OnTrunk(replace(scorer, model=model)))


def _head_on(policy: PreTrainedModel, reward: ScalarModel) -> ScalarModel:
    model = ScalarModel(policy.base_model)
    model.head.load_state_dict(reward.head.state_dict())
    model.offset.copy_(reward.offset)
    for parameter in model.head.parameters():
        parameter.requires_grad_(False)
    return model


@dataclass(frozen=True)
class _OnTrunk:
    """A scorer whose model is the policy's, with other adapters."""

    scorer: ModelScorer

    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
        with adapters_named(self.scorer.model.backbone, _ADAPTERS):
            return self.scorer(instructions, completions)
