"""Folders of results: what an evaluation leaves, and the judgements that are found in any folder."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pasture.cli import judges
from pasture.cli.judged import Judged
from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records, write_text
from pasture.core.records import Comparison, Preference
from pasture.core.run_folder import MANIFEST_FILE, STEP_FILE
from pasture.core.tables import read_rows
from pasture.evaluate.alpaca_eval import annotation_rows, leaderboard_csv, outcomes_of_annotations
from pasture.evaluate.audit import AuditFinding
from pasture.evaluate.board import Board
from pasture.evaluate.human_corrected import CorrectedRate
from pasture.evaluate.orders import BothOrders
from pasture.evaluate.outcomes import Outcomes, judge_label, outcomes_of
from pasture.evaluate.ranking import Ranking
from pasture.evaluate.table import board_csv
from pasture.plan.study import RUNS
from pasture.report.content import Difference, ReportContent
from pasture.report.page import write_report
from pasture.report.summary import MEADOW
from pasture.steps.board_page import audit_table, breakdowns, corrected_table, judge_facts, leaderboards
from pasture.validate.plain import plain
from pasture.validate.rank_correlation import holm

_AUDIT, _CORRECTED = "audit.json", "corrected.json"
_FACTS = "judge.json"
_PARTIAL = ".partial"
"""What the folder of a step ends in that is being made, or was when its run was killed."""
_MEADOW = "meadow-"
"""What the names begin with that the meadow's annotators give themselves."""

Identities = Mapping[str, Mapping[str, object]]
"""What verdicts depend on, by judge as it stands beside the numbers."""
Corrected = Mapping[str, Sequence[CorrectedRate]]
"""Win rates as people's labels correct them, by system."""


@dataclass(frozen=True)
class Beside:
    """What was computed beside a board; None for what was not asked for."""

    differences: Sequence[Difference] = ()
    orders: Mapping[str, BothOrders] | None = None
    ranking: Ranking | None = None
    corrected: Corrected | None = None


def check_writable(out: Path | None) -> None:
    """Refuse, before money is spent, a folder that nothing can be written to.

    Raises:
        DataError: naming what is in the way.
    """
    if out is None:
        return
    place = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise DataError(f"--out {out}: cannot write there, as {place} is no folder or not yours. Choose another.")


def write_results(out: Path, judged: Judged, board: Board, page: ReportContent, ranking: Ranking | None = None) -> None:
    """Write the judgements, the tables, the page, and the exports in AlpacaEval's layout."""
    write_judgements(out, judged, board)
    differences = [one for leaderboard in page.leaderboards for one in leaderboard.differences]
    beside = Beside(differences, judged.orders(), ranking)
    write_text(out / "leaderboard.json", board_json(board, beside))
    write_report(page, out / "leaderboard.html")


def write_judgements(out: Path, judged: Judged, board: Board) -> None:
    """Write the judgements, the audit's findings where there are any, and the plain tables."""
    for name in (_AUDIT, _CORRECTED):
        (out / name).unlink(missing_ok=True)  # of an evaluation that this one takes the place of
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
    annotations = annotation_rows(judged.preferences, judged.comparisons, judged.credit)
    write_text(out / "alpaca_eval/annotations.json", _json(annotations))
    write_text(out / "alpaca_eval/leaderboard.csv", leaderboard_csv(board))
    findings = judged.findings()
    if findings:
        write_text(out / _AUDIT, _json([_finding(row) for row in findings]))


def _finding(row: AuditFinding) -> dict[str, object]:
    return {"finding": row.sentence(), "alarming": row.alarming, **row.win_rate.model_dump()}


def board_json(board: Board, beside: Beside) -> str:
    """The board with all that was computed beside it, as one JSON object."""
    pairs = [
        {**one.model_dump(), "p_value_corrected": p_value}
        for one, p_value in zip(beside.differences, corrected_p_values(beside.differences), strict=True)
    ]
    content = {**json.loads(board.to_json()), "differences": pairs, "ranking": _ranking(beside.ranking)}
    if beside.orders is not None:
        content["orders"] = {system: plain(asdict(both)) for system, both in beside.orders.items()}
    if beside.corrected is not None:
        content["corrected"] = _corrected_rows(beside.corrected)
    return _json(content)


def corrected_p_values(differences: Sequence[Difference]) -> list[float | None]:
    """The p-values of these differences, corrected by Holm for all of them; None where there is none."""
    raw = [math.nan if one.p_value is None else one.p_value for one in differences]
    return [None if math.isnan(value) else value for value in holm(raw)]


def _ranking(ranking: Ranking | None) -> dict[str, object] | None:
    if ranking is None:
        return None
    systems = [{**vars(one), "interval": list(one.interval)} for one in ranking.systems]
    return {"tie_readiness": ranking.tie_readiness, "systems": systems}


def write_corrected(out: Path, corrected: Corrected) -> None:
    """Write the win rates as people's labels correct them."""
    write_text(out / _CORRECTED, _json(_corrected_rows(corrected)))


def _corrected_rows(corrected: Corrected) -> list[dict[str, object]]:
    return [{"system": system, **vars(one)} for system, results in corrected.items() for one in results]


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def results_page(
    title: str,
    board: Board,
    differences: Sequence[Difference],
    findings: Sequence[AuditFinding] = (),
    identities: Identities | None = None,
) -> ReportContent:
    """The page of a board, with what stands behind it and what the audit found."""
    boards = leaderboards(board, differences=differences)
    rows = {one.title: [row.to_dict() for row in board.rows if row.win_rate.judge == one.title] for one in boards}
    tables = [table for name, own in rows.items() for table in breakdowns(name, own)]
    tables += [audit_table(findings)] if findings else []
    return ReportContent(
        title=title,
        date=board.date or "",
        testbed=MEADOW if any(_of_meadow(name, identities or {}) for name in rows) else "",
        leaderboards=tuple(boards),
        breakdowns=tuple(tables),
        facts=tuple(judge_facts(board)),
        warnings=(*board.warnings, *(found.sentence() for found in findings if found.alarming)),
    )


def _of_meadow(judge: str, identities: Identities) -> bool:
    """Whether the judge is the meadow's: by its identity, for a campaign of real people is called "people" too."""
    name = identities.get(judge, {}).get("annotator", "")
    return judge.split(" #", maxsplit=1)[0] in judges.MEADOW or str(name).startswith(_MEADOW)


def with_corrections(page: ReportContent, corrected: Corrected) -> ReportContent:
    """The page with the win rates as people's labels correct them, if there are any."""
    tables = (*page.breakdowns, corrected_table(corrected)) if corrected else page.breakdowns
    return page.model_copy(update={"breakdowns": tables})


@dataclass(frozen=True)
class Found:
    """The judgements of a folder, and what is known of who gave them."""

    systems: list[Outcomes]
    identities: Identities = field(default_factory=dict)
    """Of the judges that a file says more of than their name."""

    def identity(self) -> Mapping[str, object] | None:
        """Of the judge of all systems; None where there are several, or it is not known."""
        names = {outcomes.judge for outcomes in self.systems}
        return self.identities.get(names.pop()) if len(names) == 1 else None


def found_systems(folder: Path, judge: str | None = None) -> Found:
    """The outcomes of every judgement in a folder or below it; of `judge` alone where one is named.

    Known are what `pasture evaluate --out` wrote, the judged evaluations of a run folder, and AlpacaEval's
    annotations.json; that file may also be named itself.

    Raises:
        DataError: if there is none, or none by `judge`, or a system of several runs of a study.
    """
    systems: list[Outcomes] = []
    identities: dict[str, Mapping[str, object]] = {}
    ours = set()
    for path in _files_below(folder, "comparisons.jsonl"):
        found = _evaluated(path) if path.with_name(_FACTS).exists() else _of_run(path)
        if found.systems:
            ours.add(path.parent)
            systems += found.systems
            identities |= found.identities
    if folder.is_file():
        systems += outcomes_of_annotations(read_rows(folder))
    for path in _files_below(folder, "annotations.json"):
        if path.parent.parent not in ours:
            systems += outcomes_of_annotations(read_rows(path))
    if not systems:
        raise DataError(
            f"{folder}: found no judgements in it or below: neither results of pasture evaluate, nor the "
            "3-annotate/evaluation of a run as its manifest lists it, nor AlpacaEval's annotations.json."
        )
    names = sorted({outcomes.judge for outcomes in systems})
    # "pool" names the pool whatever its identity, which stands after it.
    wanted = [outcomes for outcomes in systems if judge in (None, outcomes.judge, outcomes.judge.split(" #")[0])]
    if not wanted:
        raise DataError(f"{folder}: no judgements by {judge!r}. Judges there: {', '.join(names)}.")
    _check_single_run(folder, wanted)
    return Found(wanted, identities)


def _check_single_run(folder: Path, systems: Sequence[Outcomes]) -> None:
    """Refuse a study in which several runs made a system of one name: a board has one place for it."""
    pairs = [outcomes.pair for outcomes in systems]
    runs = sorted(path.name for path in (folder / RUNS).glob("*") if path.is_dir())
    if len(set(pairs)) < len(pairs) and runs and (folder / MANIFEST_FILE).exists():
        raise DataError(
            f"{folder} is of a study, and several of its runs made a system of one name. Name a single run, such as "
            f"{folder / RUNS / runs[0]}. Runs: {', '.join(runs)}."
        )


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


def _evaluated(path: Path) -> Found:
    place = path.with_name(_FACTS)
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        known = {name: facts[name] for name in ("judge", "reference", "credit", "date")}
        identity = dict(facts.get("identity", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: expected what pasture evaluate --out writes ({error}). Evaluate again.") from error
    preferences = read_records(path.with_name("preferences.jsonl"), Preference)
    systems = outcomes_of(preferences, read_records(path, Comparison), **known)
    return Found(systems, {known["judge"]: identity} if identity else {})


def _of_run(path: Path) -> Found:
    """The judgements that a finished step of a run left beside its comparisons, a file a judge; verdicts count.

    The step's record says who each judge was; no day, as one recipe gives one result on every day. A step that the
    run's manifest does not list is of a recipe that is no more.
    """
    record = path.with_name(STEP_FILE)
    finished = record.exists() and not path.parent.name.endswith(_PARTIAL)
    place = path.parent.resolve()  # a path inside a run may be relative to where we are
    if place.parts[-3:-1] != ("3-annotate", "evaluation") or not finished or not _is_listed(place):
        return Found([])
    comparisons = read_records(path, Comparison)
    systems: list[Outcomes] = []
    identities: dict[str, Mapping[str, object]] = {}
    for name, identity in _judges_of_step(record).items():
        file = path.with_name(f"{name}.jsonl")
        label = judge_label(name, identity) if identity else name
        preferences = read_records(file, Preference)
        systems += outcomes_of(preferences, comparisons, judge=label, reference=comparisons[0].first.system)
        if identity:
            identities[label] = identity
    return Found(systems, identities)


def _is_listed(step: Path) -> bool:
    """Whether the manifest of the run, or of the study, lists this finished step as it is; so too where there is none.

    Raises:
        DataError: if the manifest or the step's record is damaged.
    """
    for root in step.parents[2:4]:  # a study's steps lie one folder deeper
        manifest, record = root / MANIFEST_FILE, step / STEP_FILE
        if manifest.is_file():
            try:
                listed = json.loads(manifest.read_text(encoding="utf-8"))["steps"]
                known = listed.get(step.relative_to(root).as_posix())
                return known is not None and known["key"] == json.loads(record.read_text(encoding="utf-8"))["key"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{manifest} or {record} is damaged ({error!r}). Run the recipe again to write the manifest anew."
                ) from error
    return True


def _judges_of_step(record: Path) -> dict[str, Mapping[str, object]]:
    """The judges whose files lie beside a step's record, each with its identity; empty where it is not recorded.

    Raises:
        DataError: if the record is damaged.
    """
    try:
        details = dict(json.loads(record.read_text(encoding="utf-8"))["details"])
        files = sorted(record.parent.glob("*.jsonl"))
        return {
            file.stem: dict(details.get(file.stem, {}).get("judge", {}))
            for file in files
            if file.stem in details or (file.stem != "comparisons" and not details)
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{record} is damaged ({error!r}). Remove {record.parent} and run the recipe again to redo the step."
        ) from error
