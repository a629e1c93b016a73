"""Sixty pairs that people have labelled, judged by SmolLM2-135M behind vLLM: `make test-llm` prints the table.

A model of this size does not judge. What is held here is that everything between the rows and the numbers is right with
a real server at the other end; the figures are printed as they come.
"""

import gzip
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pasture.annotate.entry import annotate_pairs
from pasture.annotate.panel import Panel, load_panel
from pasture.annotate.stored import Access, StoredPool
from pasture.core.records import Preference
from pasture.core.store import AnswerStore
from tests.house.house import REPOSITORY
from tests.llm.figures import HEADER, line, orders
from tests.llm.serving import ENVIRONMENT, NAME, Server, vllm_server

HERE = Path(__file__).parent
PEOPLE = REPOSITORY.parent / "shared/data/pandalm/human_pairs.jsonl.gz"
PAIRS = 60
ONE_PAIR_A_CALL = (
    "/turns",
    "/turns-second",
    "/turns-short",
    "/guideline",
    "/reasons-json",
    "/completion",
    "/completion-short",
)

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not (ENVIRONMENT / ".installed").exists(), reason="`make test-llm` sets its server up"),
    pytest.mark.skipif(not PEOPLE.exists(), reason=f"the labelled pairs of PandaLM are not at {PEOPLE}"),
]


def show(text: str) -> None:
    """Print a line of the table at once; pytest lets it through with -s."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Bench:
    """A server, a store, and the rows that are judged."""

    def __init__(self, server: Server, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        self.server, self.rows = server, rows
        self.store = folder / "answers.sqlite"

    def pool(self, panel: Panel) -> StoredPool:
        """The panel, asked over this server."""
        settings = {
            "endpoints": [{"base_url": self.server.base_url}],
            "in_flight": 8,
            "price": {"input_per_million": 0.0, "output_per_million": 0.0},
            "timeout_seconds": 1800.0,
        }
        return StoredPool(panel, Access(engine="api", engine_settings=settings, store=self.store))

    def judged(self, title: str, panel: Panel) -> list[Preference]:
        """The preferences, and a line of the table."""
        began = time.monotonic()
        with self.pool(panel) as pool:
            preferences = list(annotate_pairs(self.rows, pool).preferences)
        show(line(title, preferences, self.rows, time.monotonic() - began))
        return preferences


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Every seventh pair of the file, in which six answers are the JSON value true."""
    with gzip.open(PEOPLE, "rt", encoding="utf-8") as file:
        read = [json.loads(text) for text in file]
    texts = ("instruction", "input", "output_1", "output_2")
    rows = [{**row, **{name: str(row[name]) for name in texts}} for row in read[::7]][:PAIRS]
    folder = tmp_path_factory.mktemp("llm")
    with vllm_server(folder / "vllm.log") as server:
        show(f"\n\n{HEADER}")
        ties = [Preference(comparison_id=str(row["pair_id"]), annotator="-", preferred="tie") for row in rows]
        show(line("a coin, for comparison", ties, rows, 0.0))
        yield Bench(server, folder, rows)


def check_both_orders(preferences: Sequence[Preference]) -> None:
    """A verdict is what both orders said, or a tie where they differ; unjudged where one of them is."""
    for each in preferences:
        if (each.evidence or {}).get("identical"):
            continue
        one, other = orders(each)
        assert {one["shown_first"], other["shown_first"]} == {"first", "second"}
        said = {one["preferred"], other["preferred"]}
        expected = "unjudged" if "unjudged" in said else said.pop() if len(said) == 1 else "tie"
        assert each.preferred == expected
        assert (each.preferred == "unjudged") == (each.error is not None)


def test_the_thirteen_judges_of_the_pool_answer_in_one_order_and_in_both(bench: Bench) -> None:
    panel = load_panel("p-eval", [NAME])
    once = bench.judged("13 judges, one order", panel)
    both = bench.judged("13 judges, both orders", replace(panel, order="both"))
    assert len(once) == len(both) == PAIRS
    assert len({each.annotator for each in once}) > 8
    assert all(each.error for each in once if each.preferred == "unjudged")
    check_both_orders(both)
    # An order that was asked for before is not asked for again, so it says the same; batches are put together anew.
    alone = [pair for pair in zip(once, both, strict=True) if pair[0].annotator.endswith(ONE_PAIR_A_CALL)]
    assert len(alone) > PAIRS // 4
    for each, twice in alone:
        said = {order["shown_first"]: order["preferred"] for order in orders(twice)}
        assert said[each.shown_first] == each.preferred


def test_three_pairs_to_a_call_come_back_one_by_one(bench: Bench) -> None:
    both = bench.judged(
        "3 pairs a call, both orders", replace(load_panel(str(HERE / "batch.toml"), [NAME]), order="both")
    )
    check_both_orders(both)


def test_a_letters_log_probabilities_give_a_probability_in_every_pair(bench: Bench) -> None:
    panel = replace(load_panel(str(HERE / "letter.toml"), [NAME]), order="both")
    both = bench.judged("log-probabilities, both orders", panel)
    check_both_orders(both)
    for each in both:
        assert each.preferred != "unjudged"
        if not (each.evidence or {}).get("identical"):
            chances = [order["probability_first"] for order in orders(each)]
            assert each.probability_first == pytest.approx(sum(chances) / 2)


def test_every_answer_was_bought_once(bench: Bench) -> None:
    panel = replace(load_panel(str(HERE / "letter.toml"), [NAME]), order="both")
    before = bench.judged("log-probabilities, again", panel)
    billed = bench.server.answered()  # vLLM's own count
    with AnswerStore(bench.store) as store:
        assert billed == len(list(store.rows()))
    assert bench.judged("log-probabilities, once more", panel) == before
    assert bench.server.answered() == billed
