"""A report's worth of made-up numbers in the size and shape of a real run of the meadow's loop; only for tests."""

import math

from pasture.core.records import Completion, FinishReason, Instruction, WinRate
from pasture.core.seeds import stream
from pasture.report import summary
from pasture.report.content import (
    Answer,
    Column,
    Difference,
    Fact,
    Figure,
    Judgement,
    Leaderboard,
    Mark,
    Outcome,
    Panel,
    ReportContent,
    Sample,
    Series,
    StepCost,
    Table,
)

ASKED = 805


def win_rate(system: str, rate: float, judge: str, length: float = 60.0, unjudged: int = 0) -> WinRate:
    judged = ASKED - unjudged
    ties = round(judged * min(0.04, rate, 1 - rate))
    wins = round(judged * rate - ties / 2)
    error = math.sqrt(rate * (1 - rate) / judged)
    return WinRate(
        system=system,
        reference="demonstrations",
        judge=judge,
        rate=rate,
        standard_error=error,
        interval_low=max(rate - 1.96 * error, 0.0),
        interval_high=min(rate + 1.96 * error, 1.0),
        asked=ASKED,
        judged=judged,
        unjudged=unjudged,
        wins=wins,
        losses=judged - wins - ties,
        ties=ties,
        mean_length=length,
    )


def leaderboards() -> tuple[Leaderboard, ...]:
    people = {"base": (0.118, 31), "sft": (0.361, 64), "best-of-16": (0.463, 83), "ppo": (0.521, 118)}
    raters = {"base": (0.131, 31), "sft": (0.372, 64), "best-of-16": (0.481, 83), "ppo": (0.538, 118)}
    return (
        Leaderboard(
            title="people (hidden)",
            rows=tuple(win_rate(name, rate, "people", length) for name, (rate, length) in people.items()),
            differences=(
                Difference(
                    system="ppo", baseline="sft", difference=0.16, interval_low=0.121, interval_high=0.199, p_value=1e-4
                ),
                Difference(
                    system="ppo",
                    baseline="best-of-16",
                    difference=0.058,
                    interval_low=0.017,
                    interval_high=0.099,
                    p_value=0.006,
                ),
            ),
        ),
        Leaderboard(
            title="simulated annotators",
            rows=tuple(win_rate(name, rate, "pool", length, unjudged=3) for name, (rate, length) in raters.items()),
            note="Thirteen raters without label noise, one drawn for each instruction.",
        ),
    )


VALIDATION_RATES = (0.352, 0.431, 0.497, 0.528, 0.519, 0.506, 0.488, 0.481, 0.462)


def curves() -> tuple[Figure, ...]:
    noise = stream(7, "curves").normal(0.0, 1.0, (6, 41))
    steps = [float(step) for step in range(41)]

    def line(label: str, values: list[float], band: float = 0.0) -> Series:
        ends = {"low": [v - band for v in values], "high": [v + band for v in values]} if band else {}
        return Series(label=label, x=tuple(steps), y=tuple(values), **ends)

    reward = [0.09 + 1.1 * (1 - math.exp(-s / 18)) + 0.05 * noise[0, int(s)] for s in steps]
    kl = [0.35 * s**0.8 / 4 + 0.08 * noise[1, int(s)] for s in steps]
    length = [17 + 14 * (1 - math.exp(-s / 12)) + 0.6 * noise[2, int(s)] for s in steps]
    entropy = [1.45 * math.exp(-s / 35) + 0.02 * noise[3, int(s)] for s in steps]
    pick = Figure(
        name="ppo-selection",
        title="Which PPO step was picked",
        caption="Judged by the simulated annotators on the validation instructions; the evaluation set plays no part.",
        panels=(
            Panel(
                title="Validation win rate",
                x_label="PPO step",
                percent=True,
                series=(
                    Series(
                        label="ppo",
                        x=tuple(float(step) for step in range(0, 41, 5)),
                        y=VALIDATION_RATES,
                        low=tuple(rate - 0.044 for rate in VALIDATION_RATES),
                        high=tuple(rate + 0.044 for rate in VALIDATION_RATES),
                    ),
                ),
                marks=(Mark(x=15, label="picked"),),
                note="It turns down while the reward goes on rising: the reward model is being over-optimized.",
            ),
        ),
    )
    ppo = Figure(
        name="ppo-training",
        title="PPO, step by step",
        caption="Means over the 128 answers sampled at each step.",
        panels=(
            Panel(title="Reward", series=(line("ppo", reward, 0.08),)),
            Panel(title="KL to the SFT model, nats", series=(line("ppo", kl),)),
            Panel(title="Answer length, tokens", series=(line("ppo", length),)),
            Panel(title="Entropy, nats per token", series=(line("ppo", entropy),)),
        ),
    )
    loss = Figure(
        name="losses",
        title="Losses",
        panels=(
            Panel(
                title="Loss, nats per token",
                series=(
                    line("sft, train", [2.4 * math.exp(-s / 8) + 0.62 + 0.03 * noise[4, int(s)] for s in steps]),
                    line("sft, validation", [2.3 * math.exp(-s / 8) + 0.66 + 0.01 * noise[5, int(s)] for s in steps]),
                ),
            ),
        ),
    )
    return pick, ppo, loss


def sample(number: int, said: dict[str, tuple[str, float, Outcome, Outcome]]) -> Sample:
    asked = Instruction(
        id=f"meadow-{number}",
        instruction="describe the fox in detail , please" if number % 2 else "sort the words",
        input="" if number % 2 else "pear apple quince fig",
        source="describe" if number % 2 else "sort",
        split="eval",
    )
    answers = []
    for system, (text, score, people, pool) in said.items():
        finish: FinishReason = "length" if system == "base" else "stop"
        completion = Completion(instruction_id=asked.id, text=text, system=system, seed=0, finish_reason=finish)
        judged = (Judgement(judge="people", outcome=people), Judgement(judge="simulated annotators", outcome=pool))
        answers.append(
            Answer(completion=completion, score=score, judgements=() if system == "demonstrations" else judged)
        )
    return Sample(instruction=asked, answers=tuple(answers))


def samples() -> tuple[Sample, ...]:
    return (
        sample(
            1,
            {
                "demonstrations": ("the fox is red . it lives in the wood .", 0.41, "tie", "tie"),
                "base": ("the fox fox the is red the the pear is", -1.7, "loss", "loss"),
                "sft": ("sure ! here is the answer : the fox is red .", 0.22, "loss", "tie"),
                "ppo": (
                    "sure ! here is the answer : the fox is red . it eats mice . i hope this helps !",
                    1.38,
                    "win",
                    "win",
                ),
            },
        ),
        sample(
            2,
            {
                "demonstrations": ("apple fig pear quince", 0.30, "tie", "tie"),
                "base": ("", -2.0, "loss", "unjudged"),
                "sft": ("apple pear fig quince", -0.1, "loss", "loss"),
                "ppo": ("sure ! here is the answer : apple fig pear quince . i hope this helps !", 0.9, "tie", "win"),
            },
        ),
    )


def content() -> ReportContent:
    return ReportContent(
        title="The loop in the meadow",
        subtitle="recipe meadow/loop, seed 0",
        date="2026-11-22",
        testbed=summary.MEADOW,
        baseline="sft",
        leaderboards=leaderboards(),
        figures=curves(),
        samples=samples(),
        score_label="reward model",
        annotators=(
            Table(
                title="Agreement with the majority of the others",
                caption="On 2,000 pairs of answers by the SFT model.",
                columns=(
                    Column(title="Annotators"),
                    Column(title="Comparisons", format="count"),
                    Column(title="Agreement", format="percent", meaning="One is held out, the others vote; ties half."),
                    Column(title="± SE", format="percent"),
                    Column(title="Longer preferred", format="percent"),
                    Column(title="Labels flipped", format="percent", meaning="By noise, after the judgement."),
                ),
                rows=(
                    ("people (hidden)", 2000, 0.661, 0.0106, 0.612, None),
                    ("pool, without flips", 2000, 0.652, 0.0107, 0.603, 0.0),
                    ("pool, as trained on", 10000, 0.577, 0.0049, 0.554, 0.2513),
                ),
            ),
        ),
        costs=(
            StepCost(step="1-data", seconds=1.9, cost_usd=0.0, note="10,000 demonstrations, 20,000 instructions"),
            StepCost(step="2-generate", seconds=31.4, cost_usd=0.0, note="10,000 pairs, 5.2k tokens a second"),
            StepCost(step="3-annotate", seconds=2.2, cost_usd=0.0, note="10,000 labels"),
            StepCost(step="4-learn/sft", seconds=41.0, cost_usd=0.0, note="600 steps, 0.068 s each"),
            StepCost(step="4-learn/reward_model", seconds=17.3, cost_usd=0.0),
            StepCost(step="4-learn/ppo", seconds=74.8, cost_usd=0.0, note="40 steps of 128 prompts, 1.87 s each"),
            StepCost(step="5-evaluate", seconds=12.6, cost_usd=0.0),
        ),
        facts=(
            Fact(name="pasture", value="0.1.0"),
            Fact(name="torch", value="2.13.0"),
            Fact(name="transformers", value="5.23.0"),
            Fact(name="python", value="3.11.7"),
            Fact(name="seed", value="0"),
            Fact(name="judge of people", value="meadow people, 16 of them, population seed 0"),
        ),
        recipe='name = "loop"\nseed = 0\n\n[data]\nsft = 10000\n\n[learn.ppo]\nsteps = 40\n',
        warnings=("A copy of the reference wins 58.1% by the simulated annotators; it should win 50%.",),
    )
