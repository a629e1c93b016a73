import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from pasture.core.errors import DataError, RecipeError, RunFolderError, ScorerError
from pasture.core.files import read_records
from pasture.core.seeds import derived_seed
from pasture.learn import expert_iteration, sft
from pasture.learn.rollouts import Environment
from pasture.models.weights_config import Lora, Weights
from tests.learn import alone, toy

CONFIG = expert_iteration.Config(
    rounds=2,
    n=4,
    epochs=2,
    batch_size=8,
    learning_rate=3e-3,
    max_tokens=32,
    max_prompt_tokens=16,
    max_new_tokens=12,
)


def _train(folder, start, scorer=toy.count_liked, instructions=None, seed=0, base=None, **changes):
    expert_iteration.train(
        CONFIG.model_copy(update=changes),
        start=start,
        environment=Environment(toy.instructions(40) if instructions is None else instructions, toy.TEMPLATE, scorer),
        folder=folder,
        seed=seed,
        progress=toy.quiet,
        base=base,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _winners(folder, number=1):
    files = sorted((folder / f"rounds/{number:02d}/winners").iterdir())
    winners = [winner for path in files for winner in read_records(path, expert_iteration.Winner)]
    return [(winner.completion, winner.scores) for winner in winners]


def _imitate(folder, start, instructions, winners, seed):
    config = sft.Config(epochs=2, batch_size=8, learning_rate=3e-3, max_tokens=32)
    sft.train(
        config,
        start=start,
        demonstrations=list(zip(instructions, winners, strict=True)),
        template=toy.TEMPLATE,
        folder=folder,
        seed=seed,
        progress=toy.quiet,
    )
    return (folder / "model/model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(imitator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expert")
    return folder, _train(folder, imitator, scorer=alone.any_taste)


def test_each_winner_is_the_best_of_n_answers_to_its_instruction(trained):
    folder, rows = trained
    for number in (1, 2):
        winners = _winners(folder, number)
        assert [winner.instruction_id for winner, _ in winners] == [one.id for one in toy.instructions(40)]
        for winner, scores in winners:
            assert len(scores) == 4
            assert alone.any_taste([None], [winner]) == [max(scores)]
        # By NumPy, from the scores on disk.
        table = np.array([scores for _, scores in winners])
        assert rows[number - 1]["reward"] == pytest.approx(table.mean(), abs=1e-9)
        assert rows[number - 1]["winners/reward"] == pytest.approx(table.max(1).mean(), abs=1e-9)


def test_the_policy_is_what_supervised_fine_tuning_makes_of_the_winners(tmp_path, imitator, base):
    instructions = toy.instructions(40)
    for name, origin in (("start", None), ("base", base)):
        _train(tmp_path / name, imitator, scorer=alone.any_taste, rounds=1, base=origin, fine_tune=name)
        winners = [winner for winner, _ in _winners(tmp_path / name)]
        seed = derived_seed(0, "fine-tuning", 1)
        expected = _imitate(tmp_path / f"sft-{name}", origin or imitator, instructions, winners, seed)
        assert (tmp_path / name / "model/model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("fine_tune", ["start", "latest"])
def test_the_second_round_draws_from_the_first_ones_policy_and_trains_what_is_asked(tmp_path, imitator, fine_tune):
    instructions = toy.instructions(40)
    _train(tmp_path / "run", imitator, scorer=alone.any_taste, fine_tune=fine_tune)
    first = tmp_path / "run/steps/0001"
    winners = [winner for winner, _ in _winners(tmp_path / "run", 2)]
    origin = imitator if fine_tune == "start" else first
    seed = derived_seed(0, "fine-tuning", 2)
    expected = _imitate(tmp_path / "sft", origin, instructions, winners, seed)
    assert (tmp_path / "run/steps/0002/model.safetensors").read_bytes() == expected
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == expected
    assert winners != [winner for winner, _ in _winners(tmp_path / "run", 1)]


def test_the_model_that_is_left_has_its_type_and_its_adapters_as_they_were_trained(tmp_path, imitator):
    _train(tmp_path, imitator, weights=Weights(dtype="bfloat16", lora=Lora(rank=2)))
    final, last = tmp_path / "model", max((tmp_path / "steps").iterdir())
    for file in ("model.safetensors", "config.json", "adapter/adapter_model.safetensors"):
        assert (final / file).read_bytes() == (last / file).read_bytes()
    assert json.loads((final / "config.json").read_text())["dtype"] == "bfloat16"


def test_reward_rises_from_round_to_round(tmp_path, imitator):
    rows = _train(
        tmp_path,
        imitator,
        instructions=toy.instructions(80),
        rounds=3,
        n=8,
        epochs=3,
        learning_rate=1e-2,
        fine_tune="latest",
    )
    scores = [row["reward"] for row in rows]
    assert scores[2] > scores[1] > scores[0]
    assert scores[2] > scores[0] + 0.8


def test_empty_winners_are_left_out_and_counted(tmp_path, imitator):
    # The scorer likes nothing more than an answer that ends at once, where one was drawn.
    rows = _train(tmp_path, imitator, scorer=lambda i, c: [-float(len(one.text)) for one in c], rounds=1, n=16)
    winners = [winner for winner, _ in _winners(tmp_path)]
    empty = [winner for winner in winners if not winner.text]
    assert 0 < len(empty) < 40
    assert rows[0]["winners/empty"] == pytest.approx(len(empty) / 40)
    steps = (tmp_path / "rounds/01/metrics.jsonl").read_text().splitlines()
    assert len(steps) == 2 * math.ceil((40 - len(empty)) / 8)


def _raises(instructions, completions):
    raise RuntimeError("the judge is out")


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (_raises, "RuntimeError: the judge is out"),
        (lambda instructions, completions: [0.0], "1 numbers for 160 completions"),
        (lambda instructions, completions: [math.nan] * len(completions), "returned nan for an answer to"),
    ],
    ids=["raises", "counts wrong", "says NaN"],
)
def test_a_scorer_that_fails_stops_it_before_anything_is_trained(tmp_path, imitator, scorer, message):
    with pytest.raises(ScorerError, match=message):
        _train(tmp_path, imitator, scorer=scorer)
    assert not (tmp_path / "rounds").exists()


def test_no_instructions_and_too_long_ones_are_refused_before_any_answer(tmp_path, imitator):
    with pytest.raises(DataError, match="no instructions"):
        _train(tmp_path, imitator, instructions=[])
    with pytest.raises(DataError, match="expected a prompt of 1 to 3 tokens"):
        _train(tmp_path, imitator, max_prompt_tokens=3)


def test_answers_that_would_be_cut_where_they_are_imitated_are_refused():
    # By hand: 16 + 12 = 28.
    settings = {"max_prompt_tokens": 16, "max_new_tokens": 12}
    expert_iteration.Config(max_tokens=28, **settings)
    with pytest.raises(ValidationError, match=r"max_prompt_tokens \+ max_new_tokens = 28 .* max_tokens = 27"):
        expert_iteration.Config(max_tokens=27, **settings)


def test_a_prompt_beyond_the_context_of_the_model_that_imitates_is_refused_before_any_answer(tmp_path, imitator):
    short = toy.save_base(tmp_path / "short")
    settings = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 4}))
    with pytest.raises(DataError, match="expected a prompt of 1 to 3 tokens"):
        _train(tmp_path / "run", imitator, base=short, fine_tune="base")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_other_settings_instructions_or_models_is_refused(tmp_path, imitator, base, trained):
    folder, _ = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    to_base = {"base": base, "fine_tune": "base"}
    for changes in ({"n": 5}, {"seed": 1}, {"instructions": toy.instructions(40, seed=3)}, to_base):
        with pytest.raises(RunFolderError, match="begun with another model, other data or other settings"):
            _train(folder, imitator, scorer=alone.any_taste, **changes)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fine_tune", ["start", "latest", "base"])
def test_a_base_model_is_named_exactly_where_it_is_asked_for(tmp_path, imitator, base, fine_tune):
    with pytest.raises(RecipeError, match="do not go together"):
        _train(tmp_path, imitator, base=None if fine_tune == "base" else base, fine_tune=fine_tune)
    assert not (tmp_path / "rounds").exists()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path, imitator):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        _train(tmp_path / name, imitator, seed=seed, rounds=1)
    for file in ("metrics.jsonl", "model/model.safetensors", "rounds/01/winners/00000.jsonl"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in ("first", "again", "other"))
        assert first == again
        assert first != other
