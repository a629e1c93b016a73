"""How far a checkpoint of a policy has moved from the model that it began as.

The mean over answers y, drawn from pi at temperature 1, of log pi(y|x) - log pi_ref(y|x), summed over y's tokens: the
unbiased estimate of KL(pi || pi_ref) of whole answers, in nats. Each model is asked in its own way: behind a control
token that the policy has learned, and without it where the reference has not.

Source: Schulman 2020, Approximating KL divergence (k1), http://joschu.net/blog/kl-approx.html
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from pasture.core.records import Instruction
from pasture.core.templates import PromptTemplate
from pasture.formulas.divergence import k1
from pasture.learn.rollouts import draw, logprobs_asked_by
from pasture.machine.device import resolve_device
from pasture.models.encode import NO_LIMIT, Encoder
from pasture.models.load import load_causal_lm, load_tokenizer, resting_dtype, within_context
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
    room = within_context(policy_folder, NO_LIMIT) - max_new_tokens
    encoder = Encoder(tokenizer, template, max_tokens=room + 1)
    answers = draw(policy, encoder, instructions, SamplerConfig(max_new_tokens=max_new_tokens), seed=seed)
    reference = ResponseModel(load_causal_lm(reference_folder, dtype=dtype, device=device, tokenizer=tokenizer))
    plain = Encoder(load_tokenizer(reference_folder), template, max_tokens=encoder.max_tokens)
    reference_BT = logprobs_asked_by(plain, reference, answers, _MICRO_BATCH_TOKENS)
    return k1(answers.sampler_logprob_BT, reference_BT).sum(1)
