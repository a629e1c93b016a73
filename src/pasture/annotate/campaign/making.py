"""A campaign's first events: its pairs, however they come, the known answers, and who is to be asked."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pasture.annotate.campaign.events import OWNER, Opened, PairAdded, Settings
from pasture.annotate.campaign.shares import check_overlap
from pasture.annotate.entry import Columns, comparison_of, couple_samples, couple_systems
from pasture.annotate.tables import as_table
from pasture.core.errors import DataError
from pasture.core.labels import share_of_second
from pasture.core.records import Comparison, by_id
from pasture.core.seeds import uniform

Expected = Literal["first", "second", "tie"]
_EXPECTED: Mapping[float, Expected] = {0.0: "first", 1.0: "second", 0.5: "tie"}
"""By the share of a win that a label gives to the second."""
_WORDS: Mapping[str, Expected] = {"first": "first", "second": "second"}
ANSWER_COLUMNS = ("preferred", "preference", "label")
"""Where the known answer of a pair is looked for, in this order."""


@dataclass(frozen=True)
class Pairs:
    """Comparisons to be labelled, and what of the file could not be used."""

    comparisons: Sequence[Comparison]
    left_out: Sequence[str] = field(default_factory=tuple)


def read_pairs(
    path: Path, *, other: Path | None = None, samples: Literal["one", "all"] | None = None, seed: int = 0
) -> Pairs:
    """The comparisons of a file of pairs, of two systems' outputs, or of several outputs for each instruction.

    A file of pairs holds comparisons as a run writes them, or rows with `instruction`, `input`, `output_1`, `output_2`.

    Raises:
        DataError: if nothing can be compared, naming row and column where a text is missing; or if two pairs have one
            id.
    """
    if other is None and samples is None:
        return _unique(_comparisons(path, as_table(path).rows))
    coupled = couple_samples(path, which=samples or "one", seed=seed) if other is None else couple_systems(path, other)
    made = _unique(coupled.comparisons)
    return Pairs(made.comparisons, (*coupled.left_out, *made.left_out))


def drawn(pairs: Sequence[Comparison], count: int, seed: int) -> list[Comparison]:
    """At most `count` of `pairs`, in their order; drawn by what they hold, so that more later begin with the same."""
    chosen = {each.id for each in sorted(pairs, key=lambda each: uniform(seed, "campaign", each.id))[:count]}
    return [each for each in pairs if each.id in chosen]


def read_answered(path: Path, columns: Columns | None = None) -> list[tuple[Comparison, Expected]]:
    """The pairs of a file with their known answers, from a column `preferred`, `preference` or `label`.

    Raises:
        DataError: naming the row whose answer is missing or none of 1, 2, 0, 1.5, first, second and tie.
    """
    rows = as_table(path).rows
    pairs = zip(_comparisons(path, rows, columns), rows, strict=True)
    return [
        (comparison, _expected(row, f"{path}, row {number}")) for number, (comparison, row) in enumerate(pairs, start=1)
    ]


def named_annotators(text: str) -> tuple[str, ...]:
    """Annotators from a number, which calls them a01, a02 and so on, or from names with commas between.

    Raises:
        DataError: if there are none, or a name is used twice or for the owner.
    """
    text = text.strip()
    if text.isdigit():
        count = int(text)
        names = tuple(f"a{number:0{max(2, len(text))}}" for number in range(1, count + 1))
    else:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise DataError(f"expected a number of annotators, or their names with commas between, got {text!r}.")
    if OWNER in names or len(set(names)) != len(names):
        raise DataError(f"annotators must have different names, none of them {OWNER!r}.")
    return names


def opening(
    name: str,
    pairs: Sequence[Comparison],
    annotators: Sequence[str],
    settings: Settings,
    *,
    gold: Sequence[tuple[Comparison, Expected]] = (),
    qualification: Sequence[tuple[Comparison, Expected]] = (),
) -> tuple[Opened, list[PairAdded]]:
    """The events that begin a campaign; its identity and its secret are random.

    Raises:
        DataError: if there are too few annotators or no pairs, nobody could pass, or one pair has two roles.
    """
    if not pairs:
        raise DataError("a campaign needs at least one pair.")
    check_overlap(settings.overlap, annotators)
    check_pass_share(settings.pass_share)
    try:
        opened = Opened(
            name=name,
            identity=secrets.token_hex(8),
            secret=secrets.token_hex(32),
            annotators=tuple(annotators),
            settings=settings,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DataError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    added = [PairAdded(comparison=each) for each in pairs]
    added += [PairAdded(comparison=each, role="gold", expected=answer) for each, answer in gold]
    added += [PairAdded(comparison=each, role="qualification", expected=answer) for each, answer in qualification]
    roles: dict[str, str] = {}
    for pair in added:
        before = roles.setdefault(pair.comparison.id, pair.role)
        if before != pair.role:
            raise DataError(f"pair {pair.comparison.id} is among the {before} and the {pair.role} pairs. Remove one.")
    if len(roles) != len(added):
        raise DataError("a pair is there twice. Remove one.")
    return opened, added


def check_pass_share(pass_share: float) -> None:
    """See that the qualification round can be passed.

    Raises:
        DataError: if nobody can agree with more than this share.
    """
    if not 0 <= pass_share < 1:
        raise DataError(
            f"pass_share, --pass: expected a share from 0 to less than 1, got {pass_share:g}: who agrees with no more "
            "than it stays out, so at 1 everybody would. For those alone who answer all as expected, give --pass 0.99."
        )


def _unique(comparisons: Sequence[Comparison]) -> Pairs:
    kept = by_id(comparisons)
    twice = len(comparisons) - len(kept)
    return Pairs(list(kept.values()), (f"{twice} pairs that are there twice, word for word",) if twice else ())


def _comparisons(path: Path, rows: Sequence[Mapping[str, Any]], columns: Columns | None = None) -> Sequence[Comparison]:
    """One for each row; columns of an earlier annotation are not in the way, for nothing is added to the rows."""
    return [
        comparison_of(row, columns or Columns(), f"{path}, row {number}") for number, row in enumerate(rows, start=1)
    ]


def _expected(row: Mapping[str, Any], where: str) -> Expected:
    column = next((name for name in ANSWER_COLUMNS if name in row), None)
    if column is None:
        raise DataError(f"{where}: no known answer. Add a column {' or '.join(map(repr, ANSWER_COLUMNS))}.")
    value = row[column]
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    try:
        return _EXPECTED[share_of_second(value)]
    except (KeyError, ValueError):
        raise DataError(
            f"{where}: answer {value!r} under {column!r}: expected 1, 2, 1.5 or first, second, tie."
        ) from None
