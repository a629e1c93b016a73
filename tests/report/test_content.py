import math

import pytest
from pydantic import ValidationError

from pasture.core.records import Completion, Instruction
from pasture.report.content import (
    Answer,
    Column,
    Figure,
    Leaderboard,
    Panel,
    ReportContent,
    Sample,
    Series,
    Table,
)
from tests.report.loop_numbers import content, win_rate


def test_content_survives_json_whole() -> None:
    before = content()
    assert ReportContent.model_validate_json(before.model_dump_json()) == before


@pytest.mark.parametrize("field", ["judge", "reference"])
def test_rows_by_different_judges_or_against_different_references_make_no_leaderboard(field: str) -> None:
    row = win_rate("sft", 0.4, "people")
    other = win_rate("ppo", 0.5, "people").model_copy(update={field: "another"})
    with pytest.raises(ValidationError, match=f"expected one {field} for all rows, got another"):
        Leaderboard(title="people", rows=(row, other))


def test_a_system_stands_in_a_leaderboard_once() -> None:
    row = win_rate("sft", 0.4, "people")
    with pytest.raises(ValidationError, match="more than one row"):
        Leaderboard(title="people", rows=(row, row))


def test_ranked_rows_fall_by_rate_and_end_with_the_unjudged() -> None:
    unjudged = win_rate("a", 0.4, "people").model_copy(update={"rate": None})
    rows = (
        win_rate("z", 0.0, "people"),
        unjudged,
        win_rate("b", 0.1, "people"),
        win_rate("d", 0.5, "people"),
        win_rate("c", 0.5, "people"),
    )
    board = Leaderboard(title="people", rows=rows)
    assert [row.system for row in board.ranked()] == ["c", "d", "b", "z", "a"]


def test_logged_rows_become_a_series_with_gaps_where_nothing_finite_was_logged() -> None:
    rows: list[dict[str, object]] = [
        {"step": 1, "kl": 0.5},
        {"step": 2, "kl": math.nan},
        {"step": 3},
        {"kl": 7.0},
        {"step": 4, "kl": math.inf},
        {"step": 5, "kl": True},
        {"step": 6, "kl": -1},
    ]
    series = Series.of("ppo", rows, x="step", y="kl")
    assert series.x == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert series.y == (0.5, None, None, None, None, -1.0)
    assert series.low is None


def test_logged_bounds_become_the_band() -> None:
    series = Series.of("ppo", [{"s": 1, "y": 2.0, "a": 1.5, "b": 2.5}], x="s", y="y", low="a", high="b")
    assert (series.low, series.high) == ((1.5,), (2.5,))


def test_a_series_needs_as_many_y_as_x() -> None:
    with pytest.raises(ValidationError, match="2 values of x, but 1 of y"):
        Series(label="ppo", x=(1.0, 2.0), y=(1.0,))
    with pytest.raises(ValidationError, match="a band needs both"):
        Series(label="ppo", x=(1.0,), y=(1.0,), low=(1.0,))


def test_numbers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Series(label="ppo", x=(1.0,), y=(math.nan,))


@pytest.mark.parametrize("name", ["../escape", "a/b", "", "A", ".hidden", "-dash"])
def test_a_figure_cannot_name_a_file_elsewhere(name: str) -> None:
    with pytest.raises(ValidationError):
        Figure(name=name, title="t", panels=(Panel(title="p", series=()),))


def test_a_sample_holds_answers_to_its_own_instruction() -> None:
    asked = Instruction(id="a", instruction="say hello", source="s", split="eval")
    stray = Answer(completion=Completion(instruction_id="b", text="hello", system="sft", seed=0))
    with pytest.raises(ValidationError, match="'sft' answers another instruction, 'b'"):
        Sample(instruction=asked, answers=(stray,))


def test_a_table_says_which_cell_does_not_fit() -> None:
    columns = (Column(title="who"), Column(title="agreement", format="percent"))
    with pytest.raises(ValidationError, match="row 1: expected 2 cells, got 1"):
        Table(title="t", columns=columns, rows=(("people",),))
    with pytest.raises(ValidationError, match="row 2, 'agreement': expected percent, got 'high'"):
        Table(title="t", columns=columns, rows=(("people", 0.6), ("pool", "high")))
