"""What is quoted before anybody is asked counts what will be asked."""

from pathlib import Path

from pasture.annotate.panel import load_panel
from pasture.annotate.stored import Access, StoredPool
from pasture.core.records import Comparison, Completion, Instruction
from pasture.core.store import AnswerStore
from pasture.engines.cached import stored_under
from pasture.engines.scripted import ScriptedEngine
from pasture.engines.settings import store_salt


def compared(text: str) -> Comparison:
    asked = Instruction(id=text, instruction=text, source="test", split="test")
    first, second = (Completion(instruction_id=text, text=side, system=side, seed=0) for side in ("a", "b"))
    return Comparison.of(asked, first, second)


def test_a_failure_that_will_be_asked_about_again_is_quoted_as_unpaid(tmp_path: Path) -> None:
    comparisons = [compared(text) for text in ("one", "two", "three")]
    panel, access = load_panel("alpaca-eval-2", ["judge"]), Access(store=tmp_path / "answers.sqlite")
    once, again = (StoredPool(panel, access, retry_unjudged=retry) for retry in (False, True))
    salt = store_salt(once._checked)
    with AnswerStore(access.store) as store:
        for request, failed in zip(once._asking(ScriptedEngine("")).requests(comparisons), (True, False), strict=False):
            store.put(stored_under(request, salt), "{}", "{}", failed=failed).result()
    # Of three calls one failed, one was answered, and one was never asked.
    assert (once.quote(comparisons).calls, once.quote(comparisons).stored) == (3, 2)
    assert again.quote(comparisons).stored == 1
