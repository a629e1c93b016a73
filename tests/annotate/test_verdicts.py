import math

import pytest

from pasture.annotate.verdicts import Reading, Readings, read_json, read_letters, read_ranking, read_token
from pasture.core.errors import JudgeReplyError
from pasture.core.requests import Reply, TokenLogprob

# Every expected verdict was set by hand, by what a fair reader would accept as one plain verdict; None is unjudged.

ONE_BY_LETTER = [
    ("Answer (a)", "a"),
    ("Answer (b)", "b"),
    ("(a)", "a"),
    (" (b)", "b"),
    ("\n\n(b)\n", "b"),
    ("answer (A)", "a"),
    ("ANSWER (B).", "b"),
    ("Output (a)", "a"),
    ("**Answer (b)**", "b"),
    ("- Answer (a)", "a"),
    ("Verdict: (b)", "b"),
    ("The better answer is (a).", "a"),
    ("Better: (b)", "b"),
    ("**Better answer:** (b)", "b"),
    ("Pair 1: answer (a)", "a"),
    ("Answer (a). Answer (b) names the wrong town.", "a"),
    ("Answer (b): (a) forgets the half hour.", "b"),
    ("Answer (a) because (b) is wrong", "a"),
    ("Answer (a) — it is shorter than (b)", "a"),
    ("(b) is better", "b"),
    ("Answer (b)\n\nI chose it since answer (a) is rude.", "b"),
    ("Answer (a)\nAnswer (a)", "a"),
    ("(a)\n(b) is longer, and no better.", "a"),
    ("Answer (a) because it is right.\nAnswer (b) names the wrong town.", "a"),
    ("The better answer is (a). It is right.\nAnswer (b) names the wrong town.", "a"),
    ("Pair 1: answer (a). It is right.\nAnswer (b) names the wrong town.", "a"),
    ("(a) is better.\nAnswer (b) names the wrong town.", "a"),
    ("Answer (a): it is right.\nIt is shorter too.", "a"),
    ("Let me think.\nOne is wrong.\nAnswer (b)", "b"),
    # No verdict, or no plain one.
    ("Answer (a): says that Paris is in Spain.\nAnswer (b) is right on every point, so it wins.", None),
    ("(a). Clear, but it ignores the question.\nI prefer answer (b).", None),
    ("Output (a) - too long and off topic.\nThe better one, by far, is (b).", None),
    ("", None),
    ("   \n", None),
    ("a", None),
    ("Both are good.", None),
    ("Answer (a) and (b)", None),
    ("(a)/(b)", None),
    ("(a), (b)", None),
    ("(a). (b).", None),
    ("(a); and (b).", None),
    ("Neither.", None),
    ("Answer (c)", None),
    ("Answer (a)\nAnswer (b)", None),
    ("Answer (a)? No.", None),
    ("not (a)", None),
    ("I think (a) is better than (b)", None),
    ("(a) is better formatted but (b) is right", None),
    ("> Answer (b)", None),
    ("The text says 'Answer (b)', which I ignore.", None),
    ("I'm sorry, but I cannot help with that.", None),
    ("As an AI, I have no preferences (a)", None),
    ("tie", None),
    ("It is a tie", None),
    ("Pair 2: answer (a)", None),
]


@pytest.mark.parametrize(("text", "better"), ONE_BY_LETTER)
def test_letters_are_read_strictly(text, better):
    reading = read_letters(text, 1)[1]
    assert (reading.better if isinstance(reading, Reading) else None) == better


MANY_BY_LETTER = [
    ("Pair 1: answer (a)\nPair 2: answer (b)\nPair 3: answer (a)", "aba"),
    ("pair 1 (a)\nPair 2. (b)\n**Pair 3:** Answer (a)", "aba"),
    ("Pair 3: answer (b)\nPair 1: answer (a)\nPair 2: answer (a)", "aab"),
    ("Pair 1: answer (a). It is shorter.\nPair 2: answer (b). So is it.\nPair 3: (a)", "aba"),
    ("Pair 1: answer (a)\nPair 3: answer (b)", "a-b"),
    ("Pair 1: answer (a)\nPair 2: both\nPair 3: answer (b)", "a-b"),
    ("Pair 1: answer (a)\nPair 1: answer (b)\nPair 2: answer (b)\nPair 3: answer (b)", "-bb"),
    ("Pair 1: answer (a)\nPair 2: answer (b)\nPair 3: answer (a)\nPair 4: answer (a)", "---"),
    ("Answer (a)\nPair 1: answer (a)\nPair 2: answer (b)\nPair 3: answer (a)", "---"),
    ("Pair 0: (a)\nPair 1: (a)\nPair 2: (a)\nPair 3: (a)", "---"),
    ("", "---"),
]


def _signs(readings: Readings) -> str:
    return "".join(r.better if isinstance(r, Reading) else "-" for _, r in sorted(readings.items()))


@pytest.mark.parametrize(("text", "signs"), MANY_BY_LETTER)
def test_numbered_letters_cost_only_the_pair_that_has_none(text, signs):
    assert _signs(read_letters(text, 3)) == signs


ONE_BY_JSON = [
    ('{"reason": "shorter", "better": "a"}', "a"),
    ('```json\n{"reason": "shorter", "better": "b"}\n```', "b"),
    ('```\n{"better": "b"}\n```', "b"),
    ('Answer (a) errs.\n{"better": "b"}', "b"),
    ('Here it is: {"better": "b"}', "b"),
    ('{"better": "a"}\nI hope this helps!', "a"),
    ('{\n  "reason": "he wrote {\\"better\\": \\"b\\"}",\n  "better": "a"\n}', "a"),
    ('{"better": "a"} {"better": "a"}', "a"),
    ('{"verdicts": [{"pair": 1, "better": "a"}]}', "a"),
    ('{"reason": "x", "better": "A"}', None),
    ('{"reason": "x", "better": "both"}', None),
    ('{"reason": "x", "better": true}', None),
    ('{"reason": "x", "better": ["a"]}', None),
    ('{"reason": "x"}', None),
    ('{"better": "a", "better": "b"}', None),
    ('{"better": "a"}\n{"better": "b"}', None),
    ('Answer (a) holds {"better": "b"}, which tries to', None),
    ('{"reason": "cut off before the verd', None),
    ('{"analysis": {"better": "b"}}', None),
    ("{'better': 'a'}", None),
    ('{"pair": 1.0, "better": "a"}', None),
    ('{"pair": 2, "better": "a"}', None),
    ("[]", None),
    ("null", None),
    ("I cannot judge this.", None),
    ("{" * 5000, None),
    ("[" * 100_000, None),
]


@pytest.mark.parametrize(("text", "better"), ONE_BY_JSON)
def test_json_is_read_strictly(text, better):
    reading = read_json(text, 1)[1]
    assert (reading.better if isinstance(reading, Reading) else None) == better


MANY_BY_JSON = [
    ('{"verdicts": [{"pair": 1, "better": "a"}, {"pair": 2, "better": "b"}, {"pair": 3, "better": "a"}]}', "aba"),
    ('{"verdicts": [{"pair": 3, "better": "a"}, {"pair": 1, "better": "b"}]}', "b-a"),
    ('{"verdicts": [{"pair": 1, "better": "a"}, {"pair": 2, "better": "?"}, {"pair": 3, "better": "a"}]}', "a-a"),
    ('{"verdicts": [{"pair": 1, "better": "a"}, {"pair": 1, "better": "b"}, {"pair": 3, "better": "a"}]}', "--a"),
    ('{"verdicts": [{"better": "a"}, {"better": "b"}, {"better": "a"}]}', "---"),
    ('{"verdicts": {"pair": 1, "better": "a"}}', "---"),
    ('{"verdicts": ["a", "b", "a"]}', "---"),
]


@pytest.mark.parametrize(("text", "signs"), MANY_BY_JSON)
def test_json_verdicts_cost_only_the_pair_that_has_none(text, signs):
    assert _signs(read_json(text, 3)) == signs


def test_the_reason_is_kept_as_evidence():
    reading = read_json('{"reason": "shorter", "better": "a"}', 1)[1]
    assert isinstance(reading, Reading)
    assert reading.evidence == {"reason": "shorter"}


def test_a_tie_counts_only_where_it_was_offered():
    assert read_letters("tie", 1, ties=True)[1] == Reading("tie")
    assert read_json('{"better": "tie"}', 1, ties=True)[1] == Reading("tie")
    assert "tie" in str(read_json('{"better": "tie"}', 1)[1])


RANKINGS = [
    ("[{'model': 'm', 'rank': 1}, {'model': 'M', 'rank': 2}]", "a"),
    ("[{'model': 'M', 'rank': 1}, {'model': 'm', 'rank': 2}]", "b"),
    ('```json\n[{"model": "M", "rank": 1}, {"model": "m", "rank": 2}]\n```', "b"),
    ("Sure:\n[\n {'model': 'm', 'rank': 1},\n {'model': 'M', 'rank': 2}\n]", "a"),
    ('[{"model": "m", "rank": 1}, {"model": "M", "rank": 1}]', "tie"),
    ("[{'model': 'm', 'rank': 1}]", None),
    ("[{'model': 'm', 'rank': 1}, {'model': 'm', 'rank': 2}]", None),
    ("[{'model': 'm', 'rank': 1}, {'model': 'x', 'rank': 2}]", None),
    ("[{'model': 'm', 'rank': '1'}, {'model': 'M', 'rank': '2'}]", None),
    ("[{'model': 'm', 'rank': 3}, {'model': 'M', 'rank': 2}]", None),
    ("[{'model': 'm', 'rank': True}, {'model': 'M', 'rank': 2}]", None),
    ("[__import__('os').getcwd()]", None),
    ("m", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "better"), RANKINGS)
def test_rankings_are_read_strictly_and_never_evaluated(text, better):
    if better is None:
        with pytest.raises(JudgeReplyError):
            read_ranking(text, ("m", "M"))
    else:
        assert read_ranking(text, ("m", "M")).better == better


def _token_reply(*top: tuple[str, float]) -> Reply:
    return Reply(text="m", logprobs=(TokenLogprob(token="m", logprob=top[0][1] if top else -1.0, top=top),))


def test_a_token_gives_the_share_of_the_two_names():
    # 0.6 / (0.6 + 0.2) by hand; 'x' and ' m' take no part.
    reply = _token_reply(("m", math.log(0.6)), ("M", math.log(0.2)), ("x", math.log(0.1)), (" m", math.log(0.1)))
    reading = read_token(reply, ("m", "M"))
    assert reading.better == "a"
    assert reading.probability_a == pytest.approx(0.75, abs=1e-12)


def test_tokens_that_spell_the_same_name_are_added_up():
    reply = _token_reply(("M", math.log(0.3)), ("m", math.log(0.2)), ("m", math.log(0.2)))
    assert read_token(reply, ("m", "M")).probability_a == pytest.approx(4 / 7, abs=1e-12)


def test_a_name_that_is_missing_has_probability_nothing():
    assert read_token(_token_reply(("M", -0.1), ("x", -3.0)), ("m", "M")).probability_a == 0.0


def test_equal_probabilities_are_a_tie():
    assert read_token(_token_reply(("M", -0.7), ("m", -0.7)), ("m", "M")).better == "tie"


def test_log_probabilities_far_below_zero_still_give_a_share():
    reply = _token_reply(("m", -2000.0), ("M", -2001.0))
    assert read_token(reply, ("m", "M")).probability_a == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-12)


@pytest.mark.parametrize(
    "reply", [Reply(text="m"), Reply(text="m", logprobs=()), _token_reply(("x", -0.1), ("y", -2.0))]
)
def test_a_token_reply_without_either_name_is_no_verdict(reply):
    with pytest.raises(JudgeReplyError):
        read_token(reply, ("m", "M"))


def test_an_error_quotes_the_reply_briefly_and_on_one_line():
    message = read_letters("Both\n" * 500, 1)[1]
    assert isinstance(message, str)
    assert len(message) < 200
    assert "\n" not in message
