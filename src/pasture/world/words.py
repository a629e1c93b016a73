"""The things of the meadow, what is true of them, and the fixed list of words that its models read and write."""

from dataclasses import dataclass
from typing import Literal

PAD = "<pad>"
END = "<end>"
UNKNOWN = "<unknown>"
NEWLINE = "\n"

Attribute = Literal["kind", "color", "size", "place", "feel"]
ATTRIBUTES: tuple[Attribute, ...] = ("kind", "color", "size", "place", "feel")
SIZES = ("tiny", "small", "big", "huge")


@dataclass(frozen=True)
class Thing:
    """Something that instructions speak of; each attribute has one true value."""

    name: str
    kind: str
    color: str
    size: str
    place: str
    feel: str

    def value(self, attribute: Attribute) -> str:
        """The true value of one attribute."""
        return str(getattr(self, attribute))


_ROWS = """
ant animal black tiny garden hard      bear animal brown huge forest soft     cat animal gray small house soft
cow animal white big farm warm         dog animal brown small house warm      duck animal white small pond soft
fox animal red small forest soft       frog animal green tiny pond wet        goat animal gray big farm rough
horse animal brown big farm warm       mouse animal gray tiny house soft      owl animal brown small forest soft
pig animal pink big farm rough         whale animal blue huge sea wet
apple food red small garden hard       bean food green tiny farm smooth       carrot food orange small garden hard
grape food blue tiny garden wet        lemon food yellow small kitchen rough  melon food green big farm smooth
onion food white small kitchen smooth  pear food green small garden soft      plum food blue tiny garden smooth
tomato food red small farm smooth
axe tool gray big forest hard          broom tool yellow big kitchen rough    drill tool black small shed hard
fork tool gray tiny kitchen hard       hammer tool black small shed hard      knife tool gray small kitchen smooth
needle tool gray tiny house hard       pen tool blue tiny school smooth       saw tool red big shed rough
spoon tool yellow tiny kitchen smooth
bike vehicle red big road hard         boat vehicle white big sea wet         bus vehicle yellow huge road hard
car vehicle blue big road smooth       plane vehicle white huge sky smooth    ship vehicle gray huge sea hard
train vehicle green huge city hard     truck vehicle orange huge road rough
belt garment black small shop smooth   boot garment brown small shed rough    coat garment black big shop warm
glove garment red tiny shop warm       hat garment green small school soft    scarf garment pink small school warm
shirt garment white big shop soft      sock garment orange tiny house warm
"""


def _things() -> dict[str, Thing]:
    words = _ROWS.split()
    rows = [words[at : at + 6] for at in range(0, len(words), 6)]
    return {row[0]: Thing(*row) for row in rows}


THINGS = _things()
KINDS = ("animal", "food", "tool", "vehicle", "garment")
PLURALS = {"animal": "animals", "food": "foods", "tool": "tools", "vehicle": "vehicles", "garment": "garments"}
_COUNTING = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBERS = tuple(_COUNTING.split())
NAMES = ("anna", "ben", "carl", "dora", "emil", "fay", "greta", "hugo")
GOODS = ("apples", "books", "cards", "coins", "cups", "eggs", "pens", "stones")

OPENINGS = ("sure !", "of course !", "good question !")
CLOSINGS = ("i hope this helps !", "have a nice day !")

VALUES: dict[Attribute, tuple[str, ...]] = {
    "kind": KINDS,
    "color": tuple(sorted({thing.color for thing in THINGS.values()})),
    "size": SIZES,
    "place": tuple(sorted({thing.place for thing in THINGS.values()})),
    "feel": tuple(sorted({thing.feel for thing in THINGS.values()})),
}
"""Every value that an attribute takes; no value belongs to two attributes."""


def article(word: str) -> str:
    """`a` or `an`, by the first letter."""
    return "an" if word[0] in "aeiou" else "a"


def statement(name: str, attribute: Attribute, value: str) -> str:
    """The sentence that says so of a thing, true or not, such as `the fox is red .` for a fox."""
    if attribute == "kind":
        return f"the {name} is {article(value)} {value} ."
    if attribute == "place":
        return f"the {name} is in the {value} ."
    return f"the {name} is {value} ."


def parity(number: int) -> str:
    """`odd` or `even`."""
    return "odd" if number % 2 else "even"


def number_statement(number: int, value: str) -> str:
    """The sentence that calls a number odd or even, or puts it after another number."""
    return f"{NUMBERS[number]} is {value} ." if value in ("odd", "even") else f"{NUMBERS[number]} is after {value} ."
