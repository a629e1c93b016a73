"""Annotators as recipes name them: what they are, what they ask, and what they open when."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pasture.annotate import stored
from pasture.annotate.choose import PoolSettings, chosen_annotator, expected_quote
from pasture.annotate.raters import MeadowPool
from pasture.annotate.stored import StoredPool
from pasture.core.errors import DataError, EngineError, RecipeError
from tests.annotate.judging import RuleEngine, pairs, prefers_good


@pytest.fixture
def services(monkeypatch) -> list[tuple[str, Mapping[str, Any], Any, RuleEngine]]:
    """Every engine that is opened, each answering by a rule."""
    opened: list[tuple[str, Mapping[str, Any], Any, RuleEngine]] = []

    def open_engine(kind: str, settings: Mapping[str, Any], budget: Any) -> RuleEngine:
        opened.append((kind, settings, budget, RuleEngine(prefers_good)))
        return opened[-1][-1]

    monkeypatch.setattr(stored, "open_engine", open_engine)
    return opened


def settings_of(tmp_path: Path, **fields: Any) -> PoolSettings:
    return PoolSettings.model_validate({"pool": "greedy", "models": ("gpt",), "store": tmp_path / "a.sqlite", **fields})


def pool_of(settings: PoolSettings, **options: Any) -> StoredPool:
    chosen = chosen_annotator("mine", {"mine": settings}, seed=0, **options)
    assert isinstance(chosen, StoredPool)
    return chosen


def hash_of(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def test_a_name_that_no_pool_has_is_the_meadows():
    chosen = chosen_annotator("pool", {}, seed=3, label_flip_probability=0.1)
    assert isinstance(chosen, MeadowPool)
    assert chosen.identity == MeadowPool(seed=3, label_flip_probability=0.1).identity
    with pytest.raises(DataError, match="no annotator 'nobody'"):
        chosen_annotator("nobody", {}, seed=0)


def test_a_plan_opens_nothing_and_names_the_same_annotator_as_the_run(tmp_path, monkeypatch, services):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    planned = hash_of(pool_of(settings_of(tmp_path)).identity)
    assert services == []
    assert list(tmp_path.iterdir()) == []
    with pool_of(settings_of(tmp_path)) as run:
        run.annotate(pairs(3))
        assert hash_of(run.identity) == planned


def test_answers_are_kept_from_one_run_to_the_next(tmp_path, services):
    for _ in range(2):
        with pool_of(settings_of(tmp_path)) as pool:
            assert [each.preferred for each in pool.annotate(pairs(10))] == ["first"] * 10
    # Ten pairs, five a call, bought once.
    assert [len(engine.asked) for *_, engine in services] == [2, 0]


@pytest.mark.parametrize(
    "other",
    [
        {"pool": "p-eval"},
        {"models": ("other",)},
        {"order": "both"},
        {"sample": 1},
        {"engine": "anthropic"},
    ],
)
def test_what_moves_verdicts_moves_the_identity(tmp_path, other):
    assert pool_of(settings_of(tmp_path, **other)).identity != pool_of(settings_of(tmp_path)).identity


@pytest.mark.parametrize(
    "other",
    [
        {"store": Path("elsewhere.sqlite")},
        {"max_usd": 3.0},
        {"engine_settings": {"in_flight": 7, "endpoints": [{"base_url": "http://127.0.0.1:8000/v1"}]}},
    ],
)
def test_what_moves_no_verdict_leaves_the_identity(tmp_path, other):
    assert pool_of(settings_of(tmp_path, **other)).identity == pool_of(settings_of(tmp_path)).identity


def test_flips_are_those_the_recipe_asks_for_and_no_others(tmp_path, services):
    # The pool's own file says 25%.
    farm = settings_of(tmp_path, pool="alpaca-farm-13", models=("a",))
    assert pool_of(farm).panel.noise is None
    flipped = pool_of(settings_of(tmp_path), label_flip_probability=0.5)
    assert all(each.flipped_by_noise for each in flipped.annotate(pairs(20)))
    assert services[0][3].asked == []
    leaning = settings_of(tmp_path, noise={"kind": "position", "probability": 1.0})
    assert pool_of(leaning).panel.noise is None
    assert pool_of(leaning, label_flip_probability=0.1).panel.noise == leaning.noise


def test_a_limit_counts_what_the_run_spent_of_this_pool_before(tmp_path, services):
    ledgers = tmp_path / "spent"
    ledgers.mkdir()
    (ledgers / "mine.jsonl").write_text('{"spent_usd":2.0}\n')
    (ledgers / "other.jsonl").write_text('{"spent_usd":9.0}\n')
    with pool_of(settings_of(tmp_path, max_usd=5.0), ledgers=ledgers) as pool:
        pool.annotate(pairs(1))
    budget = services[0][2]
    asyncio.run(budget.reserve(3.0))
    assert (budget.limit_usd, budget.spent_usd) == (5.0, 2.0)


def test_without_a_run_a_limit_counts_from_nothing(tmp_path, services):
    with pool_of(settings_of(tmp_path, max_usd=5.0)) as pool:
        pool.annotate(pairs(1))
    asyncio.run(services[0][2].reserve(5.0))


def model_folder(path: Path, weights: bytes) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_models_of_one_name_and_other_weights_share_no_answers(tmp_path, services, monkeypatch):
    identities = []
    for number in range(2):
        model_folder(tmp_path / str(number) / "judge", bytes([number]) * 100)
        monkeypatch.chdir(tmp_path / str(number))
        with pool_of(settings_of(tmp_path, models=("judge",), engine="local")) as pool:
            pool.annotate(pairs(1))
            identities.append(hash_of(pool.identity))
    assert [settings["folder"] for _, settings, *_ in services] == ["judge", "judge"]
    assert [len(engine.asked) for *_, engine in services] == [1, 1]
    assert len(set(identities)) == 2


def test_a_model_of_ones_own_is_one(tmp_path):
    with pytest.raises(RecipeError, match="'local' holds one model, and pool 'p-eval' asks 3: a, b, c"):
        pool_of(settings_of(tmp_path, pool="p-eval", models=("a", "b", "c"), engine="local"))


def test_settings_that_do_not_fit_are_named_before_anything_is_opened(tmp_path, services):
    with pytest.raises(RecipeError, match="in_fligth: no such key"):
        pool_of(settings_of(tmp_path, engine_settings={"in_fligth": 3}))
    with pytest.raises(RecipeError, match="engine 'vllm': batch_size: Input should be greater"):
        pool_of(settings_of(tmp_path, engine="vllm", engine_settings={"batch_size": 0}))
    with pytest.raises(ValidationError, match="modles"):
        PoolSettings.model_validate({"modles": ["a"]})
    assert services == []


def test_a_missing_key_is_told_when_somebody_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pool_of(settings_of(tmp_path)) as pool, pytest.raises(EngineError, match="OPENAI_API_KEY"):
        pool.annotate(pairs(1))


def test_a_quote_counts_calls_and_what_is_stored(tmp_path, services):
    settings = settings_of(tmp_path, engine_settings={"price": {"input_per_million": 1.0, "output_per_million": 2.0}})
    before = pool_of(settings).quote(pairs(10))
    assert (before.calls, before.stored) == (2, 0)
    assert 0 < (before.low_usd or 0) < (before.high_usd or 0)
    assert not settings.store.exists()
    with pool_of(settings) as pool:
        pool.annotate(pairs(10))
    after = pool_of(settings).quote(pairs(10))
    assert (after.calls, after.stored, after.low_usd, after.high_usd) == (2, 2, 0.0, 0.0)


def test_a_model_of_ones_own_costs_nothing_and_an_unknown_price_is_unknown(tmp_path):
    model_folder(tmp_path / "judge", b"w")
    own = settings_of(tmp_path, models=(str(tmp_path / "judge"),), engine="local")
    assert (pool_of(own).quote(pairs(2)).low_usd, pool_of(own).quote(pairs(2)).high_usd) == (0.0, 0.0)
    unknown = settings_of(tmp_path, engine_settings={"endpoints": [{"base_url": "http://127.0.0.1:1/v1"}]})
    assert pool_of(unknown).quote(pairs(2)).high_usd is None


def test_a_batch_is_quoted_at_its_share_of_the_price(tmp_path):
    price = {"input_per_million": 1.0, "output_per_million": 2.0}
    single = pool_of(settings_of(tmp_path, engine_settings={"price": price})).quote(pairs(10))
    files = {"folder": tmp_path / "files", "price": price}
    batch = pool_of(settings_of(tmp_path, engine="batch", engine_settings=files)).quote(pairs(10))
    # Half the price, as OpenAI's batches.
    assert (batch.low_usd, batch.high_usd) == (0.5 * (single.low_usd or 0), 0.5 * (single.high_usd or 0))


def test_what_comparisons_to_come_will_cost_grows_with_their_number_and_falls_with_noise(tmp_path):
    settings = settings_of(tmp_path, engine_settings={"price": {"input_per_million": 1.0, "output_per_million": 2.0}})
    few, many = (expected_quote(settings, count, characters=200, seed=0) for count in (520, 5200))
    # Five pairs a call.
    assert (few.calls, many.calls) == (104, 1040)
    assert many.high_usd == pytest.approx(10 * (few.high_usd or 0))
    # Half of all labels are noise, for which nobody is asked: 5200 binomial(0.5) draws have s.d. 0.7%.
    noisy = expected_quote(settings, 5200, characters=200, seed=0, label_flip_probability=0.25)
    assert noisy.calls == pytest.approx(520, rel=0.1)
    assert expected_quote(settings, 0, characters=200, seed=0).high_usd == 0.0
