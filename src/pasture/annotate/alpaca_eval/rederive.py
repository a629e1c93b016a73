"""AlpacaEval's preferences, made again from the raw replies that its annotations keep."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pasture.annotate.alpaca_eval.parsers import Parser, is_preference
from pasture.annotate.compat import shows_second_first
from pasture.core.errors import DataError, JudgeReplyError
from pasture.core.labels import truth
from pasture.core.requests import Reply, TokenLogprob
from pasture.core.tables import Row, text_field

_DRAW = 1.5


def rederived(rows: Sequence[Row], parser: Parser, seed: int = 0) -> list[float | None]:
    """The preference of each annotation, in [1, 2] with 1.5 for a draw; None where its reply holds none.

    `raw_completion` is the reply: a text, or what the service gave with its log-probabilities, also as JSON text.
    Which answer was shown first is `is_switched` where a row has it, else AlpacaEval's draw from the instruction. Equal
    answers were never asked about: a draw.

    Raises:
        DataError: naming the row, if it lacks the instruction, or `is_switched` is neither true nor false.
    """
    return [_preference(row, parser, seed, f"annotation {number}") for number, row in enumerate(rows, start=1)]


def _preference(row: Row, parser: Parser, seed: int, where: str) -> float | None:
    raw = row.get("raw_completion")
    if raw is None or raw == "":
        same = row.get("output_1") is not None and row.get("output_1") == row.get("output_2")
        return _DRAW if same else None
    try:
        values = parser(reply_of(raw))
    except JudgeReplyError:
        return None
    if len(values) != 1 or not is_preference(values[0]):
        return None
    value = float(values[0])
    if value == 0:
        return _DRAW
    switched = _switched(row.get("is_switched"), where)
    if switched is None:
        switched = shows_second_first(text_field(row, "instruction", where), seed)
    return 3 - value if switched else value


def _switched(value: object, where: str) -> bool | None:
    try:
        return truth(value)
    except ValueError as error:
        raise DataError(
            f"{where}: is_switched is {value!r}. Expected true or false, or nothing where it is unknown."
        ) from error


def reply_of(raw: object) -> Reply:
    """A raw completion as annotations keep it: a text, or a choice of the service with `text` and `logprobs`."""
    choice = raw
    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        try:
            choice = json.loads(raw)
        except ValueError:
            return Reply(text=raw)
    if not isinstance(choice, Mapping) or "logprobs" not in choice:
        return Reply(text=str(raw))
    content = (choice["logprobs"] or {}).get("content") or []
    return Reply(text=str(choice.get("text") or ""), logprobs=tuple(_token(entry) for entry in content))


def _token(entry: Mapping[str, Any]) -> TokenLogprob:
    top = tuple((str(one["token"]), float(one["logprob"])) for one in entry["top_logprobs"])
    return TokenLogprob(token=str(entry["token"]), logprob=float(entry["logprob"]), top=top)
