"""What labels cost; sums by hand and the paper's prices are the oracles."""

import pytest

from pasture.core.errors import DataError
from pasture.validate.cost import LedgerEntry, study_cost


def test_ten_thousand_labels_cost_what_the_paper_paid() -> None:
    found = study_cost([LedgerEntry("3-annotate/preferences", 3600.0, 60.0, 10_000)])
    assert found.people.cost_usd == pytest.approx(3000)  # the paper's $3,000
    assert found.people.usd_per_thousand == pytest.approx(300)
    assert found.people.hours_per_thousand == pytest.approx(36_800 / 3600)
    assert found.simulated.usd_per_thousand == pytest.approx(6)  # the paper's $6 with flips
    assert found.price_ratio == pytest.approx(50)


def test_a_study_is_its_labels_and_its_machine() -> None:
    ledger = [
        LedgerEntry("4-learn/sft", 1800.0, 2.0),
        LedgerEntry("3-annotate/a", 900.0, 1.0, 1000),
        LedgerEntry("3-annotate/b", 900.0, 3.0, 1000),
    ]
    found = study_cost(ledger, people_usd_per_label=0.5, people_seconds_per_label=36.0)
    assert (found.study_usd, found.study_hours) == (6.0, 1.0)
    assert (found.with_people_usd, found.with_people_hours) == (1002.0, 20.5)
    assert found.simulated.label_count == 2000


def test_an_unknown_price_is_unknown_and_a_free_one_has_no_ratio() -> None:
    unknown = study_cost([LedgerEntry("a", 1.0, None, 10), LedgerEntry("b", 1.0, 1.0)])
    assert unknown.study_usd is None
    assert unknown.simulated.usd_per_thousand is None
    assert unknown.with_people_usd == pytest.approx(4.0)
    free = study_cost([LedgerEntry("a", 1.0, 0.0, 10)])
    assert free.study_usd == 0.0
    assert free.price_ratio is None


def test_a_study_without_labels_has_no_price_of_labels() -> None:
    with pytest.raises(DataError, match="no label was asked for in any of 1 steps"):
        study_cost([LedgerEntry("a", 1.0, 0.0)])
