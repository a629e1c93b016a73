"""A study's worth of made-up outcomes, put through the real statistics, in the size and shape of one in the meadow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pasture.core.seeds import stream
from pasture.core.statistics import Floats
from pasture.report.content import Column, Fact, StepCost, Table
from pasture.report.study_content import StudyContent
from pasture.report.summary import MEADOW
from pasture.validate.cost import LedgerEntry, study_cost
from pasture.validate.evaluation_validity import evaluation_validity
from pasture.validate.noise import noise_ablation
from pasture.validate.overoptimization import Curve, best_of_n_kl, overoptimization
from pasture.validate.rank_correlation import rank_correlation
from pasture.validate.style import Answers, style
from tests.report.loop_numbers import content as loop_content

RATES = {
    "base": (0.35, 0.40), "sft": (0.36, 0.41), "binary FeedME": (0.37, 0.44), "reward conditioning": (0.38, 0.43),
    "quark": (0.41, 0.47), "expert iteration": (0.43, 0.50), "best of 16": (0.47, 0.55), "dpo": (0.46, 0.53),
    "ipo": (0.45, 0.54), "kto": (0.42, 0.49), "simpo": (0.48, 0.57), "rloo": (0.51, 0.58), "ppo": (0.50, 0.59),
}  # fmt: skip
"""Win rates among people and in the simulation."""
COUNT, SEEDS = 300, 3


def outcomes(rate: float, name: str, seeds: int = SEEDS, count: int = COUNT) -> Floats:
    """Wins and losses at this rate; instructions have difficulties that all systems share."""
    difficulty = 0.2 * stream(0, "difficulty", count).standard_normal(count)
    return (stream(0, name).random((seeds, count)) < rate + difficulty).astype(np.float64)


def curve(feedback: str, judge: str, family: str, rates: list[float]) -> dict[str, object]:
    count = len(rates)
    n = [float(2**number) for number in range(count)]
    ppo = family == "ppo"
    found = overoptimization(
        Curve(
            family=family,
            feedback=feedback,
            judge=judge,
            form="rl" if ppo else "best-of-n",
            progress_name="step" if ppo else "n",
            progress=tuple(10.0 * number for number in range(count)) if ppo else tuple(n),
            kl=tuple(2.5 * number for number in range(count)) if ppo else tuple(best_of_n_kl(int(one)) for one in n),
            proxy=tuple(0.25 * number for number in range(count)) if ppo else tuple(0.2 * k for k in range(count)),
            outcomes=tuple(outcomes(rate, f"{feedback} {judge} {family} {k}") for k, rate in enumerate(rates)),
        ),
        seed=0,
    )
    return found.to_dict()


def parts() -> Mapping[str, Any]:
    """What the statistics found, as their JSON."""
    people = {name: outcomes(rates[0], f"people {name}") for name, rates in RATES.items()}
    simulated = {name: outcomes(rates[1], f"simulation {name}") for name, rates in RATES.items()}
    live = {name: outcomes(rates[1] + 0.02, f"live {name}", count=150) for name, rates in RATES.items()}
    down = [0.36, 0.47, 0.50, 0.48, 0.45, 0.42, 0.40]
    up = [0.40, 0.48, 0.53, 0.56, 0.58, 0.59, 0.60]
    curves = [
        curve("people", "people", "ppo", down),
        curve("people", "people", "best of n", [0.36, 0.41, 0.46, 0.48, 0.47]),
        curve("noisy pool", "pool", "ppo", [rate + 0.05 for rate in down]),
        curve("noisy pool", "pool", "best of n", [0.41, 0.46, 0.50, 0.52, 0.51]),
        curve("one noiseless judge", "that judge", "ppo", up),
        curve("one noiseless judge", "that judge", "best of n", up[:5]),
    ]
    labels = (stream(0, "labels").random((13, 200)) < 0.63).astype(np.float64)
    crowd = (stream(0, "crowd").random((200, 4)) < 0.75).astype(np.float64)
    return {
        "ranking": rank_correlation(simulated, people, 0, sizes=(25, 50, 100, 200, 400, 800)).to_dict(),
        "transfer": [
            {"system": name, "rate": row["people"]}
            for row in rank_correlation(simulated, people, 0, sizes=()).to_dict()["points"]  # type: ignore[attr-defined]
            for name in [row["system"]]
            if name in ("ppo", "sft", "dpo")
        ],
        "curves": curves,
        "styles": [
            {"title": "trained on people, judged by people", "baseline": "sft", "styles": styles("people")},
            {"title": "trained and judged in simulation", "baseline": "sft", "styles": styles("simulation")},
        ],
        "labels": [
            {"feedback": "people", "judge": "people", "like_people": None, "system_count": 13, "spearman": None}
            | {"falls": falls(curves[:2])},
            {
                "feedback": "noisy pool",
                "judge": "pool",
                "like_people": {"value": 0.58, "standard_error": 0.005, "interval": {"low": 0.57, "high": 0.59}},
                "system_count": 13,
                "spearman": {"value": 0.93, "interval": {"low": 0.82, "high": 0.98}},
                "falls": falls(curves[2:4]),
            },
        ],
        "noise": [point.to_dict() for point in noise_ablation(labels, crowd, (0.0, 0.1, 0.25, 0.4), (1, 4, 13), 0)],
        "validity": evaluation_validity(simulated, live, 0).to_dict(),
        "cost": study_cost(
            [LedgerEntry("3-annotate/preferences", 40.0, 0.0, 60_000), LedgerEntry("4-learn", 700.0, 0.0)]
        ).to_dict(),
    }


def falls(curves: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: curve[name] for name in ("family", "downturn", "turns_down")} for curve in curves]


def styles(world: str) -> list[dict[str, object]]:
    """PPO's answers as they grow, and best of n's at the end."""
    generator = stream(0, "style", world)
    lengths = generator.integers(40, 70, COUNT).astype(np.float64)
    none = np.zeros(COUNT)
    baseline = Answers("sft", lengths, none, outcomes(0.36, f"style {world}")[0])
    systems = [
        Answers(
            "ppo",
            generator.integers(40, 70 + 15 * k, COUNT).astype(np.float64),
            none,
            outcomes(0.36 + 0.03 * k, f"style {world} {k}")[0],
            10.0 * k,
        )
        for k in range(6)
    ]
    return [row.to_dict() for row in style([*systems, Answers("sft", lengths, none, baseline.credit)], baseline, 0)]


def study() -> StudyContent:
    loop = loop_content()
    return StudyContent.model_validate(
        {
            "title": "Does the simulator tell the truth?",
            "subtitle": "13 systems, 3 seeds, recipes/meadow/study.toml",
            "testbed": MEADOW,
            "reference": "demonstrations",
            **parts(),
            "annotators": loop.annotators,
            "ablations": (
                Table(
                    title="What noise does to over-optimization",
                    columns=(Column(title="Feedback"), Column(title="Fall", format="percent")),
                    rows=(("pool, no flips", 0.01), ("pool, 25% flips", 0.09)),
                ),
            ),
            "selection": (
                Table(
                    title="Which step was picked",
                    columns=(Column(title="System"), Column(title="Split"), Column(title="Step", format="count")),
                    rows=(("ppo", "validation", 20.0),),
                ),
            ),
            "costs": (StepCost(step="4-learn/ppo", seconds=312.0, cost_usd=0.0),),
            "samples": loop.samples,
            "facts": (Fact(name="Seeds", value="0, 1, 2"),),
            "recipe": loop.recipe,
        }
    )
