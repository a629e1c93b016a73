"""Text that others wrote, made fit to be shown: whatever it holds, it moves no cursor and starts no formula.

HTML escaping is not done here; the page's templates escape everything. Text that passes through rich needs
`rich.text.Text`, which reads no markup.
"""

import re

_UNSEEN_CLASS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls, escape among them; tab and line feed stay
    "\xad\u061c\u180e\u200b\u200e\u200f\u2060-\u2065\ufeff"  # soft hyphen, directional marks, zero-width spaces
    "\u2028-\u202e\u2066-\u206f"  # line separators, directional embeddings, overrides and isolates
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # interlinear annotations, tags
    "\ud800-\udfff"  # lone surrogates, which UTF-8 cannot carry
)
"""Characters that change how the rest is shown, or show nothing. The joiners U+200C and U+200D stay: scripts need
them."""
_UNSEEN = re.compile(f"[{_UNSEEN_CLASS}]")

_FORMULA_START = re.compile(rf"[\s'\"{_UNSEEN_CLASS}]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""What spreadsheets take for the start of a formula, their full-width forms included (OWASP, "CSV Injection"), also
behind what shows nothing."""


def for_terminal(text: str) -> str:
    """`text` with every control and directional character spelled out; line feeds and tabs stay.

    A C0 control becomes its picture (escape is "␛"), any other such character "<U+202E>".
    """
    return _UNSEEN.sub(_spelled_out, text.replace("\r\n", "\n"))


def on_one_line(text: str) -> str:
    """`for_terminal(text)` with line feeds shown as "⏎" and tabs as spaces, for the cell of a table."""
    return for_terminal(text).replace("\n", "⏎").replace("\t", " ")


def for_csv(text: str) -> str:
    """`for_terminal(disarmed(text))`, for a table that is made to be looked at.

    Give numbers to the CSV writer as numbers: a minus sign is a formula's start too.
    """
    return for_terminal(disarmed(text))


def disarmed(text: str) -> str:
    """`text` letter for letter, with an apostrophe in front where a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA_START.match(text) else text


def shortened(text: str, limit: int) -> str:
    """The first characters of `text`, `limit` at most; where something was cut off, the last one is "…"."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def _spelled_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"<U+{code:04X}>"
