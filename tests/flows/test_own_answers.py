"""Options of methods that learn from their own answers, from a recipe to the leaderboard."""

import json
from pathlib import Path

import pytest

from tests.flows.tiny import LOOP, TINY, run

OWN = (
    "steps=2",
    "rollout_batch_size=8",
    "minibatch_size=4",
    "max_new_tokens=8",
    "save_every=1",
    "max_prompt_tokens=48",
)
ANNOTATED = ("judge=annotator", *OWN)
FROM_BASE = ("fine_tune=base", "n=2", "epochs=1", "batch_size=8", "max_new_tokens=8", "max_prompt_tokens=48")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_judgements_of_the_annotator_a_fresh_start_and_a_shared_trunk_go_through_the_loop(tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = [f"learn.online_dpo.{one}" for one in ANNOTATED] + [f"learn.expert_iteration.{one}" for one in FROM_BASE]
    done = run("run", str(LOOP), *TINY, *more, "learn.ppo.value=shared", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    board = (out / "5-evaluate" / "board" / "leaderboard.json").read_text()
    assert all(f'"{name}"' in board for name in ("ppo", "online_dpo", "expert_iteration"))
    # The pool judged each step's pairs of different answers, with the recipe's noise, and its verdicts can be read.
    judged = out / "4-learn" / "online_dpo" / "judged"
    preferences = [
        json.loads(line) for path in judged.glob("*-preferences.jsonl") for line in path.read_text().splitlines()
    ]
    rows = [json.loads(line) for line in (out / "4-learn" / "online_dpo" / "metrics.jsonl").read_text().splitlines()]
    asked = sum(round(4 * (1 - row["pairs/equal"])) for row in rows)  # 8 answers a step are 4 pairs
    assert 0 < len(preferences) == asked
    assert all(one["annotator"].startswith("meadow-pool") for one in preferences)
    facts = json.loads((out / "4-learn" / "online_dpo" / "model" / "pasture.json").read_text())
    assert facts["judge"] == "pool"
