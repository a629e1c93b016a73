"""Numbers as a reader meets them; a dash stands for what was not measured."""

DASH = "–"  # noqa: RUF001  # an en dash, as tables have it
MINUS = "\N{MINUS SIGN}"


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal and its sign, such as "52.1%"."""
    return DASH if fraction is None else f"{_signed(fraction * 100, 1)}%"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, one decimal."""
    return _signed(difference * 100, 1)


def number(value: float | None, digits: int = 2) -> str:
    """A number with `digits` decimals and thousands set apart."""
    return DASH if value is None else _signed(value, digits)


LEAST_P = 0.001
"""Below it ten thousand draws say little of how small a p-value is."""


def p_value(value: float | None) -> str:
    """A p-value with three decimals, or its bound."""
    return DASH if value is None else f"< {LEAST_P}" if value < LEAST_P else f"{value:.3f}"


def count(value: float | None) -> str:
    """A whole number with thousands set apart."""
    return number(value, 0)


def usd(value: float | None) -> str:
    """Dollars; more decimals below ten cents, "unknown" where there is no price."""
    if value is None:
        return "unknown"
    return f"${value:,.4f}" if 0 < value < 0.1 else f"${value:,.2f}"


def seconds(value: float | None) -> str:
    """A time in the units that read best."""
    if value is None:
        return DASH
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 59.95:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):,.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and float(text.replace(",", "")) > 0 else text
