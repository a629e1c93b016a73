"""Annotator analysis: AlpacaEval's definitions by hand and on its published data, people's on PandaLM's."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import evalica
import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import correlation
from pasture.core.tables import Row, read_rows
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.ranking import bradley_terry
from pasture.validate.agreement import analyze, majority
from pasture.validate.cross_annotations import Columns, CrossAnnotations, read_cross_annotations

DATA = Path(__file__).parents[2].parent / "shared/data"
needs_published = pytest.mark.skipif(not (DATA / "alpaca_eval").exists(), reason=f"no AlpacaEval data at {DATA}")
needs_pandalm = pytest.mark.skipif(not (DATA / "pandalm").exists(), reason=f"no PandaLM data at {DATA}")


def annotations(labels: list[list[float]], name: str = "judge", **more: object) -> CrossAnnotations:
    """Labels as AlpacaEval codes them: 1 for the first, 2 for the second, 0 a tie."""
    rows: list[Row] = [
        {"instruction": f"i{pair}", "output_1": "x", "output_2": "y", "preference": label, **more}
        for pair, given in enumerate(labels)
        for label in given
    ]
    return read_cross_annotations(rows, Columns(), name=name)[name]


def test_one_against_the_others_is_the_hand_computed_example():
    # AlpacaEval's own example: four labels 1 1 1 1 on one pair and 2 2 2 1 on another. One against the majority of
    # the other three agrees in 7 of 8 cases (the lone 1 does not), one against one in 9 of 12.
    report = analyze(people := annotations([[1, 1, 1, 1], [2, 2, 2, 1]]), people, seed=0)
    assert report.agreement is not None
    assert report.variance is not None
    assert report.pairwise_agreement is not None
    assert report.agreement.value == pytest.approx(0.875)
    assert report.variance.value == pytest.approx(0.125)
    assert report.pairwise_agreement.value == pytest.approx(0.75)


def test_labels_of_recorded_comparisons_meet_those_of_rows_with_the_same_texts():
    record: Row = {
        "id": "c1",
        "instruction": {"id": "i1", "instruction": "do", "input": "it"},
        "first": {"text": "x", "system": "a"},
        "second": {"text": "y", "system": "b"},
        "annotator": "judge",
        "preference": 2,
    }
    row: Row = {"instruction": "do", "input": "it", "output_1": "x", "output_2": "y", "preference": 2, "annotator": "p"}
    found = read_cross_annotations([record, row], Columns())
    assert found["judge"].pairs == found["p"].pairs
    assert found["judge"].labels.tolist() == [[1.0]]


def test_agreement_and_bias_by_hand():
    people = annotations([[1, 1, 2], [2, 2, 2], [1, 0, 0]], name="people")  # majorities: first, second, tie
    judge = annotations([[1, 2, 1], [1, 1, 1], [0, 0, 2]])
    report = analyze(judge, people, seed=0)
    assert report.agreement is not None
    assert report.bias is not None
    # Column by column, distances to (0, 1, 1/2): 0 1 0, 1 1 0, 0 1 1/2, each over three pairs.
    assert report.agreement.value == pytest.approx(1 - (1 + 2 + 1.5) / 9)
    # Majorities 0, 0, 1/2 against 0, 1, 1/2.
    assert report.bias.value == pytest.approx(1 / 3)


def test_an_even_vote_falls_as_pandas_draws_it():
    # pandas.Series([10, 20]).sample(1, random_state=123) gives 20, of [10, 20, 30] it gives 10 (pandas 3.1.1).
    assert majority(np.array([[1.0, 0.0]])).tolist() == [1.0]
    assert majority(np.array([[0.0, 0.5, 1.0]])).tolist() == [0.0]


def test_probabilities_take_the_median_and_nothing_stays_nothing():
    result = majority(np.array([[0.1, 0.2, 0.9], [np.nan, np.nan, np.nan]]))
    assert result[0] == 0.2
    assert np.isnan(result[1])


def test_leanings_are_counted_on_decided_pairs_that_differ():
    rows: list[Row] = [
        {"instruction": "a", "output_1": "x" * 50, "output_2": "y", "preference": 1},  # longer wins
        {"instruction": "b", "output_1": "x" * 50, "output_2": "y", "preference": 2},  # shorter wins
        {"instruction": "c", "output_1": "x" * 30, "output_2": "", "preference": 1},  # 30 apart: not longer
        {"instruction": "d", "output_1": "x", "output_2": "y" * 90, "preference": 0},  # tie: not decided
        {"instruction": "e", "output_1": "x" * 40, "output_2": "- a list", "preference": 2},  # list wins, shorter wins
        {"instruction": "f", "output_1": "x", "output_2": "y", "preference": None},  # failed
    ]
    [judge] = read_cross_annotations(rows, Columns()).values()
    report = analyze(judge, None, seed=0)
    assert report.prefer_longer is not None
    assert report.prefer_list is not None
    assert report.prefer_first is not None
    assert report.prefer_longer.value == pytest.approx(1 / 3)
    assert report.prefer_list.value == 1.0
    assert report.prefer_first.value == pytest.approx((1 + 0 + 1 + 0.5 + 0) / 5)
    assert (report.pair_count, report.parsed_count, report.label_count) == (6, 5, 6)
    assert report.usd_per_thousand is None


def test_kappa_and_alpha_are_the_libraries():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 3, 120)
    people = annotations([[int(value)] * 3 for value in truth], name="people")
    given = np.where(rng.random((120, 3)) < 0.75, truth[:, None], 3 - truth[:, None])
    report = analyze(annotations(given.tolist()), people, seed=0)
    assert report.kappa is not None
    assert report.alpha is not None
    assert report.kappa.value == pytest.approx(cohen_kappa_score(given[:, 0], truth))
    expected = krippendorff.alpha(reliability_data=given.T, level_of_measurement="nominal")
    assert report.alpha.value == pytest.approx(expected)
    for estimate in (report.kappa, report.alpha):
        assert estimate.interval.low < estimate.value < estimate.interval.high


def test_interval_coverage_of_agreement():
    rng = np.random.default_rng(1)
    base, people = annotations([[1, 1]] * 150), annotations([[1]] * 150, name="people")
    covered, trials = 0, 60
    for trial in range(trials):
        # Pairs differ in difficulty, so the two labels of one pair err together; 80% are right.
        chance = np.repeat(rng.beta(4, 1, 150)[:, None], 2, axis=1)
        judge = replace(base, labels=(rng.random((150, 2)) > chance).astype(float))
        report = analyze(judge, people, seed=trial)
        assert report.agreement is not None
        covered += report.agreement.interval.low <= 0.8 <= report.agreement.interval.high
    assert covered / trials >= 0.89  # two standard errors of 60 draws below 95%


def test_a_column_that_few_pairs_reach_weighs_no_more_than_its_labels():
    # Three pairs with labels 1 2, and one asked twice as often that always says 1. By hand: of the three, one label
    # agrees with people's 1 and one does not; the last agrees throughout. A pair counts once: (3 / 2 + 1) / 4.
    people = annotations([[1]] * 4, name="people")
    judge = annotations([[1, 2], [1, 2], [1, 2], [1, 1, 1, 1]])
    assert not judge.evenly_asked
    report = analyze(judge, people, seed=0)
    assert report.agreement is not None
    assert report.pairwise_agreement is not None
    assert report.agreement.value == pytest.approx(2.5 / 4)
    assert report.pairwise_agreement.value == pytest.approx(1 / 4)
    assert report.label_count == 10


def test_missing_labels_of_evenly_asked_pairs_keep_alpaca_evals_mean_over_columns():
    # alpaca_eval 0.6.6 averages the columns' means: the first is 1 of 2 away, the second 0 of 1.
    people = annotations([[1], [1]], name="people")
    given: list[tuple[str, int | None]] = [("i0", 1), ("i0", 1), ("i1", 2), ("i1", None)]
    rows: list[Row] = [
        {"instruction": pair, "output_1": "x", "output_2": "y", "preference": label} for pair, label in given
    ]
    judge = read_cross_annotations(rows, Columns(), name="judge")["judge"]
    report = analyze(judge, people, seed=0)
    assert report.agreement is not None
    assert report.agreement.value == pytest.approx(1 - (0.5 + 0.0) / 2)


def test_files_that_do_not_fit_say_why():
    good = annotations([[1]])
    with pytest.raises(DataError, match="share no pair"):
        analyze(good, annotations([[1]] * 1, name="people", input="else"), seed=0)
    row: Row = {"instruction": "a", "output_1": "x", "output_2": "y", "preference": 3}
    with pytest.raises(DataError, match=r"row 1: label 3 under 'preference'"):
        read_cross_annotations([row], Columns())
    with pytest.raises(DataError, match="no column 'vote'"):
        read_cross_annotations([row], Columns(labels=("vote",)))
    with pytest.raises(DataError, match="no rows"):
        read_cross_annotations([], Columns())


@needs_published
def test_gpt4_b1_gives_the_published_row():
    folder = DATA / "alpaca_eval/evaluators"
    [expected] = read_rows(folder / "expected_evaluator_row.csv")
    rows = read_rows(folder / "gpt4_b1_crossannotations_4seeds.parquet")
    [judge] = read_cross_annotations(rows, Columns()).values()
    report = analyze(judge, None, seed=0)
    assert report.variance is not None
    assert report.prefer_longer is not None
    assert judge.labels.shape == (648, 4)
    assert 100 * report.variance.value == pytest.approx(float(str(expected["Variance"])), abs=1e-9)
    assert report.prefer_longer.value == pytest.approx(float(str(expected["Proba. prefer longer"])), abs=1e-9)
    assert report.parsed_count == float(str(expected["# parsed"])) == 2592
    assert report.usd_per_thousand == pytest.approx(float(str(expected["Price [$/1000 examples]"])))
    assert report.seconds_per_thousand == pytest.approx(float(str(expected["Time [seconds/1000 examples]"])))


@needs_published
def test_gpt4_b1_agrees_with_a_hundred_people_about_as_published():
    folder = DATA / "alpaca_eval/evaluators"
    [judge] = read_cross_annotations(
        read_rows(folder / "gpt4_b1_crossannotations_4seeds.parquet"), Columns(material="none")
    ).values()
    people = read_cross_annotations(
        read_rows(folder / "human_first100.parquet"),
        Columns(labels=("human_preference",), material="none"),
        name="people",
    )["people"]
    report = analyze(judge, people, seed=0)
    assert report.agreement is not None
    # Published: 67.0 against the majority of four people on 648 pairs; one label on 100 of them is noisier.
    assert report.agreement.interval.low < 0.67 < report.agreement.interval.high + 0.05


def pandalm(column: str | tuple[str, ...]) -> CrossAnnotations:
    labels = (column,) if isinstance(column, str) else column
    rows = read_rows(DATA / "pandalm/human_pairs.jsonl.gz")
    columns = Columns(labels=labels, pair="pair_id", system="generator_2")
    return read_cross_annotations(rows, columns, name="+".join(labels))["+".join(labels)]


HUMANS = ("human_1", "human_2", "human_3")


@needs_pandalm
def test_pandalm_people_agree_as_counted_independently():
    rows = read_rows(DATA / "pandalm/human_pairs.jsonl.gz")
    table = np.array([[int(str(row[name])) for name in HUMANS] for row in rows])
    people = pandalm(HUMANS)
    report = analyze(people, people, seed=0)
    assert report.alpha is not None
    assert report.pairwise_agreement is not None
    expected = krippendorff.alpha(reliability_data=table.T, level_of_measurement="nominal")
    assert report.alpha.value == pytest.approx(expected, abs=1e-6)
    # A tie is half a label away from a win; the share of equal labels is the plain count.
    distance = np.array([0.5, 0.0, 1.0])[table]
    gaps = [np.abs(distance[:, a] - distance[:, b]).mean() for a, b in combinations(range(3), 2)]
    assert report.pairwise_agreement.value == pytest.approx(1 - np.mean(gaps), abs=1e-9)
    assert report.alpha.interval.low < report.alpha.value < report.alpha.interval.high


@needs_pandalm
@pytest.mark.parametrize("judge", ["gpt35", "pandalm_7b"])
def test_pandalm_judges_are_measured_against_people(judge):
    report = analyze(pandalm(judge), pandalm(HUMANS), seed=0)
    assert report.agreement is not None
    assert report.kappa is not None
    assert 0.5 < report.agreement.value < 1
    assert report.agreement.interval.high - report.agreement.interval.low < 0.1
    assert report.kappa.interval.low > 0  # better than chance


def duels(column: str) -> list[Outcomes]:
    """PandaLM's pairs as outcomes of one system against another, by one column of labels."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(DATA / "pandalm/human_pairs.jsonl.gz"):
        groups.setdefault((str(row["generator_1"]), str(row["generator_2"])), []).append(row)
    credit = {"1": 1.0, "2": 0.0, "0": 0.5, "Tie": 0.5, "garbage": np.nan}
    return [
        Outcomes(
            system=first,
            reference=second,
            judge=column,
            instruction=np.array([str(row["pair_id"]) for row in rows]),
            source=np.array(["pandalm"] * len(rows)),
            credit=np.array([credit[str(row[column])] for row in rows]),
            shown_first=np.ones(len(rows), dtype=np.bool_),
            system_length=np.array([float(len(str(row["output_1"]))) for row in rows]),
            reference_length=np.array([float(len(str(row["output_2"]))) for row in rows]),
            system_list=np.zeros(len(rows), dtype=np.bool_),
            reference_list=np.zeros(len(rows), dtype=np.bool_),
        )
        for (first, second), rows in groups.items()
    ]


@needs_pandalm
@pytest.mark.parametrize("column", ["human_1", "gpt35", "pandalm_7b"])
def test_pandalm_systems_rank_as_evalica_ranks_them(column):
    rows = duels(column)
    winner = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    rows = [row.where(row.judged) for row in rows]
    theirs = evalica.newman(
        [row.system for row in rows for _ in row.credit],
        [row.reference for row in rows for _ in row.credit],
        [winner[value] for row in rows for value in row.credit.tolist()],
        tolerance=1e-10,
        limit=10_000,
    ).scores
    ranking = bradley_terry(rows, seed=0, draws=100)
    assert len(ranking.systems) == 5
    logs = np.log(theirs) - np.log(theirs).mean()
    for row in ranking.systems:
        assert row.strength == pytest.approx(logs[row.system], abs=5e-3)
        assert 1 <= row.rank_low <= row.rank <= row.rank_high <= 5


SIMULATED_AND_HUMAN = {
    "GPT-4": (79.0, 69.8), "ChatGPT": (61.4, 52.9), "PPO": (46.8, 55.1), "Best-of-n": (45.0, 50.7),
    "Expert Iteration": (41.9, 45.7), "SFT 52k": (39.2, 40.7), "SFT 10k": (36.7, 44.3),
    "Binary FeedME": (36.6, 37.9), "Davinci001": (24.4, 32.5), "LLaMA 7B": (11.3, 6.5),
}  # fmt: skip
"""AlpacaFarm's table 2: win rates by simulated annotators and by people, where both are given."""


def test_the_papers_method_table_gives_its_rank_correlation():
    simulated, human = np.array(list(SIMULATED_AND_HUMAN.values())).T
    result = correlation(simulated, human, stream(0, "paper"))
    # Dubois et al. 2023, figure 3: Spearman 0.98 and R squared 0.87.
    assert result.spearman == pytest.approx(0.976, abs=5e-4)
    assert result.r_squared == pytest.approx(0.871, abs=5e-4)
    assert result.item_count == 10
    # Ten points are few: the interval is far from a point, and says so.
    assert result.spearman_interval.low < 0.92
    assert result.r_squared_interval.low < 0.8
