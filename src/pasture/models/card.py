"""What a trained model says of itself: a model card for people, the same facts as JSON for programs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pasture.core.errors import ModelError
from pasture.core.files import read_json_lines, write_text
from pasture.core.records import Record

CARD_FILE = "README.md"
FACTS_FILE = "pasture.json"


@dataclass(frozen=True)
class Source:
    """Data that a model learned from."""

    name: str
    """A file's, or what a step of a run wrote."""
    count: int
    sha256: str
    """Of the records, whatever the format of the file."""


@dataclass(frozen=True)
class Card:
    """How a model came to be."""

    method: str
    settings: Mapping[str, Any]
    """All of the method's, defaults included."""
    start: str
    """The model that training began with."""
    template: str
    """How it is asked: one of `pasture.core.templates.TEMPLATES`."""
    seed: int
    data: Mapping[str, Source]
    """By what it was used for."""
    judge: str = ""
    """Who preferred, or scored."""
    recipe: str = ""
    """Name of the recipe, where the model is one of a run's."""
    version: str = ""
    """Of Pasture."""
    results: Mapping[str, float] = field(default_factory=dict)
    """The last figures of training, or of an evaluation."""


def write_card(folder: Path, card: Card) -> None:
    """Write the card into a model's folder, as README.md and as pasture.json."""
    write_text(folder / CARD_FILE, _markdown(card))
    write_text(folder / FACTS_FILE, json.dumps(asdict(card), indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def recorded_template(folder: Path) -> str | None:
    """The template that the model in `folder` was trained to be asked with; None where it says nothing of it.

    Raises:
        ModelError: if its facts cannot be read.
    """
    path = folder / FACTS_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return str(facts["template"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Remove it, and name the template yourself.") from error


def source_of(name: str, records: Iterable[tuple[Record, ...]]) -> Source:
    """Count and hash of what a model learns from."""
    digest, count = hashlib.sha256(), 0
    for row in records:
        count += 1
        for record in row:
            digest.update(record.to_json().encode() + b"\n")
    return Source(name, count, digest.hexdigest())


def last_figures(path: Path) -> dict[str, float]:
    """The latest value of every figure in a `metrics.jsonl`; none where a method of one's own wrote no such file."""
    latest: dict[str, float] = {}
    for row in read_json_lines(path) if path.exists() else ():
        latest |= {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
    return latest


def _how_to_load(method: str) -> str:
    if method == "reward_model_ensemble":
        return "It scores answers: `pasture score`. Its members are reward models."
    if method != "reward_model":
        return "Load it with `from_pretrained`."
    return (
        "It scores answers: `pasture score`. With transformers, `AutoModel.from_pretrained` loads all but the head: a "
        "score is the last hidden state at an answer's last token times `weight`, plus `bias`, less `offset`, which "
        "`scalar_head.safetensors` holds. (`AutoModelForSequenceClassification` would draw a head at random.)"
    )


def _markdown(card: Card) -> str:
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [pasture, {card.method.replace('_', '-')}]",
        "---",
        "",
        f"# A model trained with {card.method}",
        "",
        f"Made by [Pasture](https://pypi.org/project/pasture/) {card.version}".rstrip() + ".",
        _how_to_load(card.method),
        "Simulated or real, the preferences behind it are those of its judge alone.",
        "",
        "| | |",
        "|---|---|",
        *_rows({"began as": card.start, "asked with the template": card.template, "recipe": card.recipe}),
        *_rows({"judge": card.judge, "seed": str(card.seed)}),
        "",
        "## Data",
        "",
        "| used for | what | rows | SHA-256 |",
        "|---|---|---|---|",
        *(f"| {use} | {_code(one.name)} | {one.count:,} | `{one.sha256}` |" for use, one in card.data.items()),
        "",
        "## Settings",
        "",
        "```json",
        json.dumps(card.settings, indent=1, sort_keys=True, default=str),
        "```",
    ]
    if card.results:
        lines += ["", "## Results", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value:.6g} |" for name, value in sorted(card.results.items())]
    return "\n".join(lines) + "\n"


def _rows(facts: Mapping[str, str]) -> list[str]:
    return [f"| {name} | {_code(value)} |" for name, value in facts.items() if value]


def _code(text: str) -> str:
    """Text as code, so that no name turns into a link, a heading or a cell."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{plain}`"
