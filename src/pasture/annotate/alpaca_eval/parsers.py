"""AlpacaEval's parsers: a reply in, one value for each pair out.

1 means that the first answer shown is better, 2 the second, 0 or 1.5 a draw, None no verdict, what lies between 1 and
2 a probability. Every function raises `JudgeReplyError` where a reply does not parse; nothing is ever evaluated but
literals.

Source: alpaca_eval 0.6.6, completion_parsers.py (behavior only); where its behavior is a defect, the docstring says
what happens here instead.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pasture.annotate.verdicts import excerpt, literal_value, share
from pasture.core.errors import JudgeReplyError, RecipeError
from pasture.core.requests import Reply

Parser = Callable[[Any], list[Any]]
"""From a reply, a text or what an earlier parser made of it, to values."""


def is_preference(value: object) -> bool:
    """Whether a parser's value is a verdict: a number from 1 to 2, or 0 for a draw."""
    return isinstance(value, int | float) and not isinstance(value, bool) and (value == 0 or 1 <= value <= 2)


_FENCED_JSON = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def regex_parser(outputs_to_match: Mapping[Any, str]) -> Parser:
    """The keys of all matches, left to right; where two match at the same place, the first that is named.

    An empty match counts for nothing.
    """
    patterns = {key: re.compile(pattern) for key, pattern in outputs_to_match.items()}

    def parse(found: Any) -> list[Any]:
        text = _text(found)
        values: list[Any] = []
        while True:
            matches = [(match, key) for key, pattern in patterns.items() if (match := pattern.search(text))]
            matches = [(match, key) for match, key in matches if match.group()]
            if not matches:
                return values
            first, key = min(matches, key=lambda each: each[0].start())
            values.append(key)
            text = text[first.end() :]  # begins anew, so that ^ matches there

    return parse


def lmsys_parser() -> Parser:
    """The order of two scores on the first line; 0 where they are equal."""

    def parse(found: Any) -> list[Any]:
        line = _text(found).split("\n")[0].replace(",", " ").split()
        try:
            first, second = (float(score) for score in line)
        except ValueError:
            raise JudgeReplyError(f"expected two scores on the first line, got {excerpt(_text(found))}") from None
        return [1 if first > second else 2 if first < second else 0]

    return parse


def ranking_parser(model_1_name: str = "model_1") -> Parser:
    """The rank of `model_1_name` in a list of {model, rank}."""

    def parse(found: Any) -> list[Any]:
        value = _value(found)
        listed = literal_value(value) if isinstance(value, str) else value
        rows = listed if isinstance(listed, list) else []
        ranks = [row.get("rank") for row in rows if isinstance(row, Mapping) and row.get("model") == model_1_name]
        if not ranks or ranks[0] not in (1, 2):
            raise JudgeReplyError(f"expected a rank 1 or 2 of {model_1_name!r}, got {excerpt(str(listed))}")
        return [ranks[0]]

    return parse


def json_parser(annotation_key: str | None = None) -> Parser:
    """The values of `annotation_key` in a JSON object or a list of them, in a fence or not.

    AlpacaEval reads fenced lists wrongly; here they are read like plain ones.
    """

    def parse(found: Any) -> list[Any]:
        text = _text(found)
        fenced = _FENCED_JSON.search(text)
        try:
            loaded = json.loads(fenced[1] if fenced else text)
            if annotation_key is None:
                return loaded if isinstance(loaded, list) else [loaded]
            rows = [loaded] if isinstance(loaded, dict) else loaded
            return [row[annotation_key] for row in rows]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise JudgeReplyError(f"expected JSON with {annotation_key!r}, got {excerpt(text)}") from None

    return parse


def eval_parser() -> Parser:
    """The Python literal that the reply is, as a list."""

    def parse(found: Any) -> list[Any]:
        value = literal_value(_text(found))
        return value if isinstance(value, list) else [value]

    return parse


def replace_parser(replacer: Mapping[Any, Any], default_replacer: Any = "auto") -> Parser:
    """What `replacer` has for the value; else the value itself, or `default_replacer` unless that is 'auto'."""

    def parse(found: Any) -> list[Any]:
        value = _value(found)
        try:
            return [replacer.get(value, value if default_replacer == "auto" else default_replacer)]
        except TypeError:  # a list or an object, which can be no key
            raise JudgeReplyError(f"expected a text or a number to replace, got {excerpt(str(value))}") from None

    return parse


def logprob_parser(
    numerator_token: str,
    denominator_tokens: Sequence[str],
    is_binarize: bool = True,
    log_prob_index: int | str = 0,
) -> Parser:
    """2 - p(numerator) / sum of p(denominators), from one token's alternatives; a missing token has probability 0.

    `log_prob_index` is the token's position, from the end if negative, or 'batch' for one value for each position.
    `is_binarize` rounds to 1 or 2.
    """

    def parse(found: Any) -> list[Any]:
        tokens = found.logprobs if isinstance(found, Reply) else None
        if not tokens:
            raise JudgeReplyError("expected log-probabilities, got none")
        if not isinstance(log_prob_index, int):
            return [value(token.top or ((token.token, token.logprob),)) for token in tokens]
        try:
            token = tokens[log_prob_index]
        except IndexError:
            raise JudgeReplyError(f"expected a token at {log_prob_index}, got {len(tokens)} tokens") from None
        return [value(token.top or ((token.token, token.logprob),))]

    def value(top: Sequence[tuple[str, float]]) -> float | None:
        known = dict(top)
        numerator = known.get(numerator_token, -math.inf)
        others = [known.get(token, -math.inf) for token in denominator_tokens]
        if max(others) == -math.inf:
            return None
        if numerator_token in denominator_tokens:
            others.remove(numerator)
        preference = 2 - share(numerator, others)
        return float(round(preference)) if is_binarize else preference

    return parse


def pipeline_meta_parser(parsers_to_kwargs: Mapping[str, Mapping[str, Any] | None], is_squeeze: bool = True) -> Parser:
    """The parsers one after another, each on every value of the one before."""
    if not is_squeeze:
        raise RecipeError("is_squeeze: false cannot be honored; values are always taken one by one.")
    stages = [parser_of(name, kwargs or {}) for name, kwargs in parsers_to_kwargs.items()]

    def parse(found: Any) -> list[Any]:
        values = [found]
        for stage in stages:
            values = [value for each in values for value in stage(each)]
        return values

    return parse


PARSERS: Mapping[str, Callable[..., Parser]] = {
    "eval_parser": eval_parser,
    "json_parser": json_parser,
    "lmsys_parser": lmsys_parser,
    "logprob_parser": logprob_parser,
    "pipeline_meta_parser": pipeline_meta_parser,
    "ranking_parser": ranking_parser,
    "regex_parser": regex_parser,
    "replace_parser": replace_parser,
}


def parser_of(name: str, kwargs: Mapping[str, Any]) -> Parser:
    """The parser that a config names, with its settings.

    Raises:
        RecipeError: if there is no such parser, or it has no such setting.
    """
    if name not in PARSERS:
        raise RecipeError(f"fn_completion_parser: {name!r} cannot be honored. Known: {', '.join(PARSERS)}.")
    try:
        return PARSERS[name](**kwargs)
    except (TypeError, AttributeError, re.error) as error:
        raise RecipeError(f"completion_parser_kwargs of {name}: {error}.") from error


def _text(found: Any) -> str:
    value = _value(found)
    if not isinstance(value, str):
        raise JudgeReplyError(f"expected a text, got {excerpt(str(value))}")
    return value


def _value(found: Any) -> Any:
    return found.text if isinstance(found, Reply) else found
