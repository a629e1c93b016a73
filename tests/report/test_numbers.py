import pytest

from pasture.report import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5213, "52.1%"), (0.0, "0.0%"), (1.0, "100.0%"), (None, "\u2013"), (-0.05, "\u22125.0%")],
)
def test_a_fraction_is_shown_as_a_percentage(value: float | None, shown: str) -> None:
    assert numbers.percent(value) == shown


def test_a_number_that_rounds_to_zero_has_no_minus_sign() -> None:
    assert numbers.points(-0.0004) == "0.0"
    assert numbers.points(-0.0006) == "\u22120.1"


def test_thousands_are_set_apart() -> None:
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.number(-1234.5, 1) == "\u22121,234.5"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "unknown"), (0.0, "$0.00"), (0.0123, "$0.0123"), (0.1, "$0.10"), (1234.5, "$1,234.50")],
)
def test_an_unknown_price_is_never_zero(value: float | None, shown: str) -> None:
    assert numbers.usd(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0042, "4.2 ms"),
        (0.091, "0.09 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125.4, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7384.0, "2 h 03 min"),
    ],
)
def test_a_time_is_shown_in_units_that_never_overflow(value: float, shown: str) -> None:
    assert numbers.seconds(value) == shown
