"""Rows in, the same rows with preferences out: the annotators' door for people with a table in their hands."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from pasture.annotate.tables import Row, Table, as_table, text_of
from pasture.core.errors import DataError
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Completion, Instruction, Preference, content_id
from pasture.core.seeds import stream

ALPACA_EVAL_VALUE = {"first": 1.0, "second": 2.0, "tie": 1.5, "unjudged": None}


@dataclass(frozen=True)
class Columns:
    """Where the texts stand in the caller's rows."""

    instruction: str = "instruction"
    input: str = "input"
    """May be missing, in all rows or in some."""
    first: str = "output_1"
    second: str = "output_2"
    output: str = "output"
    """In `annotate_head2head` and `annotate_samples`, the one answer of a row."""
    outputs: str = "outputs"
    """In `annotate_samples`, a list of answers; taken where rows have it."""


@dataclass(frozen=True)
class Annotated:
    """The rows with their new columns, and what there is to know about them."""

    rows: Any
    """In the form in which the caller's rows came; a list of dicts for a path."""
    preferences: Sequence[Preference]
    """One for each row."""
    left_out: Sequence[str] = field(default_factory=tuple)
    """Instructions of which no pair could be made, each with the reason."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many rows were asked about, judged, unjudged, and noise."""
        verdicts = Counter(each.preferred for each in self.preferences)
        return {
            "asked": len(self.preferences),
            "judged": len(self.preferences) - verdicts["unjudged"],
            "unjudged": verdicts["unjudged"],
            "ties": verdicts["tie"],
            "flipped_by_noise": sum(each.flipped_by_noise for each in self.preferences),
        }


@dataclass(frozen=True)
class Coupled:
    """Rows of two outputs each that were made of other rows, and what they compare."""

    table: Table
    """The caller's, whose form an answer takes."""
    rows: list[Row]
    comparisons: Sequence[Comparison]
    """One for each row."""
    left_out: Sequence[str]
    """As in `Annotated`."""

    def annotated(self, annotator: Annotator, prefix: str) -> Annotated:
        """The rows with the columns of `preference_columns`.

        Raises:
            DataError: if a row has such a column already.
        """
        done = _annotated(as_table(self.rows), self.comparisons, annotator, prefix)
        return Annotated(self.table.of_rows(done.rows), done.preferences, tuple(self.left_out))


class Listener:
    """An annotator that only listens to what it would be asked."""

    def __init__(self) -> None:
        self.identity: Mapping[str, object] = {}
        self.heard: Sequence[Comparison] = ()

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """Ties that nobody reads."""
        self.heard = comparisons
        return [Preference(comparison_id=each.id, annotator="nobody", preferred="tie") for each in comparisons]


def annotate_pairs(pairs: Any, annotator: Annotator, *, columns: Columns | None = None, prefix: str = "") -> Annotated:
    """The pairs with the columns of `preference_columns`, rows and their order unchanged.

    `pairs` is a list of dicts, a DataFrame, a Dataset or a path; each row holds an instruction, perhaps an input, and
    two outputs, or is a comparison as runs record them.

    Raises:
        DataError: naming row and column, where a text is missing.
    """
    names = columns or Columns()
    table = as_table(pairs)
    comparisons = [
        comparison_of(row, names, f"{table.origin}, row {number}") for number, row in enumerate(table.rows, start=1)
    ]
    return _annotated(table, comparisons, annotator, prefix)


def annotate_head2head(
    first: Any, second: Any, annotator: Annotator, *, columns: Columns | None = None, prefix: str = ""
) -> Annotated:
    """Two systems' answers joined on instruction and input, the first system's as `output_1`, and judged.

    The rows are the first table's other columns, `output_1`, `output_2` and, where a row names its `generator`,
    `generator_1` and `generator_2`. Where a table holds an instruction several times, its first row meets the other's
    first, and so on. What did not join is in `left_out`.

    Raises:
        DataError: naming row and column, where a text is missing, or if nothing joins.
    """
    return couple_systems(first, second, columns=columns).annotated(annotator, prefix)


def couple_systems(first: Any, second: Any, *, columns: Columns | None = None) -> Coupled:
    """The rows of `annotate_head2head` before anybody judges them; whatever other columns they have.

    Raises:
        DataError: as `annotate_head2head`.
    """
    names = columns or Columns()
    tables = as_table(first), as_table(second)
    keyed = tuple(_by_instruction(table, names) for table in tables)
    rows, left_out = [], []
    for key in dict.fromkeys((*keyed[0], *keyed[1])):
        mine, theirs = (side.get(key, []) for side in keyed)
        rows += [_joined(one, other, names) for one, other in zip(mine, theirs, strict=False)]
        if len(mine) != len(theirs):
            more, count = ("first", len(mine)) if len(mine) > len(theirs) else ("second", len(theirs))
            left_out.append(f"{count - min(len(mine), len(theirs))} only in the {more}: {key[0][:80]!r}")
    if not rows:
        raise DataError(
            f"no instruction of {tables[0].origin} is also in {tables[1].origin}: they join on columns "
            f"{names.instruction!r} and {names.input!r}, letter for letter."
        )
    return _coupled(tables[0], rows, left_out, names)


def annotate_samples(
    samples: Any,
    annotator: Annotator,
    *,
    which: Literal["one", "all"] = "one",
    seed: int = 0,
    columns: Columns | None = None,
    prefix: str = "",
) -> Annotated:
    """Pairs made of several outputs of the same instruction, and judged.

    A row holds a list of `outputs`, or one `output` where rows repeat the instruction. 'one' draws one pair of
    different outputs for each instruction, in random order; 'all' takes every pair of different outputs. Instructions
    without two different outputs are in `left_out`.

    Raises:
        DataError: naming row and column, where a text is missing, or if no pair can be made.
    """
    return couple_samples(samples, which=which, seed=seed, columns=columns).annotated(annotator, prefix)


def couple_samples(
    samples: Any, *, which: Literal["one", "all"] = "one", seed: int = 0, columns: Columns | None = None
) -> Coupled:
    """The rows of `annotate_samples` before anybody judges them; whatever other columns they have.

    Raises:
        DataError: as `annotate_samples`.
    """
    names = columns or Columns()
    table = as_table(samples)
    rows, left_out = [], []
    for key, found in _by_instruction(table, names).items():
        different = list(dict.fromkeys(output for row, where in found for output in _outputs(row, names, where)))
        if len(different) < 2:
            left_out.append(f"fewer than two different outputs: {key[0][:80]!r}")
            continue
        kept = {name: value for name, value in found[0][0].items() if name not in (names.output, names.outputs)}
        couples = _drawn_couple(different, key, seed) if which == "one" else itertools.combinations(different, 2)
        rows += [{**kept, names.first: one, names.second: other} for one, other in couples]
    if not rows:
        raise DataError(f"{table.origin}: no instruction has two different outputs to compare.")
    return _coupled(table, rows, left_out, names)


def comparison_of(row: Mapping[str, Any], columns: Columns, where: str) -> Comparison:
    """The comparison that a row describes: by its texts, or whole, as a run writes them into its comparisons.jsonl.

    Raises:
        DataError: naming `where` and the column, if a text is missing or unfit.
    """
    if isinstance(row.get("first"), Mapping):
        return _recorded(row, where)
    instruction = text_of(row, columns.instruction, where)
    material = text_of(row, columns.input, where, optional=True)
    texts = [text_of(row, column, where) for column in (columns.first, columns.second)]
    if not instruction.strip():
        raise DataError(f"{where}: column {columns.instruction!r} is blank. Remove the row.")
    identity = content_id("instruction", instruction, material)
    try:
        asked = Instruction(
            id=identity, instruction=instruction, input=material, source=_name(row, "dataset", "rows"), split="rows"
        )
        first, second = (
            Completion(instruction_id=identity, text=text, system=_name(row, f"generator_{n}", f"output_{n}"), seed=0)
            for n, text in enumerate(texts, start=1)
        )
        return Comparison.of(asked, first, second)
    except (ValidationError, UnicodeEncodeError) as error:
        what = "a lone surrogate, which no text may hold"
        if isinstance(error, ValidationError) and error.errors()[0]["type"] != "string_unicode":
            what = error.errors()[0]["msg"]
        raise DataError(f"{where}: in the instruction or an output: {what}. Mend or remove the row.") from error


def _recorded(row: Mapping[str, Any], where: str) -> Comparison:
    try:
        return Comparison.model_validate({name: row[name] for name in Comparison.model_fields if name in row})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "comparison"
        raise DataError(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}.") from error


def preference_columns(preferences: Sequence[Preference], prefix: str = "") -> dict[str, list[Any]]:
    """The columns that annotating adds, one value a row.

    `preference` is AlpacaEval's number: 1 for the first output, 2 for the second, 1.5 for a tie, what lies between for
    a judge with a probability, None for the unjudged. The others are the fields of `Preference`.
    """
    columns: dict[str, list[Any]] = {
        "preference": [alpaca_eval_value(each) for each in preferences],
        **{name: [getattr(each, name) for each in preferences] for name in _FIELDS},
    }
    return {f"{prefix}{name}": values for name, values in columns.items()}


def alpaca_eval_value(preference: Preference) -> float | None:
    """The preference as AlpacaEval writes it, in [1, 2]; None where there is none."""
    if preference.preferred == "unjudged" or preference.probability_first is None:
        return ALPACA_EVAL_VALUE[preference.preferred]
    return 2.0 - preference.probability_first


_FIELDS = (
    "preferred",
    "probability_first",
    "annotator",
    "shown_first",
    "flipped_by_noise",
    "cost_usd",
    "seconds",
    "raw_reply",
    "error",
)


def _annotated(table: Table, comparisons: Sequence[Comparison], annotator: Annotator, prefix: str) -> Annotated:
    _check_annotator(annotator)
    table.check_free(preference_columns([], prefix))  # before anything is paid for
    preferences = annotator.annotate(comparisons)
    _check_preferences(preferences, comparisons)
    return Annotated(table.with_columns(preference_columns(preferences, prefix)), preferences)


def _check_annotator(annotator: object) -> None:
    """See that there is somebody to ask.

    Raises:
        DataError: if it is a class, a function or anything else that lacks `annotate`.
    """
    if isinstance(annotator, type) or not callable(getattr(annotator, "annotate", None)):
        name = getattr(annotator, "__name__", type(annotator).__name__)
        got = f"the class {name}; make one of it: {name}(...)" if isinstance(annotator, type) else name
        raise DataError(
            f"expected an annotator, an object with 'identity' and 'annotate(comparisons)', got {got}. "
            "examples/3_annotate.py has one."
        )


def _check_preferences(preferences: object, comparisons: Sequence[Comparison]) -> None:
    """See that an annotator said one thing of each comparison, in order.

    Raises:
        DataError: if it gave something else than preferences, too few or too many, or those of other comparisons.
    """
    said = preferences if isinstance(preferences, list | tuple) else [preferences]
    other = next((one for one in said if not isinstance(one, Preference)), None)
    if other is not None or preferences is None:
        raise DataError(
            f"the annotator gave {other!r:.60}, expected a list with a Preference for each comparison, such as "
            "Preference(comparison_id=comparison.id, annotator='me', preferred='first')."
        )
    if len(said) != len(comparisons):
        raise DataError(
            f"expected one preference for each of {len(comparisons)} rows, got {len(said)}: an annotator that "
            "gives several votes a comparison has no place in a table of rows."
        )
    for number, (preference, comparison) in enumerate(zip(said, comparisons, strict=True), start=1):
        if preference.comparison_id != comparison.id:
            raise DataError(
                f"preference {number} is of comparison {preference.comparison_id!r}, expected {comparison.id!r}. Give "
                "preferences in the order of the comparisons, each with comparison_id=comparison.id."
            )


def _coupled(table: Table, rows: list[Row], left_out: Sequence[str], names: Columns) -> Coupled:
    comparisons = [comparison_of(row, names, f"pair {number}") for number, row in enumerate(rows, start=1)]
    return Coupled(table, rows, comparisons, left_out)


_Found = tuple[Row, str]


def _by_instruction(table: Table, names: Columns) -> Mapping[tuple[str, str], list[_Found]]:
    """Rows, with what errors call them, by instruction and input, in order of first appearance."""
    found: defaultdict[tuple[str, str], list[_Found]] = defaultdict(list)
    for number, row in enumerate(table.rows, start=1):
        where = f"{table.origin}, row {number}"
        key = text_of(row, names.instruction, where), text_of(row, names.input, where, optional=True)
        found[key].append((row, where))
    return found


def _joined(one: _Found, other: _Found, names: Columns) -> Row:
    kept = {name: value for name, value in one[0].items() if name not in (names.output, "generator")}
    outputs = {
        column: text_of(row, names.output, where)
        for column, (row, where) in ((names.first, one), (names.second, other))
    }
    systems = {f"generator_{n}": row["generator"] for n, (row, _) in enumerate((one, other), 1) if "generator" in row}
    return {**kept, **outputs, **systems}


def _outputs(row: Row, names: Columns, where: str) -> Iterator[str]:
    if names.outputs not in row:
        yield text_of(row, names.output, where)
        return
    listed = row[names.outputs]
    if isinstance(listed, str) or not hasattr(listed, "__iter__"):
        raise DataError(f"{where}: expected a list of texts in column {names.outputs!r}, got {type(listed).__name__}.")
    for number, output in enumerate(listed):
        yield text_of({names.outputs: output}, names.outputs, f"{where}, output {number + 1}")


def _drawn_couple(different: Sequence[str], key: tuple[str, str], seed: int) -> list[tuple[str, str]]:
    # Drawn from the sorted texts, so that the order in which samples stand in the table changes nothing.
    ordered = sorted(different)
    one, other = stream(seed, "sample-pair", *key).choice(len(ordered), size=2, replace=False)
    return [(ordered[one], ordered[other])]


def _name(row: Mapping[str, Any], column: str, otherwise: str) -> str:
    value = row.get(column)
    return value if isinstance(value, str) and value.strip() else otherwise
