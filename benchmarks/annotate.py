"""How fast judges are asked: 805 pairs to a server that takes 200 ms, against the ideal and against alpaca_eval.

    python benchmarks/annotate.py                                # 5, 50 and 200 in flight, cold and warm, and memory
    python benchmarks/annotate.py --alpaca-eval /path/to/venv    # and alpaca_eval 0.6.6 in an environment of its own
    python benchmarks/annotate.py --memory 1000 100000           # pairs from a generator, preferences to nowhere

Both sides get the same rows and ask as the weighted AlpacaEval 2 judge does: one token, five log-probabilities. Every
measurement is a process of its own beside a server of its own, so that CPU seconds are the client's alone, and begins
when everything is imported. The ideal is pairs x latency / in flight: a client that costs nothing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.engines.fake_server import KEY, FakeServer  # noqa: E402

from pasture.annotate.entry import Columns, annotate_pairs, comparison_of  # noqa: E402
from pasture.annotate.panel import load_panel  # noqa: E402
from pasture.annotate.stored import Access, StoredPool  # noqa: E402

KEY_ENV = "PASTURE_BENCHMARK_KEY"
PAIRS = 805
LATENCY_SECONDS = 0.2


def rows(count: int) -> Iterator[dict[str, str]]:
    """Pairs of answers, 3,300 characters together."""
    for number in range(count):
        yield {
            "instruction": f"{number} which is better ?",
            "output_1": "a " * 650,
            "output_2": f"b {number} " * 400,
        }


def measure(base_url: str, store: Path, in_flight: int, count: int, *, as_table: bool) -> dict[str, float]:
    """Ask through a store; wall and CPU seconds of it, and the most memory this process had."""
    from pasture.engines import api  # noqa: F401, PLC0415 - its import is not measured

    endpoint = {"base_url": base_url, "api_key_env": KEY_ENV}
    access = Access(engine_settings={"endpoints": [endpoint], "in_flight": in_flight}, store=store)
    table = list(rows(count)) if as_table else []
    began, began_cpu = time.perf_counter(), time.process_time()
    with StoredPool(load_panel("alpaca-eval-2", ["judge"]), access) as pool:
        if as_table:
            judged = annotate_pairs(table, pool).counts["judged"]
        else:
            comparisons = (comparison_of(row, Columns(), "a row") for row in rows(count))
            judged = sum(each.preferred != "unjudged" for each in pool.pool().stream(comparisons))
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    assert judged == count
    return {"wall": wall, "cpu": cpu, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_process(server: FakeServer, store: Path, in_flight: int, count: int, form: str = "table") -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", server.base_url, str(store), str(in_flight), str(count), form]
    environment = {**os.environ, KEY_ENV: KEY, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def row(name: str, in_flight: int, count: int, latency: float, figures: dict[str, float]) -> None:
    """One line of the table."""
    ideal = count * latency / in_flight
    print(
        f"{name:<28} {in_flight:>9} {count:>8,} {figures['wall']:>8.2f} {ideal:>8.2f} {figures['wall'] / ideal:>7.2f} "
        f"{1000 * figures['cpu'] / count:>8.2f} {figures['peak_mib']:>9.0f} {os.getloadavg()[0]:>6.1f}"
    )


def ours(folder: Path, repeats: int) -> None:
    """Cold and warm at three widths."""
    for in_flight in (50, 200, 5):
        for repeat in range(repeats if in_flight == 50 else 1):
            path = folder / f"{in_flight}-{repeat}.sqlite"
            with FakeServer(folder / "ledger.jsonl") as server:
                server.behave(latency_seconds=LATENCY_SECONDS)
                row("pasture, cold", in_flight, PAIRS, LATENCY_SECONDS, in_process(server, path, in_flight, PAIRS))
                row("pasture, warm", in_flight, PAIRS, LATENCY_SECONDS, in_process(server, path, in_flight, PAIRS))


def memory(folder: Path, counts: list[int]) -> None:
    """Peak memory must not grow with the number of pairs."""
    for count in counts:
        with FakeServer(folder / "ledger.jsonl") as server:
            server.behave(latency_seconds=0.001)
            figures = in_process(server, folder / f"memory-{count}.sqlite", 50, count, "stream")
            row("pasture, memory", 50, count, 0.001, figures)


ALPACA_EVAL = """
import json, os, resource, sys, time
os.environ["OPENAI_MAX_CONCURRENCY"] = sys.argv[2]
import pandas
from alpaca_eval.annotators import PairwiseAnnotator
count = int(sys.argv[3])
texts = [(f"{n} which is better ?", "a " * 650, f"b {n} " * 400) for n in range(count)]
rows = [{"instruction": asked, "output_1": first, "output_2": second} for asked, first, second in texts]
annotator = PairwiseAnnotator(annotators_config="weighted_alpaca_eval_gpt4_turbo", caching_path=None)
began, cpu = time.perf_counter(), time.process_time()
done = annotator.annotate_pairs(rows, chunksize=None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
assert len(done) == count
print(json.dumps({"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu, "peak_mib": peak}))
"""


def alpaca_eval(venv: Path, folder: Path) -> None:
    """The same rows by alpaca_eval's threads, against the same server."""
    with FakeServer(folder / "ledger.jsonl") as server:
        server.behave(latency_seconds=LATENCY_SECONDS)
        for in_flight in (5, 50):
            environment = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url}
            command = [str(venv / "bin/python"), "-W", "ignore", "-c", ALPACA_EVAL, server.base_url]
            done = subprocess.run(
                [*command, str(in_flight), str(PAIRS)],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            row("alpaca_eval, cold", in_flight, PAIRS, LATENCY_SECONDS, json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs at 50 in flight")
    parser.add_argument("--memory", type=int, nargs="*", default=[1_000, 10_000], help="numbers of pairs")
    parser.add_argument("--alpaca-eval", type=Path, help="an environment with alpaca_eval 0.6.6")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        base_url, path, in_flight, count, form = chosen.measure
        figures = measure(base_url, Path(path), int(in_flight), int(count), as_table=form == "table")
        print(json.dumps(figures))
        return
    print(f"{'':<28} {'in flight':>9} {'pairs':>8} {'wall s':>8} {'ideal s':>8} {'x ideal':>7} {'CPU ms':>8} ", end="")
    print(f"{'peak MiB':>9} {'load':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours(folder, chosen.repeats)
        if chosen.alpaca_eval:
            alpaca_eval(chosen.alpaca_eval, folder)
        memory(folder, chosen.memory)


if __name__ == "__main__":
    main()
