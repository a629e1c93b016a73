import json
import math

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError, TrainingError
from pasture.learn import sft
from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig, sample
from tests.learn import toy
from tests.learn.claims import check_sft_logprobs

QUICK = sft.Config(epochs=1, batch_size=4, learning_rate=1e-3, max_tokens=32, micro_batch_tokens=64)


def _train(folder, base, config=QUICK, demonstrations=None, **changes):
    settings = {
        "start": base,
        "demonstrations": toy.demonstrations(12) if demonstrations is None else demonstrations,
        "template": toy.TEMPLATE,
        "folder": folder,
        "seed": 0,
        "progress": toy.quiet,
    }
    sft.train(config, **(settings | changes))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("shape", ["llama", "qwen", "gpt2", "neox"])
def test_loss_counts_the_answer_and_its_end_token_and_nothing_else(tmp_path, shape):
    check_sft_logprobs(toy.save_base(tmp_path, shape))


def test_last_layer_runs_alone_where_the_model_allows_and_whole_where_not(base):
    model = load_causal_lm(base)
    assert ResponseModel(model).takes_shortcut
    capped = load_causal_lm(base)
    forward = capped.forward

    def with_capping(**arguments):
        output = forward(**arguments)
        output.logits = 5 * torch.tanh(output.logits / 5)  # as Gemma 2 does
        return output

    capped.forward = with_capping
    responder = ResponseModel(capped)
    assert not responder.takes_shortcut
    ids, at = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[False, True, True, False]])
    with torch.no_grad():
        logits = responder.head(responder.hidden(ids, at))
        np.testing.assert_allclose(logits, capped(input_ids=ids).logits[at], atol=1e-6)


@pytest.mark.parametrize("rows_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(base, rows_at_once):
    rows = sft.encode_demonstrations(toy.encoder(base), toy.demonstrations(16))
    budget = rows_at_once * max(len(row) for row in rows)
    results = []
    for tokens in (budget, 10_000):
        model = load_causal_lm(base)
        loss = sft.accumulate_gradients(ResponseModel(model), rows, 0, tokens)
        results.append((float(loss), [parameter.grad for parameter in model.parameters()]))
    (summed_loss, gradients), (whole_loss, whole_gradients) = results
    assert summed_loss == pytest.approx(whole_loss, abs=1e-5)
    for gradient, whole in zip(gradients, whole_gradients, strict=True):
        assert gradient is not None
        np.testing.assert_allclose(gradient, whole, atol=1e-5)


def test_thirty_two_demonstrations_are_learned_by_heart_with_their_end(tmp_path, base):
    demonstrations = toy.demonstrations(32)
    config = sft.Config(epochs=60, batch_size=16, learning_rate=1e-2, max_tokens=32)
    metrics = _train(tmp_path, base, config, demonstrations)
    assert metrics[0]["loss"] > math.log(len(toy.WORDS)) - 1
    assert metrics[-1]["loss"] < 0.1
    tokenizer, model = load_tokenizer(tmp_path / "model"), load_causal_lm(tmp_path / "model")
    encoder = toy.encoder(tmp_path / "model")
    prompts = [encoder.prompt(instruction) for instruction, _ in demonstrations]
    greedy = SamplerConfig(temperature=0.0, max_new_tokens=16)
    answers = sample(model, tokenizer.eos_token_id, prompts, [0] * len(prompts), greedy)
    said = [(encoder.text(answer.token_ids), answer.finish_reason) for answer in answers]
    wanted = [(demonstration.text, "stop") for _, demonstration in demonstrations]
    assert sum(one == other for one, other in zip(said, wanted, strict=True)) >= 30


def test_eval_loss_is_over_rows_that_are_not_trained_on(tmp_path, base):
    config = QUICK.model_copy(update={"held_out_count": 4, "epochs": 2})
    metrics = _train(tmp_path, base, config)
    # By hand: 8 of 12 rows are left, two batches of 4 an epoch, two epochs.
    assert [("eval_loss" in row) for row in metrics] == [False, True, False, True]
    assert metrics[-1]["eval_loss"] != metrics[-1]["loss"]


def test_learning_rate_rises_then_falls_along_half_a_cosine(tmp_path, base):
    config = QUICK.model_copy(update={"warmup_fraction": 0.34, "learning_rate": 1.0e-3})
    metrics = _train(tmp_path, base, config)
    # By hand: three steps, one of them warmup at 1/2; then cosine at 0 and at half of its way.
    assert [row["learning_rate"] for row in metrics] == pytest.approx([0.5e-3, 1e-3, 0.5e-3])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path, base):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        _train(tmp_path / name, base, seed=seed)
    weights = {
        name: (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("first", "again", "other")
    }
    assert weights["first"] == weights["again"]
    assert weights["first"] != weights["other"]


def test_cut_answers_carry_no_end_token(base):
    encoder = toy.encoder(base)
    [instruction] = toy.instructions(1)
    cut = encoder.pair(instruction, toy.completion(instruction, "w1 w2", finish_reason="length"))
    whole = encoder.pair(instruction, toy.completion(instruction, "w1 w2"))
    assert whole.response_ids == [*cut.response_ids, encoder.end_id]
    assert toy.encoder(base, len(cut)).pair(instruction, toy.completion(instruction, "w1 w2")) == cut


def test_text_cannot_forge_an_end(base):
    encoder = toy.encoder(base)
    [instruction] = toy.instructions(1)
    forged = f"w1 {encoder.tokenizer.eos_token} w2 {encoder.tokenizer.pad_token}"
    pair = encoder.pair(instruction.model_copy(update={"instruction": forged}), toy.completion(instruction, forged))
    assert pair.ids.count(encoder.end_id) == 1
    assert pair.ids[-1] == encoder.end_id
    assert encoder.pad_id not in pair.ids


def test_nothing_to_learn_from_is_refused_before_any_step(tmp_path, base):
    [instruction] = toy.instructions(1)
    with pytest.raises(DataError, match="no demonstrations"):
        _train(tmp_path, base, demonstrations=[])
    with pytest.raises(DataError, match="'i0' is empty"):
        _train(tmp_path, base, demonstrations=[(instruction, toy.completion(instruction, "  "))])
    with pytest.raises(DataError, match="leaves nothing to train on"):
        _train(tmp_path, base, QUICK.model_copy(update={"held_out_count": 12}))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_prompt_that_leaves_no_room_is_refused_by_name(tmp_path, base):
    with pytest.raises(DataError, match=r"instruction 'i\d+', 'w\d.*': expected a prompt of 1 to 3 tokens"):
        _train(tmp_path, base, QUICK.model_copy(update={"max_tokens": 4}))


def test_a_loss_that_is_no_number_stops_training(tmp_path, base):
    with pytest.raises(TrainingError, match=r"is (nan|inf)"):
        _train(tmp_path, base, QUICK.model_copy(update={"learning_rate": 1e30, "max_gradient_norm": 1e30, "epochs": 9}))
