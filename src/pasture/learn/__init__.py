"""Room 4: preferences become models, one readable file for each method."""

from pasture.learn import (
    best_of_n,
    dpo,
    ensemble,
    expert_iteration,
    feedme,
    grpo,
    kto,
    online_dpo,
    ppo,
    quark,
    reward_conditioning,
    reward_model,
    rloo,
    sft,
    simpo,
)

METHODS = {
    "sft": sft,
    "reward_model": reward_model,
    "reward_model_ensemble": ensemble,
    "best_of_n": best_of_n,
    "dpo": dpo,
    "simpo": simpo,
    "kto": kto,
    "feedme": feedme,
    "reward_conditioning": reward_conditioning,
    "ppo": ppo,
    "rloo": rloo,
    "grpo": grpo,
    "online_dpo": online_dpo,
    "expert_iteration": expert_iteration,
    "quark": quark,
}
"""Each method's module by its name in a recipe; `Config` holds its settings."""
