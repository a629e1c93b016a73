"""The paper's own numbers, which a study's page sets beside its figures.

Source of all: Dubois et al. 2023, AlpacaFarm, https://arxiv.org/abs/2305.14387, and the figures of its repository,
https://github.com/tatsu-lab/alpaca_farm; what was read off a figure says so.
"""

from typing import NamedTuple

SOURCE = "Dubois et al. 2023, arXiv 2305.14387"


class Method(NamedTuple):
    """A row of the paper's table of methods: win rates against text-davinci-003 with their standard errors."""

    name: str
    simulated: float
    simulated_error: float
    people: float | None
    people_error: float | None


METHODS = (
    Method("GPT-4", 0.790, 0.014, 0.698, 0.016),
    Method("ChatGPT", 0.614, 0.017, 0.529, 0.017),
    Method("PPO", 0.468, 0.018, 0.551, 0.017),
    Method("best-of-n", 0.450, 0.017, 0.507, 0.018),
    Method("expert iteration", 0.419, 0.017, 0.457, 0.017),
    Method("SFT 52k", 0.392, 0.017, 0.407, 0.017),
    Method("SFT 10k", 0.367, 0.017, 0.443, 0.017),
    Method("binary FeedME", 0.366, 0.017, 0.379, 0.017),
    Method("Quark", 0.356, 0.017, None, None),
    Method("binary reward conditioning", 0.324, 0.016, None, None),
    Method("Davinci001", 0.244, 0.015, 0.325, 0.016),
    Method("LLaMA 7B", 0.113, 0.011, 0.065, 0.009),
)
"""Table 2: trained and judged in simulation, trained and judged by people."""

RANKING = (
    "The paper: Spearman 0.98 and R² 0.87 over ten systems, two pairs swapped (its Figure 3; recomputed from Table 2: "
    "0.976 and 0.871)."
)
OVEROPTIMIZATION = (
    "The paper, Figure 4, read off: people's win rate for PPO goes from 44 to 55 and back to 51%, for best-of-n from "
    "50 to 51 and 46%; the noisy pool's for PPO from 37 to 47 and back to 42 to 44%, for best-of-n from 34 to 45 and "
    "39%; a single noiseless GPT-4 shows no downturn."
)
EVALUATION_VALIDITY = "The paper: Spearman 0.90, R² 0.97 between its 805 instructions and those of live users."
LENGTH = (
    "The paper: the SFT model's answers have 258 characters on average, those after learning from feedback 728 "
    "(252 instructions)."
)
ANNOTATORS = (
    "The paper: one person agrees with the majority of the others in 66% of cases at $300 per 1,000 labels, the pool "
    "in 65% at $12, with 25% flips at $6."
)
TRANSFER = (
    "The paper (first version, section 5.3), judged by people: PPO trained on the noisy pool 43%, on one noiseless "
    "GPT-4 50%, SFT 44%, PPO trained on people 55%."
)
COST = "The paper: 10,000 labels cost $3,000 and days from people, $70 and hours from the pool; the whole under $200."
NOISE = "The paper has a label-noise ablation (appendix E.1) whose numbers we could not find in print."
