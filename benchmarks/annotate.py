"""How fast judges are asked: 805 requests to a server that takes 200 ms, against the ideal and against alpaca_eval.

    python benchmarks/annotate.py                                # 5, 50 and 200 in flight, cold and warm, and memory
    python benchmarks/annotate.py --alpaca-eval /path/to/venv    # and alpaca_eval 0.6.6 in an environment of its own

Every measurement is a process of its own beside a server of its own, so that CPU seconds are the client's alone. The
ideal is requests x latency / in flight: a client that costs nothing.
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

from pasture.core.requests import Message, Request  # noqa: E402
from pasture.core.store import AnswerStore  # noqa: E402

KEY_ENV = "PASTURE_BENCHMARK_KEY"
REQUESTS = 805
LATENCY_SECONDS = 0.2
PROMPT_CHARACTERS = 3000
"""As AlpacaEval's prompts: an instruction, two answers and a guideline."""


def requests(count: int) -> Iterator[Request]:
    """Judge requests, each its own, as the weighted AlpacaEval 2 judge asks: one token, five log-probabilities."""
    for number in range(count):
        text = f"{number} " + "which of the two answers is better ? " * (PROMPT_CHARACTERS // 37)
        yield Request(
            model="judge",
            messages=(Message(role="user", content=text),),
            max_completion_tokens=1,
            temperature=0.0,
            top_logprobs=5,
        )


def measure(base_url: str, store_path: Path, in_flight: int, count: int) -> dict[str, float]:
    """Ask through a store; wall and CPU seconds of the asking alone, and the most memory this process had."""
    from pasture.engines.api import ApiEngine  # noqa: PLC0415 - its import is measured
    from pasture.engines.cached import CachedEngine  # noqa: PLC0415
    from pasture.engines.settings import Address, ApiSettings  # noqa: PLC0415

    imported = time.process_time()
    settings = ApiSettings(endpoints=(Address(base_url=base_url, api_key_env=KEY_ENV),), in_flight=in_flight)
    with AnswerStore(store_path) as store, ApiEngine(settings) as api:
        began, began_cpu = time.perf_counter(), time.process_time()
        answers = sum(1 for reply in CachedEngine(api, store).run(requests(count)) if not reply.failed)
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    assert answers == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "import_cpu": imported, "peak_mib": peak}


def in_process(server: FakeServer, store_path: Path, in_flight: int, count: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", server.base_url, str(store_path), str(in_flight), str(count)]
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
                row(
                    "pasture, cold", in_flight, REQUESTS, LATENCY_SECONDS, in_process(server, path, in_flight, REQUESTS)
                )
                row(
                    "pasture, warm", in_flight, REQUESTS, LATENCY_SECONDS, in_process(server, path, in_flight, REQUESTS)
                )


def memory(folder: Path, counts: list[int]) -> None:
    """Peak memory must not grow with the number of requests."""
    for count in counts:
        with FakeServer(folder / "ledger.jsonl") as server:
            server.behave(latency_seconds=0.001)
            figures = in_process(server, folder / f"memory-{count}.sqlite", 50, count)
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
    """The same number of requests by alpaca_eval's threads, against the same server."""
    with FakeServer(folder / "ledger.jsonl") as server:
        server.behave(latency_seconds=LATENCY_SECONDS)
        for in_flight in (5, 50):
            environment = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url}
            command = [str(venv / "bin/python"), "-W", "ignore", "-c", ALPACA_EVAL, server.base_url]
            done = subprocess.run(
                [*command, str(in_flight), str(REQUESTS)],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            row("alpaca_eval, cold", in_flight, REQUESTS, LATENCY_SECONDS, json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs at 50 in flight")
    parser.add_argument("--memory", type=int, nargs="*", default=[1_000, 10_000], help="numbers of requests")
    parser.add_argument("--alpaca-eval", type=Path, help="an environment with alpaca_eval 0.6.6")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        base_url, path, in_flight, count = chosen.measure
        print(json.dumps(measure(base_url, Path(path), int(in_flight), int(count))))
        return
    print(
        f"{'':<28} {'in flight':>9} {'requests':>8} {'wall s':>8} {'ideal s':>8} {'x ideal':>7} {'CPU ms':>8} ", end=""
    )
    print(f"{'peak MiB':>9} {'load':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours(folder, chosen.repeats)
        if chosen.alpaca_eval:
            alpaca_eval(chosen.alpaca_eval, folder)
        memory(folder, chosen.memory)


if __name__ == "__main__":
    main()
