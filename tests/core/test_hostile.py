"""Shown text is inert: no control character survives, no cell starts a formula."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasture.core.hostile import disarmed, for_csv, for_terminal, on_one_line, shortened

ANY_TEXT = st.text(alphabet=st.characters())  # lone surrogates included


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x9b2J", "<U+009B>2J"),  # the one-byte form of escape and bracket
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("over\rwritten\b", "over␍written␈"),
        ("\x7f\x00", "␡␀"),
        ("user\u202etxt.exe", "user<U+202E>txt.exe"),
        ("\u2066a\u2069\u200f\ufeff", "<U+2066>a<U+2069><U+200F><U+FEFF>"),
        ("\U000e0041", "<U+E0041>"),  # a tag letter: unseen by people, read by models
        ("\udc80", "<U+DC80>"),
        ("two\r\nlines\n\tindented", "two\nlines\n\tindented"),
        (scripts := "naïve 日本語 👩\u200d🔬 \u0645\u06cc\u200c\u062e\u0648", scripts),
    ],
)
def test_terminal_text_spells_out_what_would_act(raw: str, shown: str) -> None:
    assert for_terminal(raw) == shown


@given(ANY_TEXT)
def test_terminal_text_holds_no_control_but_line_feed_and_tab(text: str) -> None:
    # unicodedata is the independent list: Cc controls, Cs surrogates, Zl and Zp separators, and every character
    # whose bidirectional class is an embedding, an override, an isolate or their end.
    for character in for_terminal(text):
        if character not in "\n\t":
            assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
            assert unicodedata.bidirectional(character) not in {
                *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
            }


@given(ANY_TEXT)
def test_shown_text_can_be_encoded_and_stays_as_it_is_when_shown_again(text: str) -> None:
    shown = for_terminal(text)
    shown.encode("utf-8")
    assert for_terminal(shown) == shown


@given(ANY_TEXT)
def test_a_cell_is_one_line(text: str) -> None:
    assert len(on_one_line(text).splitlines()) <= 1
    assert "\t" not in on_one_line(text)


@pytest.mark.parametrize(
    "raw",
    [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\uff1d1",
        '"=1',
        "'=1",
        "\u200b=1",
        "\ufeff\u202d-1",
    ],
)
def test_a_formula_in_a_csv_cell_becomes_text(raw: str) -> None:
    assert disarmed(raw) == f"'{raw}"
    assert for_csv(raw).startswith("'")
    assert for_csv(raw).removeprefix("'") == for_terminal(raw)


@pytest.mark.parametrize("raw", ["", "plain", "a=b", "it's - fine", "1+1"])
def test_harmless_csv_text_stays(raw: str) -> None:
    assert for_csv(raw) == raw


@given(ANY_TEXT)
def test_disarmed_text_is_the_text_but_for_one_apostrophe(text: str) -> None:
    assert disarmed(text) in (text, f"'{text}")


def test_a_megabyte_is_shown_as_its_beginning() -> None:
    assert shortened("x" * 1_000_000, 10) == "x" * 9 + "…"


@given(ANY_TEXT, st.integers(1, 50))
def test_shortened_text_never_exceeds_its_limit(text: str, limit: int) -> None:
    assert len(shortened(text, limit)) <= limit
    assert shortened(text, len(text)) == text
