"""How far a checkpoint of a policy has moved from the model that it began as.

The mean over answers y, drawn from pi at temperature 1, of log pi(y|x) - log pi_ref(y|x), summed over y's tokens: the
unbiased estimate of KL(pi || pi_ref) of whole answers, in nats. Each model is asked in its own way: behind a control
token that the policy has learned, and without it where the reference has not.

Source: Schulman 2020, Approximating KL divergence (k1), http://joschu.net/blog/kl-approx.html
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pasture.core.records import Instruction
from pasture.core.templates import PromptTemplate
from pasture.formulas.divergence import k1
from pasture.learn.rollouts import Answers, batch_tensors, draw, token_logprobs
from pasture.machine.device import resolve_device
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, resting_dtype
from pasture.models.response import ResponseModel
from pasture.models.sampler_config import SamplerConfig

_MICRO_BATCH_TOKENS = 4096


def drift(
    policy_folder: Path,
    reference_folder: Path,
    instructions: Sequence[Instruction],
    template: PromptTemplate,
    *,
    max_new_tokens: int,
    seed: int,
) -> Float[Tensor, " B"]:
    """The log-ratio of one drawn answer to each instruction, in nats.

    Raises:
        DataError: if a prompt leaves no room for an answer.
    """
    device, tokenizer = resolve_device("auto"), load_tokenizer(policy_folder)
    dtype = resting_dtype(policy_folder, device)
    policy = load_causal_lm(policy_folder, dtype=dtype, device=device, tokenizer=tokenizer)
    encoder = Encoder(tokenizer, template, max_tokens=policy.config.max_position_embeddings - max_new_tokens)
    answers = draw(policy, encoder, instructions, SamplerConfig(max_new_tokens=max_new_tokens), seed=seed)
    reference = ResponseModel(load_causal_lm(reference_folder, dtype=dtype, device=device, tokenizer=tokenizer))
    plain = Encoder(load_tokenizer(reference_folder), template, max_tokens=encoder.max_tokens)
    reference_BT = logprobs_asked_by(plain, reference, answers, _MICRO_BATCH_TOKENS)
    return k1(answers.sampler_logprob_BT, reference_BT).sum(1)


def logprobs_asked_by(
    encoder: Encoder, model: ResponseModel, answers: Answers, micro_batch_tokens: int
) -> Float[Tensor, "B T"]:
    """Log-probability of every answer token under `model`, to which `encoder` puts the prompts; 0 at masked entries.

    B and T are those of `answers`, whose prompts may be longer or shorter.

    Raises:
        DataError: if a prompt leaves no room for an answer.
    """
    rows = [
        EncodedPair(encoder.prompt(instruction), row.response_ids)
        for instruction, row in zip(answers.instructions, answers.rows, strict=True)
    ]
    ids_BT, mask_BT = batch_tensors(rows, encoder.pad_id, answers.ids_BT.device)
    empty_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
    asked = dataclasses.replace(answers, rows=rows, ids_BT=ids_BT, mask_BT=mask_BT, sampler_logprob_BT=empty_BT)
    logprob_BT = torch.zeros_like(answers.sampler_logprob_BT)
    logprob_BT[answers.mask_BT] = token_logprobs(model, asked, micro_batch_tokens)[mask_BT]
    return logprob_BT
