"""From a text that is to be favored or avoided to the ids of its tokens."""

from collections.abc import Callable, Mapping, Sequence

Encode = Callable[[str], Sequence[int]]


def bias_by_id(bias: Mapping[str, float], ids_of: Mapping[str, Sequence[int]]) -> dict[int, float]:
    """Bias by token id.

    A favored text (bias above 0) favors each of its tokens. An avoided text is avoided only where it is one token:
    the tokens of a longer one are parts of other words. This is AlpacaFarm's rule. Where two texts share a token, the
    stronger bias holds.
    """
    by_id: dict[int, float] = {}
    for text, value in bias.items():
        ids = ids_of[text]
        if value < 0 and len(ids) != 1:
            continue
        for token in ids:
            if abs(value) > abs(by_id.get(token, 0.0)):
                by_id[token] = value
    return by_id
