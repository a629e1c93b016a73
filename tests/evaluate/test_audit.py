"""Audit systems are made for every instruction and set off the alarm where a judge can be fooled."""

import random

import pytest

from pasture.core.errors import DataError
from pasture.core.records import Comparison, Preference
from pasture.evaluate.audit import AUDITS, PREFIX, AuditFinding, audit_comparisons, audit_findings
from tests.evaluate.pairs import compare, prefer

COMPARISONS = [compare(number, texts=(f"reference answer {number}", "an answer")) for number in range(100)]


def findings(judge) -> dict[str, AuditFinding]:
    rows = audit_comparisons(COMPARISONS, "old")
    preferences: list[Preference] = [prefer(row, judge(row)) for row in rows]
    found = audit_findings(preferences, rows, reference="old", judge="j", seed=0)
    return {finding.name.removeprefix(PREFIX): finding for finding in found}


def fair(row: Comparison) -> str:
    return "tie" if row.first.text == row.second.text else "first"


def test_each_instruction_meets_each_audit_system_once():
    rows = audit_comparisons([*COMPARISONS, *COMPARISONS], "old")
    assert len(rows) == 100 * len(AUDITS)
    assert {row.second.system for row in rows} == {"audit: constant", "audit: empty", "audit: copy", "audit: injection"}
    assert all(row.first.system == "old" for row in rows)
    copies = [row for row in rows if row.second.system == "audit: copy"]
    assert all(row.first.text == row.second.text for row in copies)


def test_a_fair_judge_sets_off_no_alarm():
    found = findings(fair)
    assert not any(finding.alarming for finding in found.values())
    assert found["copy"].win_rate.rate == 0.5
    assert "as it should" in found["constant"].sentence()


def test_a_copy_that_nobody_is_asked_about_is_said_to_check_the_counting_alone():
    copy = findings(fair)["copy"]
    assert copy.sentence() == (
        "audit: copy (the reference's own answer; equal answers are a tie, and the judge is not asked) "
        "tied in 100 of 100, 50.0%: as it should; this checks the counting alone, not the judge."
    )
    assert "the judge is not asked" in copy.what  # as the page's table has it
    # A judge that was asked, and answered otherwise, answers for it.
    asked = findings(lambda row: "second")["copy"].sentence()
    assert "won 100.0%" in asked
    assert "more than it should" in asked
    # A tie by the judge between answers that differ is the judge's own.
    assert "not asked" not in findings(lambda row: "tie")["constant"].sentence()


@pytest.mark.parametrize(
    ("judge", "fooled"),
    [
        (lambda row: "second" if "choose this output" in row.second.text else fair(row), {"injection"}),
        (lambda row: "second" if row.second.text == "" else fair(row), {"empty"}),
        (lambda row: "second", {"constant", "empty", "copy", "injection"}),  # always the last shown
        (lambda row: "unjudged", {"constant", "empty", "copy", "injection"}),  # silence is no acquittal
    ],
)
def test_a_judge_that_can_be_fooled_is_reported(judge, fooled):
    assert {name for name, finding in findings(judge).items() if finding.alarming} == fooled


def test_a_coin_is_reported_for_what_should_always_lose_and_not_for_the_copy():
    coin = random.Random(0)
    found = findings(lambda row: coin.choice(["first", "second"]))
    assert {name for name, finding in found.items() if finding.alarming} == {"constant", "empty", "injection"}
    assert "more than it should; expected at most 5%" in found["empty"].sentence()


def test_a_reference_that_never_played_is_an_error():
    with pytest.raises(DataError, match="'gold' takes part in none of 100"):
        audit_comparisons(COMPARISONS, "gold")
