"""Answers as HTML: laid out, harmless twice over, nothing of them hidden."""

import pytest
from markdown_it import MarkdownIt

from pasture.annotate.page import prose
from pasture.annotate.page.prose import LONGEST_MARKDOWN, as_html
from tests.annotate.people.hostile import HOSTILE, harmless


def test_markdown_is_laid_out_and_headings_stand_below_the_pages() -> None:
    made = as_html("# Bread\n\n3. *mix*\n4. **bake**\n\n|a|b|\n|-|-|\n|1|2|", markdown=True)
    for part in ("<h3>Bread</h3>", '<ol dir="auto" start="3">', "<em>mix</em>", "<strong>bake</strong>", "<td>2</td>"):
        assert part in made


def test_single_line_breaks_stay_and_indented_verse_is_no_code() -> None:
    made = as_html("one\ntwo\n\n    three", markdown=True)
    assert "one<br>" in made
    assert "<code>" not in made


@pytest.mark.parametrize(
    "text", ["![x](http://a.b/c.png)", "[x](http://a.b/)", "<http://a.b/>", "<b>bold</b>", "[1]: x"]
)
def test_links_images_and_html_stay_the_text_that_they_are(text: str) -> None:
    made = as_html(text, markdown=True)
    assert made == f'<div class="laid-out"><p>{text.replace("<", "&lt;").replace(">", "&gt;")}</p>\n</div>'


def test_plain_text_is_shown_to_the_letter() -> None:
    made = as_html("# a\n  <b> *c*", markdown=False)
    assert made == '<div class="plain"># a\n  &lt;b&gt; *c*</div>'


def test_what_is_too_long_to_lay_out_is_shown_as_written() -> None:
    assert as_html("*a* " * LONGEST_MARKDOWN, markdown=True).startswith('<div class="plain">*a*')


@pytest.mark.parametrize("text", HOSTILE)
def test_were_the_parser_to_let_html_pass_it_would_be_cleaned_away(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "_parser", lambda: MarkdownIt("commonmark", {"html": True}))
    prose._laid_out.cache_clear()
    harmless(f"<body>{prose._laid_out(text)}</main>")
    prose._laid_out.cache_clear()


def test_lists_tables_and_quotations_stand_on_the_side_on_which_their_text_begins() -> None:
    page = as_html("- \u0639\u0646\u0635\u0631\n\n> \u0639\n\n| \u0639 |\n|---|\n| 1 |", markdown=True)
    for tag in ("ul", "blockquote", "table"):
        assert f'<{tag} dir="auto">' in page
