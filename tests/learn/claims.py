"""Claims about the methods, as checks that can also be run on a method with a planted fault."""

import numpy as np
import torch

from pasture.learn import sft
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from tests.formulas import oracles
from tests.learn import toy


def check_sft_logprobs(folder):
    """The log-probabilities that the loss adds up are those of the answers' tokens and of the end token, in order."""
    encoder = toy.encoder(folder)
    demonstrations = toy.demonstrations(6)
    rows = sft.encode_demonstrations(encoder, demonstrations)
    model = load_causal_lm(folder)
    with torch.no_grad():
        found = sft.response_logprobs(ResponseModel(model), rows, encoder.pad_id).tolist()
    expected = []
    words = encoder.tokenizer.get_vocab()
    for instruction, demonstration in demonstrations:
        prompt = [words[word] for word in instruction.instruction.split()] + [words["\n"]]
        answer = [words[word] for word in demonstration.text.split()] + [encoder.tokenizer.eos_token_id]
        # Alone in its batch, with all logits, in a loop: no padding, no shift of a mask.
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].tolist()
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        expected += oracles.selected_logprobs([logits[place] for place in places], answer).tolist()
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=2e-5)
