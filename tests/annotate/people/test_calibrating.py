"""`pasture calibrate` straight from a campaign, on either kind of store."""

import json
from collections.abc import Mapping
from pathlib import Path

from pasture.annotate.campaign.address import open_journal
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.events import Said
from pasture.annotate.raters import MeadowPeople
from pasture.core.files import write_records
from pasture.core.records import Comparison
from pasture.world.meadow import instructions
from pasture.world.writing import MODEL_LIKE, write
from tests.cli.test_people import answer_all, pasture


def test_a_pool_is_calibrated_on_a_campaign_wherever_it_is_kept(tmp_path: Path, address: str) -> None:
    """From the campaign itself, a file or on Postgres, comes what comes from its cross-annotations in a file."""
    instructed = instructions("preference", 60, seed=3)
    pairs = [Comparison.of(each, *(write(each, MODEL_LIKE, "model", 3, n) for n in (0, 1))) for each in instructed]
    write_records(tmp_path / "comparisons.jsonl", pairs)
    pasture("people", "new", tmp_path / "comparisons.jsonl", "-c", address, "--annotators", "3", "--overlap", 3)
    with Desk(open_journal(address)) as desk:
        for seed, name in enumerate(("a01", "a02", "a03")):
            kept: Mapping[str, Said] = {"first": "first", "second": "second", "tie": "tie"}
            said = MeadowPeople(seed=seed).annotate(pairs)
            answer_all(desk, name, {each.comparison_id: kept[each.preferred] for each in said})
    exported = tmp_path / "labels.json"
    pasture("people", "export", address, "--as", "cross-annotations", "--out", exported)

    def found(where: object) -> object:
        return json.loads(pasture("calibrate", where, "--meadow", "--json", verb="calibrate").output)

    assert found(address) == found(exported)
