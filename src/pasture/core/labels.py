"""AlpacaEval's code for a label of a pair, and the words that files have for ties, failures, and true and false."""

import math

_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_NOTHING = frozenset({"", "nan", "none", "null"})
_FAILED = frozenset({"", "-1", "-1.0", "nan", "none", "null", "garbage"})


def share_of_second(label: object) -> float:
    """How much of a win the label gives to the second of a pair: 0 to 1, NaN where the judge failed.

    1 is the first, 2 the second, anything between a probability, also as text; 0, 1.5 and "tie" are ties; nothing, "",
    NaN, "null", -1 and "garbage" are failures. A truth value is no label: whether true is the first is anybody's guess.

    Raises:
        ValueError: saying what is wrong with any other label.
    """
    word = "" if label is None else str(label).strip().lower()
    if word in _FAILED:
        return math.nan
    if word == "tie":
        return 0.5
    try:
        number = float(word)
    except ValueError as error:
        raise ValueError("is no number") from error
    if math.isnan(number) or number == -1:
        return math.nan
    if number == 0:
        return 0.5
    if not 1 <= number <= 2:
        raise ValueError("is outside [1, 2] and neither 0 (tie) nor -1 (failed)")
    return number - 1


def truth(value: object) -> bool | None:
    """What a cell says, true, false or the numbers for them, also as the text that a CSV has; None where it is empty.

    Raises:
        ValueError: if it says something else.
    """
    word = "" if value is None else str(value).strip().lower()
    if word in _NOTHING:
        return None
    if word not in _TRUTH:
        raise ValueError("is neither true nor false")
    return _TRUTH[word]
