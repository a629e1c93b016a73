"""The analyses of a study from the judgements of its runs."""

from pathlib import Path

import numpy as np
import pytest

from pasture.core.records import Verdict
from pasture.core.statistics import Floats
from tests.steps.made_study import COUNT, MadeStudy, drawn

ARMS = {"simulation": {"title": "noisy pool"}, "people": {"judge": "people"}}
RATES = {"base": 0.2, "sft": 0.4, "ppo": 0.6}


def _made(root: Path, seeds: int = 1) -> MadeStudy:
    """Three systems judged in both arms; what nobody trained is the same in both."""
    made = MadeStudy.of(root, {"study": {"arms": ARMS, "seeds": list(range(seeds))}})
    for arm in ARMS:
        for seed in range(seeds):
            for system, rate in RATES.items():
                of = arm if system == "ppo" else "both"
                said = {judge: drawn(rate, f"{of} {seed} {system} {judge}") for judge in ("people", "pool")}
                made.judge(f"{arm}-{seed}", system, said)
    return made


def test_two_people_s_labels_of_each_answer_are_a_judgement_between_them(tmp_path: Path) -> None:
    made = MadeStudy.of(tmp_path, {"study": {"arms": ARMS}})
    for run in ("simulation-0", "people-0"):
        for system, rate in RATES.items():
            one, other = (drawn(rate, f"{run} {system} {who}") for who in ("ann", "ben"))
            crowd = [verdict for both in zip(one, other, strict=True) for verdict in both]
            made.judge(run, system, {"people": crowd, "pool": crowd}, each=2)
    points = {point["system"]: point for point in made.results()["ranking.json"]["points"]}
    for system, rate in RATES.items():
        # By hand: the share of all labels that are for the system, as each answer has two of them.
        labels = [verdict for who in ("ann", "ben") for verdict in drawn(rate, f"people-0 {system} {who}")]
        assert points[system]["people"]["value"] == pytest.approx(labels.count("second") / (2 * COUNT))


def _by_seed(rate: float, seed: int) -> list[Verdict]:
    return drawn(rate, f"moving {seed}")


def test_the_error_of_a_transfer_counts_the_spread_between_seeds(tmp_path: Path) -> None:
    rates = (0.1, 0.4, 0.6, 0.9)
    made = MadeStudy.of(tmp_path, {"study": {"arms": ARMS, "seeds": list(range(len(rates)))}})
    for seed, moving in enumerate(rates):
        for arm in ARMS:
            for system, rate in RATES.items():
                said = drawn(rate, f"{arm} {seed} {system}") if system != "ppo" else _by_seed(moving, seed)
                made.judge(f"{arm}-{seed}", system, {"people": said, "pool": said})
    [row] = [row for row in made.results()["transfer.json"] if row["system"] == "ppo"]
    credit_SN: Floats = np.array(
        [[float(verdict == "second") for verdict in _by_seed(rate, seed)] for seed, rate in enumerate(rates)]
    )
    # Searle, Casella and McCulloch 1992: two crossed random effects without replication, by hand.
    by_seed, by_instruction, mean = credit_SN.mean(axis=1), credit_SN.mean(axis=0), credit_SN.mean()
    rest = credit_SN - by_seed[:, None] - by_instruction[None, :] + mean
    square_seeds = COUNT * by_seed.var(ddof=1)
    square_instructions = len(rates) * by_instruction.var(ddof=1)
    square_rest = (rest**2).sum() / ((len(rates) - 1) * (COUNT - 1))
    error = np.sqrt((square_seeds + square_instructions - square_rest) / (len(rates) * COUNT))
    assert row["rate"]["value"] == pytest.approx(mean)
    assert row["rate"]["standard_error"] == pytest.approx(error, rel=0.1)
    assert error > 3 * np.sqrt(square_instructions / (len(rates) * COUNT))


def test_what_nobody_trained_has_the_same_rate_and_interval_in_both_columns_by_people(tmp_path: Path) -> None:
    found = _made(tmp_path, seeds=2).results()
    people = {point["system"]: point["people"] for point in found["ranking.json"]["points"]}
    transfer = {row["system"]: row["rate"] for row in found["transfer.json"]}
    assert {system: transfer[system] for system in ("base", "sft")} == {
        system: people[system] for system in ("base", "sft")
    }
    assert transfer["ppo"] != people["ppo"]


def test_a_transfer_that_nobody_judged_has_no_rate(tmp_path: Path) -> None:
    made = MadeStudy.of(tmp_path, {"study": {"arms": ARMS, "seeds": [0]}})
    nothing: list[Verdict] = ["unjudged"] * COUNT
    for arm in ARMS:
        for system, rate in RATES.items():
            lacking = (arm, system) == ("simulation", "ppo")
            people = nothing if lacking else drawn(rate, f"{arm} {system} people")
            made.judge(f"{arm}-0", system, {"people": people, "pool": drawn(rate, f"{arm} {system} pool")})
    rates = {row["system"]: row["rate"]["value"] for row in made.results()["transfer.json"]}
    assert rates["ppo"] is None
    assert rates["base"] is not None


def test_a_system_that_its_own_judge_never_judged_is_left_out_and_told(tmp_path: Path) -> None:
    made = MadeStudy.of(tmp_path, {"study": {"arms": ARMS, "seeds": [0]}})
    nothing: list[Verdict] = ["unjudged"] * COUNT
    lacking = {("evaluation", "lost"), ("live", "sft")}
    for arm in ARMS:
        made.data(f"{arm}-0")
        for system, rate in {**RATES, "lost": 0.5, "kept": 0.7}.items():
            for split in ("evaluation", "live"):
                said = {judge: drawn(rate, f"{arm} {split} {system} {judge}") for judge in ("people", "pool")}
                said |= {"pool": nothing} if arm == "simulation" and (split, system) in lacking else {}
                made.judge(f"{arm}-0", system, said, split=split)
    found = made.results()
    ranked, on_both = ({row["system"] for row in found[f"{name}.json"]["points"]} for name in ("ranking", "validity"))
    assert ranked == {"base", "sft", "ppo", "kept"}
    assert on_both == {"base", "ppo", "kept"}
    end = "set, so it is left out of what compares systems there."
    assert made.page()["warnings"] == [
        f"lost, trained on noisy pool: pool judged none of its answers to the evaluation {end}",
        f"sft, trained on noisy pool: pool judged none of its answers to the live {end}",
    ]


def test_places_that_nobody_judged_are_left_out_of_a_curve(tmp_path: Path) -> None:
    made = _made(tmp_path)
    won: list[float | None] = [1.0] * 8
    lost: list[float | None] = [0.0] * 8
    nothing: list[float | None] = [None] * 8
    made.curve("people-0", "ppo", "people", {0: won + lost, 2: nothing * 2, 4: lost + won, 6: nothing + lost})
    made.curve("simulation-0", "ppo", "pool", {0: won + lost, 2: nothing * 2})
    [curve] = made.results()["curves.json"]
    assert [(point["progress"], point["rate"]["value"]) for point in curve["points"]] == [(0, 0.5), (4, 0.5), (6, 0.0)]


def test_a_study_in_which_nobody_labels_pairs_has_its_results(tmp_path: Path) -> None:
    found = _made(tmp_path).results()
    assert [row["like_people"] for row in found["feedback.json"]] == [None, None]
    assert len(found["ranking.json"]["points"]) == len(RATES)


def test_a_study_that_fine_tunes_nothing_has_its_results(tmp_path: Path) -> None:
    baselines = {"careful": {"writer": "careful"}, "hasty": {"writer": "hasty"}}
    made = MadeStudy.of(tmp_path, {"study": {"arms": ARMS, "seeds": [0]}, "baselines": baselines})
    for arm in ARMS:
        for system, rate in {"base": 0.2, "careful": 0.5, "hasty": 0.8}.items():
            made.judge(f"{arm}-0", system, {judge: drawn(rate, f"{system} {judge}") for judge in ("people", "pool")})
    found = made.results()
    assert [world["baseline"] for world in found["styles.json"]] == ["base", "base"]
    assert [row["system"] for row in found["transfer.json"]] == ["base", "careful", "hasty"]
