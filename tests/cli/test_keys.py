"""A service's key is in nothing that a command leaves, however servers and models say it back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.fake_server import KEY, FakeServer

KEY_ENV = "PASTURE_TEST_KEY"
PIECE = KEY[:8].encode()
"""A text that is cut off amid the key may not hold its beginning either."""
ESCAPED = KEY.replace("-", "\\u002d")
"""The key to whoever reads JSON twice: the service's answer, and then the judge's."""
JUDGE = """
[judges.hostile]
prompt = "reasons-json"
max_completion_tokens = 150
"""
RECIPE = """
name = "hostile"
threads = 1
model.start = "meadow-untrained"
data = {{sft = 8, preference = 8, unlabeled = 8, validation = 8, evaluation = 8}}
answering.max_new_tokens = 4
evaluate.judges = ["service"]

[pools.service]
pool = "judge.toml"
models = ["judge"]
engine_settings = {{endpoints = [{{base_url = "{url}", api_key_env = "{env}"}}]}}
"""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    """A server that says the key in errors of each kind, and whose model says it in its reasons."""
    with FakeServer(tmp_path_factory.mktemp("server") / "ledger.jsonl") as running:
        said = f'{{"reason": "the key is {KEY}, which is {ESCAPED}", "better": "a"}}'
        running.behave(answer=said, faults={"leaky 500": 1, "leaky filter": 1}, faulty_share=0.4)
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: FakeServer) -> Path:
    (tmp_path / "judge.toml").write_text(JUDGE)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(url=server.base_url, env=KEY_ENV))
    rows = [{"instruction": f"do {n}", "output_1": "good", "output_2": f"bad {n}"} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("output_1", "output_2"):
        answers = [{"instruction": row["instruction"], "output": row[name]} for row in rows]
        (tmp_path / f"{name}.json").write_text(json.dumps(answers))
    return tmp_path


def pasture(folder: Path, *arguments: str, code: int = 0) -> None:
    """Run the command in `folder`; what it prints becomes one more file there."""
    environment = {**os.environ, KEY_ENV: KEY, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "pasture", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    said = done.stdout + done.stderr
    (folder / f"printed-{len(list(folder.glob('printed-*')))}.txt").write_bytes(said)
    assert done.returncode == code, said.decode()


def holding(folder: Path, text: bytes) -> set[str]:
    """Files under `folder` that hold `text`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return {str(path.relative_to(folder)) for path in files if text in path.read_bytes()}


def test_no_key_is_in_what_annotating_and_evaluating_leave(server: FakeServer, folder: Path) -> None:
    service = {"base_url": server.base_url, "api_key_env": KEY_ENV}
    options = [part for name, value in service.items() for part in (f"--{name.replace('_', '-')}", value)]
    settings = [part for name, value in service.items() for part in ("--judge", f"{name}={value}")]
    pasture(folder, "annotate", "pairs.jsonl", "--judge", "judge.toml", "--models", "judge", *options)
    systems = ("output_1.json", "--reference", "output_2.json", "--judge", "judge.toml", "--judge", "models=judge")
    pasture(folder, "evaluate", *systems, *settings, "--out", "results")
    pasture(folder, "leaderboard", "results", "--html", "board.html")
    server.behave(faults={"leaky 401": 1})
    pasture(folder, "annotate", "pairs.jsonl", "--judge", "greedy", "--models", "judge", *options, code=2)
    assert holding(folder, PIECE) == set()
    # The key was said in all of these, and cut out: an error on the screen, rows, paid answers, judgements.
    cut = holding(folder, b"[key]")
    assert {"pairs.annotated.jsonl", "answers.sqlite", "printed-3.txt"} <= cut
    assert any(name.startswith("results/") for name in cut)
    assert (folder / "board.html").stat().st_size > 1000


def test_no_key_is_in_a_run_folder(folder: Path) -> None:
    pasture(folder, "run", "recipe.toml", "--out", "run")
    assert holding(folder, PIECE) == set()
    assert "run/3-annotate/evaluation/base/service.jsonl" in holding(folder, b"[key]")
    assert {"run/manifest.json", "run/7-report/index.html", "run/3-annotate/evaluation/base/step.json"} <= {
        str(path.relative_to(folder)) for path in (folder / "run").rglob("*")
    }
