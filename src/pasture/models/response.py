"""A causal language model asked about its responses only.

Prompts and padding need hidden states but no logits; with a large vocabulary the logits are most of the work.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from pasture.formulas.logprobs import head_logprobs
from pasture.models.shared_prompt import AnswerRows
from pasture.models.trunk import Rows, Trunk

_TOLERANCE = 1e-3

_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What families call the bound that they press logits under; small logits hardly move by it, so it is asked for."""


class ResponseModel:
    """A causal language model whose last layer runs where a response token is predicted and nowhere else.

    Rows are padded on the right: causal attention keeps what stands right of a token from it, so no mask is needed.

    Some families do more after their backbone than apply the output layer (capping, scaling). Whether this one does
    is found out once, from its config and on a few tokens; `takes_shortcut` then says whether the last layer is run on
    its own.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.vocabulary_size = int(model.get_output_embeddings().weight.shape[0])
        self.takes_shortcut = self._shortcut_agrees()
        self.trunk = Trunk(model.base_model)

    def hidden(self, ids_BT: Int[Tensor, "B T"], at_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "N H"]:
        """What `head` turns into logits, at the chosen positions, row by row."""
        if not self.takes_shortcut:
            logits_NV: Tensor = self.model(input_ids=ids_BT, use_cache=False).logits[at_BT]
            return logits_NV
        # What stands right of the last chosen position is seen by none of them.
        own_BT = at_BT.flip(1).cumsum(1).flip(1) > 0
        return self.trunk.hidden(Rows(ids_BT, own_BT, own_BT), at_BT.flatten().nonzero().squeeze(1))

    def answer_logprobs(self, rows: AnswerRows) -> Float[Tensor, " N"]:
        """Log-probability of every answer token, answer after answer, in nats."""
        if self.takes_shortcut:
            hidden_NH = self.trunk.hidden(rows.rows, rows.before_N)
        else:
            hidden_NH = self.model(**rows.inputs, use_cache=False).logits.flatten(0, 1)[rows.before_N]
        return head_logprobs(hidden_NH, self.head, rows.target_N, self.vocabulary_size)

    def head(self, hidden_NH: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
        """Next-token logits."""
        if not self.takes_shortcut:
            return hidden_NH
        logits_NV: Tensor = self.model.get_output_embeddings()(hidden_NH)
        return logits_NV

    @torch.no_grad()
    def _shortcut_agrees(self) -> bool:
        settings = self.model.config.get_text_config()
        if any(getattr(settings, name, None) for name in _CAPS):
            return False
        ids_BT = torch.arange(min(4, self.vocabulary_size), device=self.model.device)[None]
        hidden_BTH = self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        logits_BTV = self.model.get_output_embeddings()(hidden_BTH)
        expected_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        if logits_BTV.shape != expected_BTV.shape:
            return False
        return float((logits_BTV - expected_BTV).abs().max()) <= _TOLERANCE * float(expected_BTV.abs().max())
