import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import pasture.cli.annotate as verbs
from pasture.annotate import stored
from pasture.annotate.tables import write_rows
from pasture.cli.people_new import Source
from pasture.core.errors import DependencyError, EngineError, PastureError, RecipeError
from pasture.core.tables import read_rows
from tests.annotate.judging import Answering, RuleEngine, prefers_good

app = typer.Typer()
verbs.register(app)

ROWS = [
    {"instruction": f"do {i}", "output_1": "good", "output_2": "bad" if i else "good", "generator_1": "mine"}
    for i in range(8)
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    write_rows(tmp_path / "pairs.jsonl", ROWS)
    return tmp_path


@pytest.fixture
def answered(monkeypatch) -> Callable[[Answering], RuleEngine]:
    """Put an engine that answers by a rule in the place of every service."""

    def use(answering: Answering) -> RuleEngine:
        engine = RuleEngine(answering)

        def opened(kind: str, settings: Any, budget: Any) -> RuleEngine:
            engine.opened = (kind, settings, budget)  # type: ignore[attr-defined]
            return engine

        monkeypatch.setattr(stored, "open_engine", opened)
        return engine

    return use


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


GREEDY = ("--judge", "greedy", "--models", "gpt")


def test_rows_come_out_as_they_went_in_with_preferences(here, answered):
    answered(prefers_good)
    result = run("annotate", "pairs.jsonl", *GREEDY)
    rows = read_rows(here / "pairs.annotated.jsonl")
    assert [{k: row[k] for k in ROWS[0]} for row in rows] == ROWS
    assert [row["preferred"] for row in rows] == ["tie"] + ["first"] * 7
    assert "gpt/long-guideline" in result.output
    assert "Wrote pairs.annotated.jsonl" in result.output


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(here, answered):
    engine = answered(prefers_good)
    run("annotate", "pairs.jsonl", *GREEDY, "--out", "one.jsonl")
    asked = len(engine.asked)
    run("annotate", "pairs.jsonl", *GREEDY, "--out", "two.jsonl")
    assert len(engine.asked) == asked
    assert (here / "one.jsonl").read_bytes() == (here / "two.jsonl").read_bytes()


def test_unjudged_rows_are_kept_and_said_and_asked_about_again_on_request(here, answered):
    answered(lambda _: "Hm.\x1b[2J")
    result = run("annotate", "pairs.jsonl", *GREEDY)
    assert "7 rows are unjudged" in result.output
    assert "\x1b[2J" not in result.output
    answered(prefers_good)
    run("annotate", "pairs.jsonl", *GREEDY)
    assert {row["preferred"] for row in read_rows(here / "pairs.annotated.jsonl")[1:]} == {"unjudged"}
    run("annotate", "pairs.jsonl", *GREEDY, "--retry-unjudged")
    assert {row["preferred"] for row in read_rows(here / "pairs.annotated.jsonl")[1:]} == {"first"}


def test_both_orders_and_flips_are_options(here, answered):
    engine = answered(prefers_good)
    run("annotate", "pairs.jsonl", "--pool", "p-eval", "-m", "a,b,c", "--both-orders")
    assert len({request.request_hash for request in engine.asked}) > 7
    run("annotate", "pairs.jsonl", "--pool", "p-eval", "-m", "a,b,c", "--flip", "0.5", "--out", "noise.jsonl")
    assert all(row["flipped_by_noise"] for row in read_rows(here / "noise.jsonl")[1:])


def test_a_dry_run_counts_and_sends_nothing_and_needs_no_key(here, answered, monkeypatch):
    engine = answered(prefers_good)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run("annotate", "pairs.jsonl", *GREEDY, "--price", "1,2", "--dry-run")
    # 7 pairs that differ, 5 a call.
    assert "8 rows, 2 calls, 0 of them answered before" in result.output
    assert "at most" in result.output
    assert engine.asked == []
    assert not list(here.glob("*.sqlite"))
    run("annotate", "pairs.jsonl", *GREEDY)
    result = run("annotate", "pairs.jsonl", *GREEDY, "--price", "1,2", "--dry-run")
    assert "2 calls, 2 of them answered before" in result.output
    assert "from $0.0000 to $0.0000" in result.output


def test_a_dry_run_says_when_the_price_is_unknown(here, answered):
    answered(prefers_good)
    assert "price is unknown" in run("annotate", "pairs.jsonl", "--judge", "greedy", "-m", "own", "--dry-run").output


def test_what_was_asked_of_the_service_reaches_it(here, answered):
    engine = answered(prefers_good)
    run(
        "annotate", "pairs.jsonl", *GREEDY, "--base-url", "http://localhost:1/v1", "--base-url", "http://localhost:2/v1",
        "--in-flight", "9", "--price", "1,2", "--max-usd", "3",
    )  # fmt: skip
    kind, settings, budget = engine.opened
    assert kind == "api"
    assert [each["base_url"] for each in settings["endpoints"]] == ["http://localhost:1/v1", "http://localhost:2/v1"]
    assert settings["in_flight"] == 9
    assert settings["price"]["output_per_million"] == 2
    assert budget.limit_usd == 3


def test_settings_of_the_engine_reach_it(here, answered):
    engine = answered(prefers_good)
    settings = ("--set", "requests_per_minute=30", "--set", "timeout_seconds=7")
    run("annotate", "pairs.jsonl", *GREEDY, "--in-flight", "3", *settings)
    assert engine.opened[1]["requests_per_minute"] == 30
    assert engine.opened[1]["timeout_seconds"] == 7
    assert engine.opened[1]["in_flight"] == 3


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("local", ["device=cuda", "dtype=bfloat16", "chat_template=chat.jinja"],
         {"folder": "judge", "device": "cuda", "dtype": "bfloat16", "chat_template": "chat.jinja"}),
        ("batch", ["folder=files", "poll_seconds=5"],
         {"folder": "files", "poll_seconds": 5, "price": None, "address": {"base_url": None, "api_key_env": None}}),
        ("vllm", ["max_completion_tokens=9", "options.enforce_eager=true", "options.tensor_parallel_size=2"],
         {"model": "judge", "max_completion_tokens": 9, "options": {"enforce_eager": True, "tensor_parallel_size": 2}}),
    ],
)  # fmt: skip
def test_a_model_of_ones_own_is_named_by_models_and_set_up_by_set(here, answered, kind, settings, expected):
    engine = answered(prefers_good)
    (here / "judge").mkdir()
    (here / "chat.jinja").write_text("{{ messages }}")
    options = [word for each in settings for word in ("--set", each)]
    run("annotate", "pairs.jsonl", "--judge", "greedy", "-m", "judge", "--engine", kind, *options)
    assert engine.opened[:2] == (kind, expected)


def test_options_that_belong_together_stand_together_in_the_help(here):
    text = run("annotate", "--help").output
    words = ("Who judges", "--models", "Pairs in", "--head2head", "Service and", "--set")
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_two_systems_are_joined_and_what_did_not_join_is_said(here, answered):
    answered(prefers_good)
    write_rows(here / "mine.json", [{"instruction": "a", "output": "good"}, {"instruction": "b", "output": "good"}])
    write_rows(here / "theirs.csv", [{"instruction": "a", "output": "bad"}])
    result = run("annotate", "mine.json", "--head2head", "theirs.csv", *GREEDY)
    assert len(read_rows(here / "mine.annotated.jsonl")) == 1
    assert "left out: 1 only in the first: 'b'" in result.output


def test_two_ways_to_make_pairs_are_one_too_many(here):
    write_rows(here / "s.json", [{"instruction": "a", "output": "good"}])
    with pytest.raises(RecipeError, match="choose one: --head2head joins two files' outputs, --samples makes pairs"):
        run("annotate", "s.json", "--head2head", "s.json", "--samples", "all", *GREEDY)
    with pytest.raises(RecipeError, match="choose one: --head2head"):
        Source(head2head=here / "s.json", samples="one").pairs(here / "s.json")


def test_samples_are_made_into_pairs(here, answered):
    answered(prefers_good)
    write_rows(here / "s.json", [{"instruction": "a", "outputs": ["good", "bad", "bad 2"]}])
    run("annotate", "s.json", "--samples", "all", *GREEDY, "--out", "s.csv")
    assert len(read_rows(here / "s.csv")) == 3


def _config(here: Path) -> None:
    (here / "evaluators_configs" / "mine").mkdir(parents=True)
    (here / "evaluators_configs" / "mine" / "configs.yaml").write_text(
        'mine:\n  prompt_template: "{instruction}\\n{output_1}\\n{output_2}\\n"\n'
        "  completions_kwargs: {model_name: old, max_tokens: 5}\n"
        "  completion_parser_kwargs: {outputs_to_match: {1: m, 2: M}}\n"
    )


def test_an_alpaca_eval_config_is_asked_with_its_draws_over_the_users_model(here, answered):
    _config(here)
    engine = answered(lambda _: "m")
    run("annotate", "pairs.jsonl", "--config", "evaluators_configs/mine", "--compat", "alpaca_eval", "-m", "new")
    assert {request.model for request in engine.asked} == {"new"}
    rows = read_rows(here / "pairs.annotated.jsonl")
    assert {row["annotator"] for row in rows} == {"mine"}
    assert {row["preference"] for row in rows[1:]} == {1.0, 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "exactly one of --judge, --pool and --config"),
        (("--judge", "greedy", "--pool", "greedy"), "exactly one of"),
        (("--judge", "p-eval", "-m", "a,b,c"), "has 13 judges; name it with --pool"),
        (("--judge", "greedy"), "name one, such as --models large, or"),
        ((*GREEDY, "--compat", "other"), "--compat: expected alpaca_eval"),
        ((*GREEDY, "--price", "cheap"), "--price: expected two amounts"),
        ((*GREEDY, "--samples", "some"), "--samples: expected one or all"),
        ((*GREEDY, "--set", "speed"), "--set 'speed': expected KEY=VALUE"),
        ((*GREEDY, "--set", "a=1", "--set", "a.b=1"), "--set 'a.b=1': expected KEY=VALUE"),
        ((*GREEDY, "--set", "speed=9"), "engine 'api': speed: no such key"),
        ((*GREEDY, "--engine", "magic"), "engine"),
        (("--judge", "greedy", "-m", "nowhere", "--engine", "local", "--set", "dtype=int3"), "engine 'local': dtype"),
    ],
)
def test_options_that_do_not_fit_are_refused(here, answered, arguments, message):
    engine = answered(prefers_good)
    with pytest.raises(PastureError, match=message):
        run("annotate", "pairs.jsonl", *arguments)
    assert engine.asked == []


def test_a_missing_key_is_named_before_anything_is_sent(here, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EngineError, match="OPENAI_API_KEY"):
        run("annotate", "pairs.jsonl", *GREEDY)


def test_the_bias_of_a_judge_is_printed_and_written(here, answered):
    from tests.annotate.judging import always_first

    engine = answered(always_first)
    result = run("bias", "pairs.jsonl", *GREEDY, "--limit", "5", "--out", "bias.json")
    report = json.loads((here / "bias.json").read_text())
    assert report["asked"] == 4
    assert report["prefers_first_shown"]["value"] == 1.0
    assert "prefers the answer shown first" in result.output
    assert "1.000" in result.output
    assert engine.asked


@pytest.mark.parametrize("verb", ["annotate", "bias"])
def test_help_holds_an_example_and_every_option(here, verb):
    text = run(verb, "--help").output
    assert "Example: pasture" in text
    for option in ("--judge", "--pool", "--config", "--models", "--max-usd", "--store", "--seed", "--out"):
        assert option in text


PAIR = '{"instruction": "a", "output_1": "b", "output_2": "c"}'
UNREAD = [
    ("empty.jsonl", b"", r"empty\.jsonl: the file holds no rows"),
    ("empty.json", b"[]", r"empty\.json: the file holds no rows"),
    ("empty.csv", b"", r"empty\.csv: the file holds no rows"),
    ("nothing.json", b"", r"not JSON .* A file with an object a line should end in \.jsonl"),
    ("lines.json", f"{PAIR}\n{PAIR}\n".encode(), r"not JSON .* A file with an object a line should end in \.jsonl"),
    (
        "broken.jsonl",
        f'{PAIR}\n{{"instruction": "a",\n'.encode(),
        r"broken\.jsonl:2: not JSON .* Mend or remove the line",
    ),
    ("zeros.jsonl", f"{PAIR}\n\0\0\n".encode(), r"zeros\.jsonl:2: not JSON"),
    ("deep.json", b"[" * 100_000, r"deep\.json: not JSON"),
    ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl:1: not JSON"),
    ("latin.jsonl", PAIR.replace("a", "\xe9").encode("latin-1"), r"not UTF-8 .* Save it as UTF-8"),
    ("latin.json", f"[{PAIR}]".replace("a", "\xe9").encode("latin-1"), r"not UTF-8 .* Save it as UTF-8"),
    ("latin.csv", b"instruction,output_1,output_2\n\xe9,b,c\n", r"not UTF-8 .* Save it as UTF-8"),
    ("windows.jsonl", PAIR.encode("utf-16"), r"not UTF-8 .* Save it as UTF-8"),
    ("one.jsonl", b'{"instruction": "a", "output": "b"}', r"row 1: expected text in column 'output_1'.*--head2head"),
    ("null.jsonl", PAIR.replace('"b"', "null").encode(), r"row 1: expected text in column 'output_1', got nothing\."),
    ("blank.jsonl", PAIR.replace('"a"', '""').encode(), r"row 1: column 'instruction' is blank\. Remove the row"),
    ("half.jsonl", PAIR.replace("a", "\\ud800").encode(), r"row 1: .* a lone surrogate, which no text may hold"),
]


@pytest.mark.parametrize(("name", "content", "said"), UNREAD, ids=[name for name, *_ in UNREAD])
def test_pairs_that_cannot_be_read_are_one_message_and_nobody_is_asked(here, answered, name, content, said):
    engine = answered(prefers_good)
    (here / name).write_bytes(content)
    with pytest.raises(PastureError, match=said) as caught:
        run("annotate", name, *GREEDY)
    assert "\n" not in str(caught.value)
    assert engine.asked == []
    assert sorted(path.name for path in here.iterdir()) == sorted([name, "pairs.jsonl"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["marked.jsonl", "marked.json"])
def test_a_byte_order_mark_is_no_part_of_the_rows(here, answered, name, encoding):
    answered(prefers_good)
    (here / name).write_bytes((PAIR if name.endswith("l") else f"[{PAIR}]").encode(encoding))
    run("annotate", name, *GREEDY)
    assert read_rows(here / "marked.annotated.jsonl")[0]["instruction"] == "a"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("kept", r"expected a name that ends in \.json, .* got ending ''"),
        ("folder.jsonl", r"cannot write folder\.jsonl: it is a folder"),
        ("pairs.jsonl/below.jsonl", r"cannot write pairs\.jsonl/below\.jsonl: Not a directory"),
        ("/proc/none/out.jsonl", r"cannot write /proc/none/out\.jsonl: "),
    ],
)
def test_where_nothing_can_be_written_nobody_is_asked(here, answered, out, said):
    engine = answered(prefers_good)
    (here / "folder.jsonl").mkdir()
    with pytest.raises(PastureError, match=said):
        run("annotate", "pairs.jsonl", *GREEDY, "--out", out)
    assert engine.asked == []
    assert not list(here.glob("*.sqlite"))


def test_folders_of_the_output_are_made_and_those_of_a_mistyped_input_are_not(here, answered):
    answered(prefers_good)
    with pytest.raises(PastureError, match="no such file"):
        run("annotate", "typo/pairs.jsonl", *GREEDY)
    assert not (here / "typo").exists()
    run("annotate", "pairs.jsonl", *GREEDY, "--out", "new/out.jsonl")
    assert len(read_rows(here / "new" / "out.jsonl")) == len(ROWS)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_what_json_cannot_hold_does_not_lose_paid_verdicts(here, answered, ending):
    answered(prefers_good)
    row = {"instruction": "a", "output_1": "good", "output_2": "c", "score": float("nan"), "n": [float("inf")]}
    (here / "t.json").write_text(json.dumps([row]))
    run("annotate", "t.json", *GREEDY, "--out", f"done.{ending}")
    [row] = read_rows(here / f"done.{ending}")
    assert (row["preferred"], row["score"], row["n"]) == ("first", None, [None])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pool", "alpaca-farm", "--models", "m"), "no pool 'alpaca-farm'. Did you mean 'alpaca-farm-13'"),
        (("--judge", "greedy"), "leaves the choice of models to you"),
        ((*GREEDY, "--base-url", "127.0.0.1:9/v1"), "begins with neither http:// nor https://"),
        ((*GREEDY, "--api-key-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE, which is not set"),
        ((*GREEDY, "--base-url", "http://127.0.0.1:9/v1", "--set", "max_attempts=1"), "run again when the service is"),
        (("--judge", "greedy", "--models", "models/none", "--engine", "local"), "models/none: no such folder"),
        ((*GREEDY, "--engine", "opneai"), "Input should be 'api'"),
        ((*GREEDY, "--set", "inflight=3"), "inflight: no such key"),
    ],
)
def test_judges_and_services_that_are_not_there_are_one_message(here, options, said):
    with pytest.raises(PastureError) as caught:
        run("annotate", "pairs.jsonl", *options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(here.glob("*.annotated.*"))


def test_rows_with_the_same_id_are_told_apart_by_their_texts(here, answered):
    answered(prefers_good)
    twice = [{"id": "1", **ROWS[1]}, {"id": "1", **ROWS[1], "output_1": "bad", "output_2": "good"}]
    write_rows(here / "same.jsonl", twice)
    run("annotate", "same.jsonl", *GREEDY)
    assert [row["preferred"] for row in read_rows(here / "same.annotated.jsonl")] == ["first", "second"]


@pytest.mark.parametrize(
    ("note", "target", "said"),
    [
        ("1", "out.parquet", "column 'note' does not fit into Parquet"),
        ('"\\ud83d"', "out.csv", "row 9 holds a lone surrogate in column 'note'"),
        ('"\\ud83d"', "out.jsonl", "row 9 holds a lone surrogate in column 'note'"),
    ],
)
def test_rows_that_cannot_be_written_are_said_before_anybody_is_asked(here, answered, note, target, said):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    engine = answered(prefers_good)
    rows = [json.dumps({**row, "note": "text"}) for row in ROWS]
    last = f'{{"instruction": "last", "output_1": "good", "output_2": "bad", "note": {note}}}'
    (here / "mixed.jsonl").write_text("\n".join([*rows, last]) + "\n", encoding="utf-8")
    with pytest.raises(PastureError, match=re.escape(said)):
        run("annotate", "mixed.jsonl", *GREEDY, "--out", target)
    assert engine.asked == []
    assert not (here / target).exists()


def test_parquet_without_pyarrow_is_said_before_anybody_is_asked(here, answered, monkeypatch):
    engine = answered(prefers_good)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DependencyError, match="pip install"):
        run("annotate", "pairs.jsonl", *GREEDY, "--out", "out.parquet")
    assert engine.asked == []


def test_a_dry_run_says_which_calls_it_does_not_count(here, answered):
    answered(prefers_good)
    priced = ("--price", "1,2", "--dry-run")
    several = run("annotate", "pairs.jsonl", *GREEDY, *priced).output
    assert "at most, asked once" in several
    assert "Not counted: each pair that a call about several leaves without a verdict" in several
    singly = ("--judge", "alpaca-eval-1", "--models", "gpt")  # one pair a call: nothing is asked about again
    assert "Not counted" not in run("annotate", "pairs.jsonl", *singly, *priced).output
    retried = run("annotate", "pairs.jsonl", *singly, *priced, "--retry-unjudged").output
    assert "Not counted: each stored reply without a verdict is asked for anew." in retried
