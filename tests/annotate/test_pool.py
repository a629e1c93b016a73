import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from pasture.annotate.compat import AlpacaEvalDraws
from pasture.annotate.draws import ContentDraws
from pasture.annotate.noise import PositionLeaning, UniformFlips
from pasture.annotate.panel import Panel, load_panel
from pasture.annotate.pool import LLMPool
from pasture.core.ports import Annotator
from pasture.core.records import Comparison
from pasture.core.requests import Reply
from pasture.core.store import AnswerStore
from pasture.engines.cached import CachedEngine
from pasture.engines.scripted import ScriptedEngine
from tests.annotate.judging import RuleEngine, always_first, pair, pairs, prefers_good, shown

ONE = load_panel("greedy", ["x"])
"""A judge of five pairs a call."""
POOL = load_panel("alpaca-farm-13", ["l", "m", "s"])
EVALUATION = load_panel("p-eval", ["l", "m", "s"])


def single(order: str = "random") -> Panel:
    """One judge of one pair a call."""
    judge = next(judge for judge in EVALUATION.judges if judge.name == "m/turns-short")
    return Panel("single", [judge], [1.0], order=order)  # type: ignore[arg-type]


def test_a_pool_is_an_annotator():
    assert isinstance(LLMPool(POOL, RuleEngine(prefers_good)), Annotator)


def test_verdicts_come_back_in_the_comparisons_own_naming():
    # The judge knows good from bad; "good" is the first completion of every pair, whichever was shown first.
    preferences = LLMPool(EVALUATION, RuleEngine(prefers_good)).annotate(pairs(200))
    assert {p.preferred for p in preferences} == {"first"}
    assert {p.shown_first for p in preferences} == {"first", "second"}
    assert [p.comparison_id for p in preferences] == [c.id for c in pairs(200)]


def test_all_thirteen_are_asked_about_equally_often():
    counts = Counter(p.annotator for p in LLMPool(EVALUATION, RuleEngine(prefers_good)).annotate(pairs(2000)))
    assert len(counts) == 13
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_models_are_spread_five_to_four_to_four():
    counts = Counter(judge.name.split("/")[0] for judge in POOL.judges)
    assert counts == {"l": 5, "m": 4, "s": 4}


def test_a_judge_that_always_says_first_wins_half_in_random_order():
    preferences = LLMPool(single(), RuleEngine(always_first)).annotate(pairs(5000))
    share = sum(p.preferred == "first" for p in preferences) / 5000
    assert abs(share - 0.5) <= 0.02


def test_a_judge_that_always_says_first_wins_exactly_half_in_both_orders():
    preferences = LLMPool(single("both"), RuleEngine(always_first)).annotate(pairs(300))
    value = {"first": 1.0, "tie": 0.5, "second": 0.0}
    assert sum(value[p.preferred] for p in preferences) / 300 == 0.5
    assert all(p.evidence is not None and p.evidence["agree"] is False for p in preferences)


def test_both_orders_keep_a_verdict_that_both_support_and_cost_twice():
    engine = RuleEngine(prefers_good)
    preferences = LLMPool(single("both"), engine).annotate(pairs(50))
    assert {p.preferred for p in preferences} == {"first"}
    assert len(engine.asked) == 100
    assert all(p.cost_usd == pytest.approx(0.02) for p in preferences)


def test_a_failure_in_one_of_both_orders_leaves_the_pair_unjudged():
    def fails_on_bad_first(request):
        return "Both." if shown(request)[0][0].startswith("bad") else "Answer (a)"

    (preference,) = LLMPool(single("both"), RuleEngine(fails_on_bad_first)).annotate(pairs(1))
    assert preference.preferred == "unjudged"
    assert preference.error is not None
    assert preference.error.startswith("shown with the second first")


def test_identical_completions_are_a_tie_without_a_call():
    engine = RuleEngine(prefers_good)
    (preference,) = LLMPool(replace(single(), noise=UniformFlips(probability=0.5)), engine).annotate(
        [pair("q", "same", "same")]
    )
    assert preference.preferred == "tie"
    assert not preference.flipped_by_noise
    assert engine.asked == []


def test_a_bad_item_in_a_batch_of_five_costs_that_item_alone():
    def one_bad(request):
        couples = shown(request)
        if len(couples) == 1:
            return "Pair 1: answer (a)"
        return "\n".join(
            f"Pair {n}: both" if "3" in a else f"Pair {n}: answer (b)" for n, (a, _) in enumerate(couples, start=1)
        )

    engine = RuleEngine(one_bad)
    preferences = LLMPool(ONE, engine).annotate(pairs(5))
    assert [len(shown(request)) for request in engine.asked] == [5, 1]
    assert [p.preferred for p in preferences].count("unjudged") == 0
    costs = [round(p.cost_usd or 0, 6) for p in preferences]
    # 0.01 a call: a fifth of the batch for each, and the call of its own for pair 3.
    assert costs == [0.002, 0.002, 0.002, 0.012, 0.002]


def test_an_item_that_stays_bad_is_unjudged_alone():
    def one_bad(request):
        return "\n".join(
            "" if "3" in a else f"Pair {n}: answer (b)" for n, (a, _) in enumerate(shown(request), start=1)
        )

    preferences = LLMPool(ONE, RuleEngine(one_bad)).annotate(pairs(5))
    assert [p.preferred == "unjudged" for p in preferences] == [False, False, False, True, False]


def test_a_batch_that_the_service_filters_is_asked_singly_and_one_that_it_refuses_is_not():
    def filtered(request):
        couples = shown(request)
        if len(couples) > 1:
            return Reply(error="content filter", finish_reason="filtered")
        return Reply(error="content filter", finish_reason="filtered") if "2" in couples[0][0] else "Pair 1: (a)"

    preferences = LLMPool(ONE, RuleEngine(filtered)).annotate(pairs(5))
    assert [p.preferred == "unjudged" for p in preferences] == [False, False, True, False, False]
    down = RuleEngine(lambda request: Reply(error="no connection"))
    assert {p.error for p in LLMPool(ONE, down).annotate(pairs(5))} == {"no connection"}
    assert len(down.asked) == 1


def test_a_question_that_was_alone_in_its_batch_is_not_asked_twice():
    engine = RuleEngine(lambda request: "Both.")
    LLMPool(ONE, engine).annotate(pairs(1))
    assert len(engine.asked) == 1


def test_cost_of_all_rows_is_the_cost_of_all_calls():
    engine = RuleEngine(prefers_good)
    twice = pairs(100) + pairs(100)
    preferences = LLMPool(EVALUATION, engine).annotate(twice)
    assert sum(p.cost_usd or 0 for p in preferences) == pytest.approx(0.01 * len(engine.asked))


def test_an_unknown_price_stays_unknown():
    (preference,) = LLMPool(single(), RuleEngine(lambda request: Reply(text="Answer (a)"))).annotate(pairs(1))
    assert preference.cost_usd is None


def test_a_pair_that_several_rows_hold_is_asked_about_once_and_so_is_its_mirror_image():
    engine = RuleEngine(prefers_good)
    mirror = pair("question 0", "bad 0", "good 0")
    preferences = LLMPool(single(), engine).annotate([*pairs(1), *pairs(1), mirror])
    assert len(engine.asked) == 1
    assert [p.preferred for p in preferences] == ["first", "first", "second"]


def test_rows_in_another_order_send_the_same_calls():
    one, other = RuleEngine(prefers_good), RuleEngine(prefers_good)
    LLMPool(POOL, one).annotate(pairs(300))
    LLMPool(POOL, other).annotate(pairs(300)[::-1])
    assert {r.request_hash for r in one.asked} == {r.request_hash for r in other.asked}


def test_a_dry_run_lists_the_calls_that_are_then_made():
    engine = RuleEngine(prefers_good)
    pool = LLMPool(POOL, engine)
    planned = [request.request_hash for request in pool.requests(pairs(300))]
    assert engine.asked == []
    pool.annotate(pairs(300))
    assert [request.request_hash for request in engine.asked] == planned


def test_a_quarter_of_the_labels_is_flipped_at_half_the_calls_and_none_is_unjudged():
    # The bar: 25 ± 1.5 % of 10,000. The judge is always right, so what is wrong is noise.
    engine = RuleEngine(prefers_good)
    panel = replace(single(), noise=UniformFlips(probability=0.25))
    preferences = LLMPool(panel, engine).annotate(pairs(10_000))
    wrong = [p for p in preferences if p.preferred == "second"]
    assert abs(len(wrong) / 10_000 - 0.25) <= 0.015
    assert all(p.flipped_by_noise for p in wrong)
    assert abs(len(engine.asked) / 10_000 - 0.5) <= 0.015
    assert not any(p.preferred == "unjudged" for p in preferences)
    assert all(p.cost_usd == 0.0 and p.raw_reply is None for p in preferences if p.flipped_by_noise)


@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)], id="10000")]
)
def test_noise_is_the_same_on_a_cold_and_a_warm_store_and_never_stored(tmp_path, count):
    engine = RuleEngine(prefers_good)
    panel = replace(single(), noise=UniformFlips(probability=0.25))
    storeless = LLMPool(panel, RuleEngine(prefers_good)).annotate(pairs(count))
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        cold = LLMPool(panel, CachedEngine(engine, store)).annotate(pairs(count))
        bought = len(engine.asked)
        assert sum(1 for _ in store.rows()) == bought == sum(not p.flipped_by_noise for p in cold)
        warm = LLMPool(panel, CachedEngine(engine, store)).annotate(pairs(count))
    assert len(engine.asked) == bought
    assert [p.to_json() for p in warm] == [p.to_json() for p in cold] == [p.to_json() for p in storeless]
    if count == 10_000:
        assert abs(sum(p.preferred == "second" for p in warm) / count - 0.25) <= 0.015


def test_no_noise_and_noise_of_nothing_give_the_same_bytes():
    without, nothing = (
        LLMPool(replace(EVALUATION, noise=noise), RuleEngine(prefers_good)).annotate(pairs(300))
        for noise in (None, UniformFlips(probability=0.0))
    )
    assert [p.to_json() for p in without] == [p.to_json() for p in nothing]


def test_noise_leaves_the_judged_rest_as_it_was():
    panels = (EVALUATION, replace(EVALUATION, noise=UniformFlips(probability=0.25)))
    clean, noisy = (LLMPool(panel, RuleEngine(prefers_good)).annotate(pairs(400)) for panel in panels)
    assert all(n.preferred == c.preferred for c, n in zip(clean, noisy, strict=True) if not n.flipped_by_noise)


def test_a_replicate_asks_anew_and_a_seed_draws_anew():
    def hashes(**settings: Any) -> set[str]:
        pool = LLMPool(EVALUATION, RuleEngine(prefers_good), **settings)
        return {request.request_hash for request in pool.requests(pairs(50))}

    assert not hashes() & hashes(sample=1)
    assert hashes() != hashes(draws=ContentDraws(1))


def test_stored_replies_without_a_verdict_are_asked_for_once_more_on_request():
    def script(request):
        # Samples 0 and 1000 were bought by earlier runs and hold no verdict; 2000 is new.
        old = request.sample < 2000
        return Reply(text="Hm." if old else "Answer (a)", from_store=old)

    engine = RuleEngine(script)
    (unjudged,) = LLMPool(single(), engine).annotate(pairs(1))
    assert unjudged.preferred == "unjudged"
    (judged,) = LLMPool(single(), engine, retry_unjudged=True).annotate(pairs(1))
    assert judged.preferred != "unjudged"
    assert [request.sample for request in engine.asked] == [0, 0, 1000, 2000]


def test_a_fresh_reply_without_a_verdict_is_not_asked_for_again_at_once():
    engine = RuleEngine(lambda request: "Hm.")
    LLMPool(single(), engine, retry_unjudged=True).annotate(pairs(1))
    assert len(engine.asked) == 1


def test_alpaca_eval_draws_show_one_order_for_all_pairs_of_an_instruction():
    same = [pair("q", f"good {i}", f"bad {i}") for i in range(30)]
    preferences = LLMPool(single(), RuleEngine(prefers_good), draws=AlpacaEvalDraws()).annotate(same)
    assert len({p.shown_first for p in preferences}) == 1


def test_position_leaning_in_both_orders_is_refused_before_anyone_is_asked():
    with pytest.raises(Exception, match="leans"):
        replace(single("both"), noise=PositionLeaning(probability=0.1))


def test_a_stream_gives_what_a_list_gives(monkeypatch):
    monkeypatch.setattr("pasture.annotate.pool._WINDOW", 64)
    pool = LLMPool(single(), RuleEngine(prefers_good))
    assert list(pool.stream(iter(pairs(200)))) == pool.annotate(pairs(200))


class Gathering(ScriptedEngine):
    """Answers the call before the last of a window only when the next window has been begun."""

    in_flight = 4

    def __init__(self, window: int) -> None:
        super().__init__("Answer (a)")
        self.window, self.begun, self.waited_in_vain = window, 0, False

    async def complete(self, request):
        self.begun += 1
        mine, deadline = self.begun, time.monotonic() + 20
        while mine == self.window - 1 and self.begun <= self.window and not self.waited_in_vain:
            await asyncio.sleep(0.001)
            self.waited_in_vain = time.monotonic() > deadline
        return await super().complete(request)


def noted(rows, read):
    """The rows, each noted in `read` as it is read."""
    for row in rows:
        read.append(row)
        yield row


def test_a_stream_begins_the_next_window_while_calls_of_the_last_are_in_flight(monkeypatch):
    monkeypatch.setattr("pasture.annotate.pool._WINDOW", 64)
    engine, read = Gathering(64), list[Comparison]()
    stream = LLMPool(single(), engine).stream(noted(pairs(640), read))
    most = max(len(read) - given for given, _ in enumerate(stream))
    assert not engine.waited_in_vain
    assert engine.begun == 640
    assert most <= 2 * 64  # the window that is given out and the one that is asked about


def test_a_stream_reads_no_further_than_a_window_in_which_nobody_is_asked(monkeypatch):
    monkeypatch.setattr("pasture.annotate.pool._WINDOW", 64)
    read: list[Comparison] = []
    ties = [pair(f"q {n}", "same", "same") for n in range(640)]
    stream = LLMPool(single(), RuleEngine(prefers_good)).stream(noted(ties, read))
    assert next(stream).preferred == "tie"
    assert len(read) == 64
    assert [p.preferred for p in stream] == ["tie"] * 639


def test_windows_with_and_without_questions_come_in_order(monkeypatch):
    monkeypatch.setattr("pasture.annotate.pool._WINDOW", 8)
    ties = [pair(f"q {n}", "same", "same") for n in range(16)]
    rows = [*ties[:8], *pairs(20), *ties[8:], *pairs(20)[::-1], *ties[:8]]
    preferences = list(LLMPool(single(), RuleEngine(prefers_good)).stream(iter(rows)))
    assert [p.comparison_id for p in preferences] == [row.id for row in rows]
    assert Counter(p.preferred for p in preferences) == {"tie": 24, "first": 40}


def test_a_stream_asks_again_in_each_of_its_windows(monkeypatch):
    monkeypatch.setattr("pasture.annotate.pool._WINDOW", 8)

    def script(request):
        return Reply(text="Hm." if request.sample == 0 else "Answer (a)", from_store=request.sample == 0)

    engine = RuleEngine(script)
    preferences = list(LLMPool(single(), engine, retry_unjudged=True).stream(iter(pairs(30))))
    assert {p.preferred for p in preferences} <= {"first", "second"}
    assert Counter(request.sample for request in engine.asked) == {0: 30, 1000: 30}


def test_judges_of_several_pairs_share_calls_over_thousands_of_rows():
    # So that the calls of a stream are found in stores that were filled by 4,096 rows at a time.
    engine, together = RuleEngine(prefers_good), RuleEngine(prefers_good)
    rows = pairs(4100)
    list(LLMPool(ONE, engine).stream(iter(rows)))
    for part in (rows[:4096], rows[4096:]):
        LLMPool(ONE, together).annotate(part)
    assert {each.request_hash for each in engine.asked} == {each.request_hash for each in together.asked}


def test_the_identity_names_what_verdicts_depend_on_and_changes_with_it():
    def identity(panel: Panel = POOL, **settings: Any) -> Mapping[str, object]:
        return LLMPool(panel, ScriptedEngine("x"), **settings).identity

    assert identity() == identity(load_panel("alpaca-farm-13", ["l", "m", "s"]))
    others = [
        identity(EVALUATION),
        identity(load_panel("alpaca-farm-13", ["l", "m", "t"])),
        identity(replace(POOL, order="both")),
        identity(draws=ContentDraws(1)),
        identity(sample=1),
    ]
    assert all(other != identity() for other in others)


def test_what_an_engine_learns_on_the_way_is_no_part_of_the_identity():
    class Learning(RuleEngine):
        @property
        def identity(self) -> Mapping[str, object]:
            return {"engine": "rule", "learned": len(self.asked)}

    pool = LLMPool(single(), Learning(prefers_good))
    before = pool.identity
    pool.annotate(pairs(3))
    assert pool.identity == before


def test_progress_ends_at_all():
    seen: list[tuple[int, int]] = []
    LLMPool(ONE, RuleEngine(prefers_good), progress=lambda done, total, **_: seen.append((done, total))).annotate(
        pairs(12)
    )
    assert seen[-1] == (12, 12)


PROGRAM = """
import hashlib
from pasture.annotate.panel import load_panel
from pasture.annotate.pool import LLMPool
from pasture.engines.scripted import ScriptedEngine
from tests.annotate.judging import pairs, prefers_good
pool = LLMPool(load_panel("alpaca-farm-13", ["l", "m", "s"]), ScriptedEngine(prefers_good))
text = "".join(p.to_json() for p in pool.annotate(pairs(300)))
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_three_fresh_processes_write_the_same_preferences():
    digests = set()
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
