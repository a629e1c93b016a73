"""Texts of models and people as HTML that can do nothing but be read."""

import re
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from pasture.core.hostile import for_terminal

LONGEST_MARKDOWN = 12_000
"""Characters. Longer texts are shown as they are written: laying them out could take seconds."""
_TAGS = {
    "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "h3", "h4", "h5", "h6",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
_HEADING_SHIFT = 2
"""An answer's own headings stand below the page's: its h1 becomes h3."""


def as_html(text: str, *, markdown: bool) -> Markup:
    """`text` laid out as Markdown, or as it is written.

    Links, images and raw HTML stay the text that they are: nothing on the page leads elsewhere or loads anything.
    Characters that would change how the rest is shown are spelled out.
    """
    if not markdown or len(text) > LONGEST_MARKDOWN:
        return Markup('<div class="plain">{}</div>').format(escape(for_terminal(text)))
    return _laid_out(text)


@lru_cache(maxsize=4096)
def _laid_out(text: str) -> Markup:
    parser = _parser()
    tokens = parser.parse(for_terminal(text))
    made = parser.renderer.render(_lowered(tokens), parser.options, {})
    safe = nh3.clean(made, tags=_TAGS, attributes={"ol": {"start"}}, url_schemes=set(), strip_comments=True)
    # Bullets, columns and bars stand on the side on which the text begins.
    for tag in ("ul", "ol", "table", "blockquote"):
        safe = re.sub(rf"<{tag}(?=[ >])", f'<{tag} dir="auto"', safe)
    # A table or a line of code that is wider than the column scrolls by itself, with the keyboard too.
    for tag in ("table", "pre"):
        safe = re.sub(
            rf"<{tag}(?=[ >])", rf'<div class="wide" tabindex="0" role="group" aria-label="{tag}">\g<0>', safe
        )
        safe = safe.replace(f"</{tag}>", f"</{tag}></div>")
    return Markup(f'<div class="laid-out">{safe}</div>')  # noqa: S704  # nh3 has just cleaned it


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 12})
    parser.enable(["table", "strikethrough"])
    # An indented paragraph of a letter or a poem is no code.
    return parser.disable(["link", "image", "autolink", "reference", "html_block", "html_inline", "code"])


def _lowered(tokens: list[Token]) -> list[Token]:
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _HEADING_SHIFT)}"
    return tokens


def spelled_out(value: Any) -> Any:
    """What every expression of the templates passes through: no character acts, whatever the field."""
    return for_terminal(value) if isinstance(value, str) and not isinstance(value, Markup) else value
