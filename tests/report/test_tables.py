import re

import pytest

from pasture.report.content import Column, Leaderboard
from pasture.report.tables import Scale, across, cell, share_bar
from tests.report.loop_numbers import win_rate


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        (Column(title="c"), "people", "people"),
        (Column(title="c"), None, "\u2013"),
        (Column(title="c", format="count"), 2000, "2,000"),
        (Column(title="c", format="number"), 0.125, "0.12"),
        (Column(title="c", format="number", digits=3), 0.125, "0.125"),
        (Column(title="c", format="percent"), 0.2513, "25.1%"),
        (Column(title="c", format="percent", digits=0), 0.2513, "25%"),
        (Column(title="c", format="usd"), None, "unknown"),
        (Column(title="c", format="usd"), 0.0, "$0.00"),
        (Column(title="c", format="seconds"), None, "\u2013"),
        (Column(title="c", format="seconds"), 61.0, "1 min 01 s"),
    ],
)
def test_a_cell_is_shown_in_its_columns_format(column: Column, value: str | float | None, shown: str) -> None:
    assert cell(column, value) == shown


@pytest.mark.parametrize(
    ("cards", "side_by_side"), [(0, 1), (1, 1), (4, 4), (5, 5), (6, 3), (7, 4), (8, 4), (9, 5), (15, 5)]
)
def test_cards_are_laid_out_in_even_rows(cards: int, side_by_side: int) -> None:
    assert across(cards) == side_by_side


def board(*rates: float) -> Leaderboard:
    rows = tuple(win_rate(f"s{number}", rate, "people") for number, rate in enumerate(rates))
    bare = {"interval_low": None, "interval_high": None}
    return Leaderboard(title="people", rows=tuple(row.model_copy(update=bare) for row in rows))


@pytest.mark.parametrize(
    ("rates", "low", "high"),
    [((0.12, 0.52), 0.1, 0.6), ((0.5,), 0.4, 0.6), ((0.98,), 0.4, 1.0), ((0.02,), 0.0, 0.6), ((0.0, 1.0), 0.0, 1.0)],
)
def test_the_axis_spans_whole_tenths_around_every_rate_and_one_half(
    rates: tuple[float, ...], low: float, high: float
) -> None:
    scale = Scale([board(*rates)])
    assert [scale.low, scale.high] == pytest.approx([low, high])


def test_an_interval_is_drawn_where_its_numbers_lie() -> None:
    row = win_rate("ppo", 0.5, "people").model_copy(update={"interval_low": 0.25, "interval_high": 0.75})
    scale = Scale([Leaderboard(title="people", rows=(row,))])
    drawn = str(scale.bar(row))
    # By hand: the axis runs from 0.2 to 0.8 over the 188 units between x = 6 and x = 194.
    assert re.findall(r'class="span" x1="([\d.]+)" y1="9" x2="([\d.]+)"', drawn) == [("21.67", "178.33")]
    assert re.findall(r'cx="([\d.]+)"', drawn) == ["100"]


def test_what_was_not_measured_is_not_drawn() -> None:
    row = board(0.4).rows[0]
    scale = Scale([board(0.4)])
    assert "span" not in scale.bar(row)
    assert "circle" not in scale.bar(row.model_copy(update={"rate": None}))


def test_a_share_is_as_long_as_its_part_of_the_largest() -> None:
    assert 'width="50"' in share_bar(1.0, 4.0)
    assert 'width="0"' in share_bar(0.0, 0.0)
