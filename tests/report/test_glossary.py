"""A page ends with the words that it uses, and with no others."""

from pasture.report import page
from pasture.report.content import Fact, Leaderboard, ReportContent
from pasture.report.glossary import words_of
from pasture.report.summary import MEADOW
from tests.report.loop_numbers import content, samples, win_rate

NOBODY: dict[str, str] = {}


def test_words_are_found_where_they_stand_alone() -> None:
    html = "<p>KL in nats; 3.1 Points, p = 0.02</p><h4 title='entropy'>SFT</h4>"
    assert list(words_of(html, NOBODY, {"sft", "ppo"}, meadow=False)) == ["sft", "points", "p", "nats", "KL"]
    assert words_of("<p>appoints a klaxon, P, senate</p>", NOBODY, (), meadow=False) == {}


def test_what_answers_titles_and_recipes_say_is_not_the_pages_own() -> None:
    html = "<title>KL</title><h1>KL</h1><pre class='recipe'>KL</pre>"
    html += '<div class="said" dir="auto">KL</div><div class="asked" dir="auto">KL</div>'
    assert words_of(html, NOBODY, (), meadow=False) == {}


def test_a_name_is_explained_only_where_it_is_what_we_know_by_it() -> None:
    html = "<p>base of chat and drills, by mine</p>"
    assert words_of(html, NOBODY, (), meadow=False) == {}
    assert list(words_of(html, NOBODY, {"base"}, meadow=True)) == ["base", "chat", "drills"]
    own = {"mine": "A method of this recipe's own.", "base": "Something else."}
    assert words_of(html, own, {"base"}, meadow=False) == own


def test_the_page_lists_its_words_and_shows_them_where_the_mouse_rests() -> None:
    html = page.render(content())
    assert '<a href="#words">' in html
    assert "<dt>ppo</dt><dd>Proximal policy optimization" in html
    assert 'title="Proximal policy optimization' in html
    assert "<dt>rloo</dt>" not in html
    assert MEADOW in html
    plain = page.render(ReportContent(title="t", samples=samples()[:1]))
    assert "Words on this page" not in plain


def test_a_word_of_the_runs_own_wins_and_stays_text() -> None:
    board = Leaderboard(title="people", rows=(win_rate("ppo", 0.5, "people"),))
    word = Fact(name="ppo", value='"<b>mine</b>"')
    html = page.render(ReportContent(title="t", leaderboards=(board,), words=(word,)))
    assert "<dd>&#34;&lt;b&gt;mine&lt;/b&gt;&#34;</dd>" in html
    assert 'title="&#34;&lt;b&gt;mine&lt;/b&gt;&#34;"' in html
