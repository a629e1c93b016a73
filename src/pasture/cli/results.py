"""Folders of results: what an evaluation leaves, and the judgements that are found in any folder."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pasture.cli.judged import Judged
from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records, write_text
from pasture.core.records import Comparison, Preference
from pasture.core.tables import read_rows
from pasture.evaluate.alpaca_eval import annotation_rows, leaderboard_csv, outcomes_of_annotations
from pasture.evaluate.audit import AuditFinding
from pasture.evaluate.board import Board
from pasture.evaluate.human_corrected import CorrectedRate
from pasture.evaluate.outcomes import Outcomes, outcomes_of
from pasture.evaluate.table import board_csv
from pasture.report.content import ReportContent
from pasture.report.page import write_report

_FACTS = "judge.json"


def write_results(out: Path, judged: Judged, board: Board, page: ReportContent) -> None:
    """Write the judgements, the tables, the page, and the exports in AlpacaEval's layout."""
    write_records(out / "comparisons.jsonl", judged.comparisons)
    write_records(out / "preferences.jsonl", judged.preferences)
    facts = {
        "judge": judged.judge,
        "reference": judged.reference,
        "date": judged.date,
        "credit": judged.credit,
        "identity": dict(judged.identity),
    }
    write_text(out / _FACTS, _json(facts))
    write_text(out / "leaderboard.json", board.to_json())
    write_text(out / "leaderboard.csv", board_csv(board))
    write_report(page, out / "leaderboard.html")
    annotations = annotation_rows(judged.preferences, judged.comparisons, judged.credit)
    write_text(out / "alpaca_eval/annotations.json", _json(annotations))
    write_text(out / "alpaca_eval/leaderboard.csv", leaderboard_csv(board))


def write_findings(out: Path, findings: Sequence[AuditFinding]) -> None:
    """Write what the audit's systems won."""
    rows = [{"finding": row.sentence(), "alarming": row.alarming, **row.win_rate.model_dump()} for row in findings]
    write_text(out / "audit.json", _json(rows))


def write_corrected(out: Path, corrected: Mapping[str, Sequence[CorrectedRate]]) -> None:
    """Write the win rates as people's labels correct them."""
    rows = [{"system": system, **vars(one)} for system, results in corrected.items() for one in results]
    write_text(out / "corrected.json", _json(rows))


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def found_systems(folder: Path, judge: str | None = None) -> list[Outcomes]:
    """The outcomes of every judgement in a folder or below it; of `judge` alone where one is named.

    Known are what `pasture evaluate --out` wrote, the judged evaluations of a run folder, and AlpacaEval's
    annotations.json.

    Raises:
        DataError: if there is none, or none by `judge`.
    """
    systems: list[Outcomes] = []
    ours = set()
    for path in _files_below(folder, "comparisons.jsonl"):
        found = _evaluated(path) if path.with_name(_FACTS).exists() else _of_run(path)
        if found:
            ours.add(path.parent)
            systems += found
    for path in _files_below(folder, "annotations.json"):
        if path.parent.parent not in ours:
            systems += outcomes_of_annotations(read_rows(path))
    if not systems:
        raise DataError(
            f"{folder}: found no judgements in it or below: neither results of pasture evaluate, nor the "
            "3-annotate/evaluation of a run, nor AlpacaEval's annotations.json."
        )
    judges = sorted({outcomes.judge for outcomes in systems})
    # "pool" names the pool whatever its identity, which stands after it.
    wanted = [outcomes for outcomes in systems if judge in (None, outcomes.judge, outcomes.judge.split(" #")[0])]
    if not wanted:
        raise DataError(f"{folder}: no judgements by {judge!r}. Judges there: {', '.join(judges)}.")
    return wanted


def _files_below(folder: Path, name: str) -> list[Path]:
    """The files of this name in a folder, below it, and behind the links there, as of a study's runs; each once."""
    found = []
    seen: set[Path] = set()
    for place, below, files in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        found += [Path(place, name)] if name in files else []
    return sorted(found)


def _evaluated(path: Path) -> list[Outcomes]:
    place = path.with_name(_FACTS)
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        known = {name: facts[name] for name in ("judge", "reference", "credit", "date")}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: expected what pasture evaluate --out writes ({error}). Evaluate again.") from error
    preferences = read_records(path.with_name("preferences.jsonl"), Preference)
    return outcomes_of(preferences, read_records(path, Comparison), **known)


def _of_run(path: Path) -> list[Outcomes]:
    """The judgements that a run left beside its comparisons, a file a judge; verdicts count, as in its leaderboard."""
    if path.parts[-4:-2] != ("3-annotate", "evaluation"):
        return []
    comparisons = read_records(path, Comparison)
    systems = []
    for file in sorted(path.parent.glob("*.jsonl")):
        if file != path:
            preferences = read_records(file, Preference)
            systems += outcomes_of(preferences, comparisons, judge=file.stem, reference=comparisons[0].first.system)
    return systems
