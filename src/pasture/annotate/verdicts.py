"""What a judge's reply says, read strictly: one plain verdict for each pair asked about, or none.

Nothing is guessed. A reply that names both answers, neither, or the same pair twice with different verdicts holds no
verdict for it; a verdict quoted in a sentence is no verdict. Readers return a `Reading` in the order the judge saw the
pair (a was shown first), and raise `JudgeReplyError`, or say it per pair, where there is none.
"""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pasture.core.errors import JudgeReplyError
from pasture.core.redaction import redact
from pasture.core.requests import Reply, TokenLogprob

Shown = Literal["a", "b", "tie"]

_LINE = re.compile(
    r"""
    [\s*_\#-]*                                     # list marks and emphasis that chat models add, but no quotes
    (?:pair\s+(?P<pair>\d+)\s*[:.)]?\s*[*_]*\s*)?  # which pair
    (?P<said>(?:verdict\s*:\s*)?(?:(?:the\s+)?better(?:\s+answer)?\s*(?:is|:)[*_]*\s*)?)  # that it is one
    [*_]*(?:(?:answer|output|response)\s*)?
    (?:\((?P<letter>[ab])\)|(?P<tie>tie|\(tie\)))
    [*_]*
    (?=\s*$|\s*[.:;]|\s+[-\u2013\u2014]\s|\s+because\b|\s+is\s+better[.!]?\s*$)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SECOND_VERDICT = re.compile(r"[^\w(]*(?:(?:and|or|vs)\b)?[^\w(]*\(([ab])\)\s*(?:$|[.,;:!?])", re.IGNORECASE)
_NO_DISCUSSION = re.compile(r"[\W_]*(?:$|because\b|is\s+better\W*$)", re.IGNORECASE)
"""What stands behind a letter that is surely a verdict; a line that goes on may be about that answer, such as
"Answer (a): says that Paris is in Spain"."""
_LETTER = re.compile(r"\(([ab])\)", re.IGNORECASE)
_BRACKET = re.compile(r"[\[{]")
_MOST_BRACKETS = 2000
"""A reply with more brackets that start no JSON is not read further: nothing judges at that length."""


@dataclass(frozen=True)
class Reading:
    """What a judge said of one pair, in the order it was shown."""

    better: Shown
    probability_a: float | None = None
    """Probability that the answer shown first is better, where the judge gives one."""
    evidence: Mapping[str, Any] = field(default_factory=dict)


Readings = dict[int, Reading | str]
"""By pair number, from 1: what was read, or why there is no verdict."""


def excerpt(text: str, limit: int = 80) -> str:
    """A piece of hostile text for an error message, quoted, on one line, short."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def read_letters(text: str, count: int, *, ties: bool = False) -> Readings:
    """Verdicts written one a line: `Answer (a)`, or `Pair 2: answer (b)` where several pairs were asked about.

    A reason may follow behind a full stop, colon, semicolon, dash or "because", and on lines of its own. Where one pair
    was asked about, a letter with more behind it, and the other letter on another line, are a discussion: no verdict.
    """
    found: dict[int, set[Shown]] = {}
    named: set[Shown] = set()
    is_sure = count > 1
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            named.update(_letter(letter) for letter in _LETTER.findall(line))
            continue
        is_sure |= bool(match["said"] or match["pair"] or _NO_DISCUSSION.match(line, match.end()))
        number = int(match["pair"]) if match["pair"] else 1 if count == 1 else 0
        verdicts = found.setdefault(number, set())
        verdicts.add("tie" if match["tie"] else _letter(match["letter"]))
        if another := _SECOND_VERDICT.match(line, match.end()):
            verdicts.add(_letter(another[1]))
    if not is_sure and found.get(1) in ({"a"}, {"b"}):
        found[1] |= named
    return _one_each(found, count, text, ties=ties)


def read_json(text: str, count: int, *, ties: bool = False) -> Readings:
    """Verdicts as JSON: `{"reason": …, "better": "a"}`, or `{"verdicts": [{"pair": 2, "better": "b"}, …]}`.

    The object may stand in a fence or amid other text. An object that holds a key twice is no verdict.
    """
    found: dict[int, set[Shown]] = {}
    reasons: dict[int, str] = {}
    for value in json_values(text):
        rows = value.get("verdicts", [value]) if isinstance(value, dict) else []
        for row in rows if isinstance(rows, list) else []:
            number = row.get("pair", 1 if count == 1 else 0) if isinstance(row, dict) else 0
            better = row.get("better") if isinstance(row, dict) else None
            if better not in ("a", "b", "tie") or type(number) is not int:
                continue
            found.setdefault(number, set()).add(better)
            if isinstance(row.get("reason"), str):
                reasons[number] = redact(row["reason"])  # its escapes may spell what the reply as a whole did not
    readings = _one_each(found, count, text, ties=ties)
    return {
        number: Reading(reading.better, evidence={"reason": reasons[number]})
        if isinstance(reading, Reading) and number in reasons
        else reading
        for number, reading in readings.items()
    }


def read_ranking(text: str, names: tuple[str, str]) -> Reading:
    """The verdict of `[{"model": "m", "rank": 1}, {"model": "M", "rank": 2}]`; equal ranks are a tie.

    `names` are what the answers shown first and second were called. JSON or a Python literal; nothing is evaluated.

    Raises:
        JudgeReplyError: if not exactly these two are ranked, with ranks from 1 and 2.
    """
    values = list(json_values(text)) or [literal_value(text)]
    rankings = {ranks for value in values if (ranks := _ranks(value, names))}
    if len(rankings) != 1:
        raise JudgeReplyError(f"expected one ranking of {names[0]!r} and {names[1]!r}, got {excerpt(text)}")
    first, second = rankings.pop()
    return Reading("a" if first < second else "b" if second < first else "tie")


def read_token(reply: Reply, names: tuple[str, str]) -> Reading:
    """The verdict that the log-probabilities of the first generated token give.

    `probability_a` is p(names[0]) / (p(names[0]) + p(names[1])); a name missing from the alternatives has probability
    0. Tokens must spell the names exactly; several that do are added up.

    Raises:
        JudgeReplyError: if the reply has no log-probabilities, or neither name is among the alternatives.
    """
    if not reply.logprobs:
        raise JudgeReplyError(f"expected log-probabilities of the first token, got none with {excerpt(reply.text)}")
    logprobs = tuple(_token_logprob(reply.logprobs[0], name) for name in names)
    if max(logprobs) == -math.inf:
        seen = ", ".join(excerpt(token, 20) for token, _ in reply.logprobs[0].top) or "nothing"
        raise JudgeReplyError(f"expected {names[0]!r} or {names[1]!r} among the first token's alternatives, got {seen}")
    return reading_of_probability(share(logprobs[0], logprobs[1:2]), dict(zip(names, logprobs, strict=True)))


def share(numerator: float, others: Sequence[float]) -> float:
    """exp(numerator) over the sum of exp of itself and `others`; minus infinity counts as probability 0."""
    top = max(numerator, *others)
    return math.exp(numerator - top) / math.fsum(math.exp(value - top) for value in (numerator, *others))


def reading_of_probability(probability_a: float, logprobs: Mapping[str, float]) -> Reading:
    """The verdict of a probability: the likelier side, a tie at exactly one half."""
    better: Shown = "a" if probability_a > 0.5 else "b" if probability_a < 0.5 else "tie"
    known = {name: value for name, value in logprobs.items() if math.isfinite(value)}
    return Reading(better, probability_a, {"logprobs": known})


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects and lists in `text` that begin a line or end the text; quoted within a sentence they are talk.

    An object that holds a key twice comes out empty.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins, parse_constant=lambda _: None)
    position = 0
    for _ in range(_MOST_BRACKETS):
        bracket = _BRACKET.search(text, position)
        if bracket is None:
            return
        position = bracket.end()
        try:
            value, end = decoder.raw_decode(text, bracket.start())
        except (ValueError, RecursionError):
            continue
        line_start = text.rfind("\n", 0, bracket.start()) + 1
        if not text[line_start : bracket.start()].strip() or not text[end:].strip(" \t\r\n`."):
            yield value
        position = end


def literal_value(text: str) -> Any:
    """The Python literal that `text` is, or that stands between its first and last square bracket.

    Raises:
        JudgeReplyError: if there is none. Nothing is ever evaluated but literals.
    """
    start, end = text.find("["), text.rfind("]")
    for candidate in (text.strip(), text[start : end + 1]):
        try:
            return ast.literal_eval(candidate)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise JudgeReplyError(f"expected a list or another literal, got {excerpt(text)}")


def _one_each(found: Mapping[int, set[Shown]], count: int, text: str, *, ties: bool) -> Readings:
    strange = sorted(set(found) - set(range(1, count + 1)))
    if strange:
        what = "verdicts without a pair number" if strange[0] == 0 else f"a verdict on pair {strange[-1]}"
        return dict.fromkeys(range(1, count + 1), f"expected verdicts on pairs 1 to {count}, got {what}")
    return {number: _plain(found.get(number, set()), number, text, ties=ties) for number in range(1, count + 1)}


def _plain(verdicts: set[Shown], number: int, text: str, *, ties: bool) -> Reading | str:
    known = "'a', 'b' or 'tie'" if ties else "'a' or 'b'"
    if not verdicts:
        return f"no verdict on pair {number}: expected {known}, got {excerpt(text)}"
    if len(verdicts) > 1:
        return f"verdicts on pair {number} that differ: expected {known} once, got {excerpt(text)}"
    verdict = next(iter(verdicts))
    if verdict == "tie" and not ties:
        return f"a tie on pair {number}: expected {known}"
    return Reading(verdict)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs) if len({key for key, _ in pairs}) == len(pairs) else {}


def _letter(text: str) -> Shown:
    return "a" if text in "aA" else "b"


def _ranks(value: Any, names: tuple[str, str]) -> tuple[int, int] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    ranks: dict[object, object] = {}
    for row in value:
        if not isinstance(row, dict) or not isinstance(row.get("model"), str):
            return None
        ranks[row["model"]] = row.get("rank")
    first, second = (ranks.get(name) for name in names)
    if set(ranks) != set(names) or type(first) is not int or type(second) is not int:
        return None
    return (first, second) if {first, second} in ({1}, {2}, {1, 2}) else None


def _token_logprob(token: TokenLogprob, name: str) -> float:
    values = [value for text, value in (token.top or ((token.token, token.logprob),)) if text == name]
    if not values or max(values) == -math.inf:
        return -math.inf
    return max(values) + math.log(math.fsum(math.exp(value - max(values)) for value in values))
