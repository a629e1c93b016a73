"""Answers drawn by a server: where its numbers are the policy's, the same training as without; else corrected."""

import contextlib
import json
import socket

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pasture.core.errors import EngineError, PastureError, TrainingError
from pasture.engines import rollout_server
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.learn import drawing, expert_iteration, grpo, online_dpo, ppo, quark, rloo
from pasture.learn.rollouts import Environment, collect
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from pasture.models.weights_config import Lora, Weights
from tests.learn import alone, toy
from tests.learn.fake_vllm import served

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

COMMON = {
    "steps": 2,
    "rollout_batch_size": 8,
    "minibatch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "max_prompt_tokens": 16,
    "max_new_tokens": 8,
    "save_every": 2,
}
EXPERT = {
    "rounds": 2,
    "n": 3,
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "max_tokens": 32,
    "max_prompt_tokens": 16,
    "max_new_tokens": 8,
}
CAPPED = (ppo, rloo, grpo)
ADAPTERS = Weights(lora=Lora(rank=4, alpha=8))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(rollout_server, "SECONDS_BETWEEN_TRIES", 0.0)


def train(method, folder, start, url=None, *, value_start=None, most_difference=0.1, seed=0, **changes):
    """The weights that come out, and the figures; drawn by the server at `url`, or by the policy."""
    settings = dict(EXPERT if method is expert_iteration else COMMON, **changes)
    if method in CAPPED:
        settings["sampler_ratio_cap"] = 2.0
    if url is not None:
        settings["rollouts"] = RolloutServerConfig(url=url, most_difference=most_difference)
    more = {"value_start": value_start} if method is ppo else {}
    method.train(
        method.Config(**settings),
        start=start,
        environment=Environment(toy.instructions(16), toy.TEMPLATE, alone.any_taste),
        folder=folder,
        seed=seed,
        progress=toy.quiet,
        **more,
    )
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_causal_lm(folder / "model").state_dict(), rows


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        (rloo, ADAPTERS),
        (rloo, Weights()),
        (ppo, ADAPTERS),
        (grpo, Weights()),
        (online_dpo, ADAPTERS),
        (quark, Weights()),
        (expert_iteration, Weights()),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if hasattr(value, "train") else value.lora and "adapters",
)
def test_what_a_server_draws_with_equal_numbers_is_learned_from_as_the_policys_own(
    tmp_path, imitator, taste, method, weights
):
    more = {} if method is expert_iteration else {"weights": weights}
    own, _ = train(method, tmp_path / "own", imitator, value_start=taste, **more)
    with served(imitator) as (fake, url):
        theirs, _ = train(method, tmp_path / "served", imitator, url, value_start=taste, **more)
        paths = [path for path, _ in fake.asked]
    for name, tensor in own.items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-4, rtol=2e-3, msg=name)
    begun = load_causal_lm(imitator).state_dict()
    assert max(float((own[name] - begun[name]).abs().max()) for name in own) > 5e-3  # there was something to differ by
    # The policy of each step was handed over, under a name that was never used before, and is cleared away.
    assert len(fake.loaded) == len(set(fake.loaded)) == 2
    assert ("/v1/load_lora_adapter" if weights.lora else "/collective_rpc") in paths
    assert ("/v1/unload_lora_adapter" in paths) == (weights.lora is not None)
    assert not list(tmp_path.rglob(drawing.WEIGHTS_FOLDER))


def test_each_answer_is_asked_for_as_tokens_with_its_own_seed_and_nothing_left_to_the_servers_taste(tmp_path, imitator):
    with served(imitator) as (fake, url):
        train(rloo, tmp_path, imitator, url, steps=1, group_size=4)
    bodies = [body for path, body in fake.asked if path == "/v1/completions"]
    assert len(bodies) == 8
    assert len({body["seed"] for body in bodies}) == 8
    assert len({tuple(body["prompt"]) for body in bodies}) == 2
    assert all(isinstance(token, int) for body in bodies for token in body["prompt"])
    for name, neutral in {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }.items():
        assert {body[name] for body in bodies} == {neutral}
    assert all(body["ignore_eos"] and body["stop_token_ids"] for body in bodies)


@pytest.mark.parametrize("shift", [-0.2, 0.3])
def test_answers_and_tokens_are_weighed_by_the_capped_ratio_of_policy_and_server(tmp_path, imitator, taste, shift):
    # By NumPy: the server says of each token exp(shift) of the policy's probability.
    policy = load_causal_lm(imitator)
    encoder = toy.encoder(imitator)
    environment = Environment(toy.instructions(8), toy.TEMPLATE, alone.any_taste)
    with served(imitator) as (fake, url):
        fake.shift = shift
        config = RolloutServerConfig(url=url, most_difference=1.0)
        with drawing.Drawing(config, policy, encoder, tmp_path, start=imitator) as drawn:
            drawn.check(16, 8)
            rollouts = collect(drawn.now(), encoder, environment, range(8), max_new_tokens=8, seed=0)
    model = ResponseModel(policy)
    settings = dict(COMMON, sampler_ratio_cap=1.5)
    lengths = np.array([len(row.response_ids) for row in rollouts.rows])
    assert len(set(lengths.tolist())) > 1
    of_answers = rloo.evaluate(rloo.Config(**settings, group_size=2), model, model, rollouts)
    np.testing.assert_allclose(of_answers.weight_B, np.minimum(np.exp(-shift * lengths), 1.5), rtol=1e-3)
    of_tokens = grpo.evaluate(grpo.Config(**settings, group_size=2), model, model, rollouts)
    expected = np.where(rollouts.mask_BT, min(np.exp(-shift), 1.5), 1.0)
    np.testing.assert_allclose(of_tokens.weight_BT, expected, rtol=1e-4)
    assert float(of_tokens.figures["sampling/sampling_logp_difference/mean"]) == pytest.approx(abs(shift), rel=1e-3)


@pytest.mark.parametrize("weights", [ADAPTERS, Weights()], ids=["adapters", "whole weights"])
def test_a_server_that_goes_on_with_old_weights_is_noticed(tmp_path, imitator, weights):
    with (
        served(imitator, "stale") as (_, url),
        pytest.raises(TrainingError, match=r"differ from the policy's by .* draws from other weights"),
    ):
        train(rloo, tmp_path, imitator, url, learning_rate=0.1, weights=weights)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / drawing.WEIGHTS_FOLDER).exists()


def test_a_server_of_another_model_is_noticed_before_anything_is_learned(tmp_path, imitator, base):
    with served(base) as (_, url), pytest.raises(TrainingError, match="another model than training begins with"):
        train(rloo, tmp_path, imitator, url, weights=ADAPTERS)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


FAULTS = {
    "two models": (ADAPTERS, "serves 'tiny', 'other'; expected one model. Name it as rollouts.model"),
    "vocabulary": (ADAPTERS, "has another vocabulary than the policy"),
    "no adapters": (ADAPTERS, "takes no adapters while it runs: VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"),
    "no reload": (Weights(), "does not let its weights be changed: VLLM_SERVER_DEV_MODE=1 is missing"),
    "busy": (Weights(), "somebody else asks it at the same time"),
    "old": (ADAPTERS, "left out the token ids of an answer"),
    "short": (ADAPTERS, "as many log-probabilities as tokens"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_fit_is_told_before_any_step(tmp_path, imitator, fault):
    weights, message = FAULTS[fault]
    with served(imitator, fault) as (_, url), pytest.raises(EngineError) as raised:
        train(rloo, tmp_path, imitator, url, weights=weights)
    assert message in str(raised.value)
    if fault in ("vocabulary", "no adapters", "no reload"):
        assert f"vllm serve {imitator}" in str(raised.value)
    assert not (tmp_path / "model").exists()


def test_a_server_without_room_for_prompt_and_answer_is_told_before_any_step(tmp_path, imitator):
    with served(imitator) as (_, url), pytest.raises(EngineError, match=r"takes 64 tokens .* ask for 67"):
        train(rloo, tmp_path, imitator, url, max_new_tokens=60)


def test_no_server_at_all_is_told_at_once_with_the_command_that_starts_one(tmp_path, imitator):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(EngineError, match=rf"no server answers at http://127\.0\.0\.1:{port} .*vllm serve"):
        train(rloo, tmp_path, imitator, f"http://127.0.0.1:{port}")


def test_a_server_that_has_too_much_to_do_is_asked_again(tmp_path, imitator):
    own, _ = train(rloo, tmp_path / "own", imitator, steps=1)
    with served(imitator, "flaky") as (_, url):
        theirs, _ = train(rloo, tmp_path / "served", imitator, url, steps=1)
    for name, tensor in own.items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-4, rtol=2e-3)


def test_a_key_that_is_not_set_is_named(tmp_path, imitator):
    rollouts = RolloutServerConfig(api_key_env="PASTURE_TEST_NO_SUCH_KEY")
    with pytest.raises(PastureError, match="PASTURE_TEST_NO_SUCH_KEY"):
        train(rloo, tmp_path, imitator, rollouts=rollouts)


def test_where_the_server_is_decides_nothing_so_training_goes_on_with_another_one(tmp_path, imitator):
    with served(imitator) as (_, url), pytest.raises(RuntimeError, match="stop here"):
        _train_until_told(tmp_path, imitator, url)
    with served(imitator) as (fake, url):
        _, rows = train(rloo, tmp_path, imitator, url, checkpoint_steps=1, steps=3)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert len(fake.loaded) == 2  # for the second step and the third


def _train_until_told(folder, start, url):
    def stop(done, total, **figures):
        raise RuntimeError("stop here")

    settings = dict(COMMON, steps=3, checkpoint_steps=1, sampler_ratio_cap=2.0)
    rloo.train(
        rloo.Config(**settings, rollouts=RolloutServerConfig(url=url)),
        start=start,
        environment=Environment(toy.instructions(16), toy.TEMPLATE, alone.any_taste),
        folder=folder,
        seed=0,
        progress=stop,
    )


@pytest.mark.parametrize("method", CAPPED, ids=lambda method: method.__name__.rpartition(".")[2])
def test_a_server_asks_for_a_cap_where_the_sampler_is_taken_for_the_policy(method):
    with pytest.raises(ValidationError, match="set sampler_ratio_cap"):
        method.Config(rollouts={"url": "http://127.0.0.1:8000"})


def test_control_tokens_that_a_server_does_not_know_are_refused():
    with pytest.raises(ValidationError, match="control tokens, which a server"):
        quark.Config(train_on="all", rollouts={})
