"""A limit holds for all who share a ledger: steps one after the other, processes side by side, tries after a kill."""

import asyncio
import multiprocessing
from pathlib import Path

import pytest

from pasture.core.errors import BudgetError, RunFolderError
from pasture.engines.budget import Booking, Budget, Ledger


def on(folder: Path, limit_usd: float, pool: str = "judges") -> Budget:
    return Budget(limit_usd, Ledger(folder / "spent", pool))


def pay(budget: Budget, worst_usd: float, cost_usd: float | None, *, uncertain: bool = False) -> None:
    """What an engine does around one call."""
    asyncio.run(budget.reserve(worst_usd))
    budget.settle(worst_usd, cost_usd, uncertain=uncertain)


def test_two_budgets_on_one_ledger_see_each_other(tmp_path: Path) -> None:
    here, there = on(tmp_path, 10.0), on(tmp_path, 10.0)
    pay(here, 4.0, 3.0)
    pay(there, 4.0, 4.0)
    # By hand: 3 + 4 are spent, so that 3 are left for either.
    with pytest.raises(BudgetError, match=r"limit of \$10\.0000 .* this run has spent \$7\.0000 of pool 'judges'"):
        pay(here, 3.5, 1.0)
    pay(there, 3.0, 3.0)
    pay(here, 0.0, 0.0)
    assert (here.spent_usd, there.spent_usd) == (10.0, 10.0)


def test_a_budget_goes_on_from_what_its_ledger_holds(tmp_path: Path) -> None:
    first = on(tmp_path, 10.0)
    pay(first, 4.0, 3.5)
    pay(first, 4.0, None, uncertain=True)
    again = on(tmp_path, 10.0)
    # 3.5 billed, and 4 that may have been.
    said = r"spent \$3\.5000 and perhaps \$4\.0000 for calls that broke off of pool 'judges' \(.*spent/judges\.jsonl\)"
    with pytest.raises(BudgetError, match=said):
        pay(again, 3.0, 1.0)
    pay(again, 2.5, 2.5)


def test_what_to_raise_is_named(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"raise max_usd of \[pools\.judges\] and run again"):
        pay(on(tmp_path, 1.0), 2.0, 2.0)
    with pytest.raises(BudgetError, match="raise the limit and run again"):
        pay(Budget(1.0), 2.0, 2.0)


def test_pools_have_ledgers_of_their_own_whatever_they_are_called(tmp_path: Path) -> None:
    names = ("judges", "gpt-4.1", "../../judges", "a/b", "..")
    for name in names:
        pay(on(tmp_path, 1.0, name), 1.0, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["spent"]
    assert len(list((tmp_path / "spent").iterdir())) == len(names)


def test_what_costs_nothing_is_not_written_down(tmp_path: Path) -> None:
    budget = on(tmp_path, 1.0)
    pay(budget, 1.0, 0.0)
    pay(budget, 1.0, None)
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_of_a_killed_process_is_taken_away_by_the_next(tmp_path: Path) -> None:
    pay(on(tmp_path, 10.0), 1.0, 1.0)
    ledger = tmp_path / "spent" / "judges.jsonl"
    with ledger.open("ab") as file:
        file.write(b'{"spent_u')
    again = on(tmp_path, 10.0)
    pay(again, 2.0, 2.0)
    assert again.spent_usd == 3.0
    assert ledger.read_bytes() == b'{"spent_usd":1.0}\n{"spent_usd":2.0}\n'


def test_a_line_that_is_no_booking_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    pay(on(tmp_path, 10.0), 1.0, 1.0)
    with (tmp_path / "spent" / "judges.jsonl").open("ab") as file:
        file.write(b'{"spent_usd":Infinity}\n')
    budget = on(tmp_path, 10.0)
    for _ in range(2):
        with pytest.raises(RunFolderError, match=r"judges\.jsonl: expected .*Infinity.*Mend or remove the line"):
            pay(budget, 1.0, 1.0)


def test_a_ledger_that_is_begun_anew_counts_from_nothing(tmp_path: Path) -> None:
    budget = on(tmp_path, 10.0)
    pay(budget, 9.0, 9.0)
    pay(budget, 1.0, 0.5)
    (tmp_path / "spent" / "judges.jsonl").write_bytes(b'{"spent_usd":0.25}\n')
    pay(budget, 9.0, 9.0)
    assert budget.spent_usd == 9.25


def test_what_cannot_be_written_stops_the_next_call_and_is_written_later(tmp_path: Path) -> None:
    budget = on(tmp_path, 10.0)
    for _ in range(2):
        asyncio.run(budget.reserve(1.0))
    (tmp_path / "spent").write_text("in the way")
    for cost_usd in (0.5, 0.75):
        budget.settle(1.0, cost_usd)  # the answer is paid for, and is not to be lost
    with pytest.raises(RunFolderError, match=r"cannot write .*judges\.jsonl"):
        asyncio.run(budget.reserve(1.0))
    (tmp_path / "spent").unlink()
    pay(budget, 1.0, 0.25)
    assert on_disk(tmp_path) == [Booking(spent_usd=cost_usd) for cost_usd in (0.5, 0.75, 0.25)]


def on_disk(folder: Path) -> list[Booking]:
    lines = (folder / "spent" / "judges.jsonl").read_text().splitlines()
    return [Booking.model_validate_json(line) for line in lines]


def test_one_that_waits_for_a_call_in_flight_hears_what_others_spent_meanwhile(tmp_path: Path) -> None:
    here, there = on(tmp_path, 10.0), on(tmp_path, 10.0)

    async def waiting() -> None:
        await here.reserve(8.0)
        waiter = asyncio.create_task(here.reserve(5.0))
        await asyncio.sleep(0)
        there.settle(0.0, 6.0)
        here.settle(8.0, 0.0)
        await waiter

    with pytest.raises(BudgetError, match=r"spent \$6\.0000"):
        asyncio.run(waiting())


def _book_many(folder: Path) -> None:
    ledger = Ledger(folder / "spent", "judges")
    for _ in range(250):
        ledger.book(Booking(spent_usd=0.25))


def test_processes_that_book_at_once_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_book_many, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    budget = on(tmp_path, 250.0)
    # 4 processes, 250 calls of a quarter: 250 dollars.
    with pytest.raises(BudgetError, match=r"spent \$250\.0000"):
        pay(budget, 0.25, 0.25)
    assert on_disk(tmp_path) == [Booking(spent_usd=0.25)] * 1000
