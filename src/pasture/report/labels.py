"""Text in figures: one line, cut to what a drawing has room for."""

from pasture.core.hostile import on_one_line, shortened

LABEL_CHARACTERS = 26


def on_label(text: str, limit: int = LABEL_CHARACTERS) -> str:
    """The beginning of `text` on one line."""
    return shortened(on_one_line(shortened(text, 10 * limit)), limit)
