"""Small campaigns for the tests, and people who answer in them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.acts import Ballot
from pasture.annotate.campaign.desk import Desk, begin
from pasture.annotate.campaign.events import Event, Opened, PairAdded, Said, Settings
from pasture.annotate.campaign.journal import SqliteJournal
from pasture.annotate.campaign.making import Expected
from pasture.annotate.campaign.state import Campaign, Item
from pasture.core.records import Comparison, Completion, Instruction

SYSTEMS = ("secret-system-alpha", "secret-system-beta")


def comparison(number: int, instruction: str = "", first: str = "", second: str = "") -> Comparison:
    identity = f"i{number:04}"
    asked = Instruction(
        id=identity, instruction=instruction or f"Say the number {number}.", input="", source="tests", split="work"
    )
    sides = [
        Completion(instruction_id=identity, text=text, system=system, seed=0)
        for text, system in zip((first or f"It is {number}.", second or f"Perhaps {number}?"), SYSTEMS, strict=True)
    ]
    return Comparison.of(asked, *sides)


def opening_events(
    pairs: int = 6,
    annotators: Sequence[str] = ("ann", "ben", "cy"),
    *,
    gold: int = 0,
    qualification: int = 0,
    secret: str = "s" * 64,
    **settings: object,
) -> list[Event]:
    """The known answer of every gold and qualification pair is its first."""
    opened = Opened(
        name="tests",
        identity="0123456789abcdef",
        secret=secret,
        annotators=tuple(annotators),
        settings=Settings.model_validate(settings),
    )
    known: Expected = "first"
    return [
        opened,
        *(PairAdded(comparison=comparison(number)) for number in range(pairs)),
        *(PairAdded(comparison=comparison(1000 + n), role="gold", expected=known) for n in range(gold)),
        *(
            PairAdded(comparison=comparison(2000 + n), role="qualification", expected=known)
            for n in range(qualification)
        ),
    ]


def make(*args: object, **kwargs: object) -> Campaign:
    return Campaign.replayed(opening_events(*args, **kwargs))  # type: ignore[arg-type]


def new_desk(path: Path, *args: object, **kwargs: object) -> Desk:
    journal = SqliteJournal(path, create=True)
    begin(journal, opening_events(*args, **kwargs))  # type: ignore[arg-type]
    return Desk(journal)


def do(campaign: Campaign, events: Sequence[Event]) -> None:
    for event in events:
        campaign.apply(event)


def answer(campaign: Campaign, name: str, said: Said = "first", **more: object) -> Item:
    """Answer the item before an annotator; `said` is of the places on the page."""
    item = campaign.current(name)
    assert item is not None
    do(campaign, acts.vote(campaign, name, ballot(campaign, name, said, **more)))
    return item


def ballot(campaign: Campaign, name: str, said: Said = "first", **more: object) -> Ballot:
    item = campaign.current(name)
    assert item is not None
    return Ballot(item.id, campaign.annotators[name].turn, said, **more)  # type: ignore[arg-type]


def label_all(campaign: Campaign, names: Sequence[str], says: Callable[[str, Item], Said] = lambda *_: "first") -> int:
    """Have annotators answer in turn until none of them has anything left; the number of answers."""
    count = 0
    while any(campaign.current(name) for name in names):
        for name in names:
            item = campaign.current(name)
            if item is not None:
                answer(campaign, name, says(name, item))
                count += 1
    return count


def truly(expected: str) -> Callable[[str, Item], Said]:
    """Someone who always prefers the comparison's own first (or second), wherever it is shown."""

    def says(name: str, item: Item) -> Said:
        return "first" if item.shown_first == expected else "second"

    return says
