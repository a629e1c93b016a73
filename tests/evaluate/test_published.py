"""The numbers that AlpacaEval published, met from its annotations."""

from dataclasses import replace

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.core.statistics import Floats
from pasture.evaluate.alpaca_length_control import Regularizer, alpaca_length_control, by_instruction, by_row
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.win_rate import discrete_rate, summarize
from tests.evaluate import published

pytestmark = published.needs_published


def regularizer() -> Regularizer:
    lc = published.FOLDER / "lc"
    return Regularizer.read(lc / "instruction_difficulty.csv", lc / "df_gamed_surrogate.csv")


@pytest.mark.parametrize("version", ["ae1", "ae2"])
def test_win_rates_errors_counts_and_lengths_are_the_published_ones(version):
    rows = published.table(f"{version}/expected_leaderboard_rows.csv")
    assert len(rows) == 6
    for system, row in rows.items():
        record = summarize(published.read(version, system), seed=0)
        assert record.rate == pytest.approx(float(row["win_rate"]) / 100, abs=1e-11)
        assert record.standard_error == pytest.approx(float(row["standard_error"]) / 100, abs=1e-11)
        assert discrete_rate(record) == pytest.approx(float(row["discrete_win_rate"]) / 100, abs=1e-11)
        assert [record.wins, record.losses, record.ties, record.judged] == [
            int(row[name]) for name in ("n_wins", "n_wins_base", "n_draws", "n_total")
        ]
        # Published lengths are of the model's outputs, cut to whole characters; annotations miss a few outputs.
        assert record.mean_length == pytest.approx(int(row["avg_length"]), abs=2)


@pytest.mark.parametrize("version", ["ae1", "ae2"])
def test_length_controlled_rates_are_those_of_the_official_code(version):
    # Column made by alpaca_eval 0.6.6 with the same regularizing rows; by row, as that code joins.
    expected = published.table(f"{version}/expected_lc_variants.csv")
    control = regularizer()
    for system, row in expected.items():
        outcomes = published.read(version, system)
        result = alpaca_length_control(outcomes, by_row(outcomes, control.difficulty), control)
        assert 100 * result.rate == pytest.approx(float(row["lc_official_code_with_surrogate_gamed"]), abs=1e-6)
        if version == "ae2":
            assert 100 * result.rate == pytest.approx(float(row["lc_leaderboard"]), abs=0.15)


def test_the_published_length_controlled_error_is_a_spread_of_predictions():
    control = regularizer()
    row = published.table("ae2/expected_leaderboard_rows.csv")["FuseChat-Llama-3.1-8B-Instruct"]
    outcomes = published.read("ae2", "FuseChat-Llama-3.1-8B-Instruct")
    result = alpaca_length_control(outcomes, by_row(outcomes, control.difficulty), control)
    assert 100 * result.prediction_spread == pytest.approx(float(row["lc_standard_error"]), abs=1e-3)


def test_joining_by_instruction_survives_shuffling_and_joining_by_row_does_not():
    control = regularizer()
    outcomes = published.read("ae2", "claude-2")
    known = {
        row["instruction_sha16"]: value for row, value in zip(published.instructions(), control.difficulty, strict=True)
    }
    order = np.random.default_rng(0).permutation(len(outcomes))
    shuffled = replace(outcomes, **{name: getattr(outcomes, name)[order] for name in COLUMNS})

    def rate(rows: Outcomes, difficulty: Floats) -> float:
        return 100 * alpaca_length_control(rows, difficulty, control).rate

    straight = rate(outcomes, by_row(outcomes, control.difficulty))
    assert rate(outcomes, by_instruction(outcomes, known)) == pytest.approx(straight, abs=1e-9)
    assert rate(shuffled, by_instruction(shuffled, known)) == pytest.approx(straight, abs=0.3)  # folds differ
    assert rate(shuffled, by_row(shuffled, control.difficulty)) > straight + 4  # 34.7 to 35.3 was measured


COLUMNS = (
    "instruction", "source", "credit", "shown_first", "system_length", "reference_length", "system_list",
    "reference_list",
)  # fmt: skip


def test_the_published_length_control_gives_a_coin_tossing_judge_a_taste():
    control = regularizer()
    outcomes = published.read("ae2", "falcon-7b-instruct")
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(5):
        tossed = replace(outcomes, credit=rng.integers(0, 2, len(outcomes)).astype(float))
        rates.append(alpaca_length_control(tossed, by_row(tossed, control.difficulty), control).rate)
    assert np.mean(rates) == pytest.approx(0.606, abs=0.02)  # 60.6 was measured; 50 would be right


def test_an_unknown_instruction_and_too_many_rows_are_errors():
    outcomes = published.read("ae2", "claude-2")
    with pytest.raises(DataError, match="805 instructions of 'claude-2' have no difficulty"):
        by_instruction(outcomes, {})
    with pytest.raises(DataError, match="805 rows, the difficulties end at 3"):
        by_row(outcomes, np.zeros(3))
