import re
from pathlib import Path

import pytest

from pasture.annotate.judge import Judge
from pasture.annotate.noise import UniformFlips
from pasture.annotate.panel import Panel, load_panel, shipped_pools
from pasture.annotate.render import ShownPair
from pasture.core.errors import RecipeError

EXAMPLE = """
[[example]]
instruction = "add 1 and 1"
answer_a = "2"
answer_b = "3"
better = "a"
reason = "It is 2."
"""
THREE = ("large", "medium", "small")
OWN_PROMPT = """
layout = "one-turn"
reply = "letters"
opening = "{{frame}}"
question = "{question}"
verdict = "Answer ({{better}})"
"""

# Style, batch, most tokens, examples and temperature of each annotator, by hand from the published table of
# annotator_pool_v0 (alpaca_farm 0.2.0): what must come back, judge by judge.
PUBLISHED = [
    ("large", "turns", "json", 4, 600, 3),
    ("large", "one-turn", "letters", 5, 250, 4),
    ("large", "one-turn", "letters", 5, 250, 4),
    ("large", "turns", "letters", 1, 20, 6),
    ("large", "one-turn", "letters", 5, 250, 4),
    ("medium", "one-turn", "letters", 1, 50, 2),
    ("medium", "turns", "json", 1, 150, 3),
    ("medium", "turns", "letters", 1, 20, 6),
    ("medium", "turns", "letters", 1, 20, 2),
    ("small", "completion", "letters", 4, 200, 6),
    ("small", "completion", "letters", 1, 200, 6),
    ("small", "completion", "letters", 5, 200, 6),
    ("small", "completion", "letters", 1, 200, 2),
]


@pytest.mark.parametrize("pool", ["alpaca-farm-13", "alpaca-farm-13-logit-bias", "p-eval"])
def test_the_thirteen_annotators_have_the_published_styles_and_decoding(pool):
    judges = load_panel(pool, THREE).judges
    made = [
        (
            j.model,
            j.prompt.layout,
            j.prompt.reply,
            j.batch_size,
            j.definition.max_completion_tokens,
            sum(j.definition.shots),
        )
        for j in judges
        if isinstance(j, Judge)
    ]
    assert made == PUBLISHED
    assert {j.definition.temperature for j in judges if isinstance(j, Judge)} == {1.0}
    assert set(load_panel(pool, THREE).weights) == {1.0}


def test_the_training_pool_flips_a_quarter_and_the_evaluation_pool_nothing():
    assert load_panel("alpaca-farm-13", THREE).noise == UniformFlips(probability=0.25)
    assert load_panel("p-eval", THREE).noise is None


def test_six_of_the_thirteen_have_the_published_biases():
    # By hand from the published table: favor +7, avoid -100, both, or none, judge by judge.
    signs = []
    for judge in load_panel("alpaca-farm-13-logit-bias", THREE).judges:
        bias = judge.request([ShownPair("i", "", "a", "b")], 0).logit_bias or {}
        signs.append(set(bias.values()))
    both, favor, avoid = {7.0, -100.0}, {7.0}, {-100.0}
    assert signs == [set(), set(), set(), both, set(), both, avoid, both, both, favor, set(), set(), set()]


def test_the_greedy_judge_is_greedy():
    (judge,) = load_panel("greedy", ["x"]).judges
    assert isinstance(judge, Judge)
    assert judge.definition.temperature == 0.0


def test_two_models_share_three_places_and_one_takes_all():
    assert [judge.name.split("/")[0] for judge in load_panel("p-eval", "ab").judges] == list("aaaaabbbbaaaa")
    assert {judge.name.split("/")[0] for judge in load_panel("p-eval", "a").judges} == {"a"}


def test_a_pool_without_models_says_what_to_name():
    with pytest.raises(RecipeError, match="--models large,medium,small"):
        load_panel("p-eval")


def test_more_models_than_places_are_refused():
    with pytest.raises(RecipeError, match="has places for 1 models, got 2: a, b"):
        load_panel("greedy", ["a", "b"])


def test_completions_can_be_asked_as_chat():
    judges = [j for j in load_panel("p-eval", THREE, completions_as_chat=True).judges if isinstance(j, Judge)]
    assert "completion" not in {judge.prompt.layout for judge in judges}


def test_an_unknown_pool_is_answered_with_the_likely_one():
    with pytest.raises(RecipeError, match="Did you mean 'greedy'"):
        load_panel("greddy", ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[judges.x]\nprompt='short'\nmax_completion_tokens=9\ntemprature=0.0", "Did you mean 'temperature'"),
        ("[judges.x]\nprompt='short'\nmax_completion_tokens='many'", "judges.x.max_completion_tokens"),
        ("[judges.x]\nprompt='short'", "judges.x.max_completion_tokens"),
        ("ordre = 'both'", "Did you mean 'order'"),
        ("[noise]\nkind='uniform'\nprobabilty=0.1", "Did you mean 'probability'"),
        ("[noise]\nkind='uniform'\nprobability=0.6", "noise.uniform.probability"),
        ("title = 'nobody'", r"at least one \[judges.NAME\]"),
        ("[judges", "cannot be read"),
        ("[judges.x]\nprompt='turns'\nmax_completion_tokens=9\nbatch_size=2", "numbered pairs"),
        ("[judges.x]\nprompt='short'\nmax_completion_tokens=9\nshots=[99]", "need 99 examples"),
        ("[judges.x]\nprompt='token'\nmax_completion_tokens=1\nshots=[1]", "shows no examples"),
        ("[judges.x]\nprompt='shrot'\nmax_completion_tokens=1", "Did you mean 'short'"),
    ],
)
def test_a_wrong_pool_file_is_refused_with_file_and_key(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_panel(str(path), ["m"])
    assert "mine" in str(caught.value) or "judge 'x'" in str(caught.value) or "short" in str(caught.value)


def test_a_pool_file_finds_its_prompt_and_examples_beside_it(tmp_path):
    (tmp_path / "own.toml").write_text(OWN_PROMPT.format(question="Which?"))
    (tmp_path / "shown.toml").write_text(EXAMPLE)
    path = tmp_path / "pool.toml"
    judge_table = 'model = "m"\nprompt = "own.toml"\nexamples = "shown.toml"\nshots = [1]\nmax_completion_tokens = 5'
    path.write_text(f"[judges.mine]\n{judge_table}")
    (judge,) = load_panel(str(path)).judges
    assert judge.name == "m/mine"


def test_two_judges_of_one_name_are_refused():
    one = load_panel("greedy", ["x"]).judges[0]
    with pytest.raises(RecipeError, match="two judges are called"):
        Panel("twins", [one, one], [1.0, 1.0])


def test_the_pools_that_ship_are_these():
    assert shipped_pools() == [
        "alpaca-eval-1",
        "alpaca-eval-2",
        "alpaca-farm-13",
        "alpaca-farm-13-logit-bias",
        "continued",
        "greedy",
        "p-eval",
    ]


def test_the_identity_of_a_judge_changes_with_its_prompt_its_examples_and_its_decoding(tmp_path):
    def identity(decoding: str, prompt: str = "Which?") -> object:
        (tmp_path / "own.toml").write_text(OWN_PROMPT.format(question=prompt))
        (tmp_path / "pool.toml").write_text(f'[judges.j]\nmodel = "m"\nprompt = "own.toml"\n{decoding}')
        (judge,) = load_panel(str(tmp_path / "pool.toml")).judges
        return judge.identity

    base = "max_completion_tokens = 5"
    same = identity(base)
    assert identity(base) == same
    for other in (identity(base, "Who?"), identity("max_completion_tokens = 6"), identity(base + "\nshots = [1]")):
        assert other != same


def test_the_judge_that_the_docs_write_down_can_be_loaded(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "annotators.md").read_text("utf-8")
    for content, name in re.findall(r"```toml\n(# ([\w-]+\.toml).*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "my-examples.toml", "teacher.toml"]
    panel = load_panel(str(tmp_path / "mine.toml"), ["m"])
    assert [judge.name for judge in panel.judges] == ["m/kind-teacher"]
    assert panel.noise == UniformFlips(probability=0.1)
    (judge,) = panel.judges
    assert isinstance(judge, Judge)
    assert [len(group) for group in judge.shots] == [1, 2]
    (message,) = judge.request([ShownPair("i", "", "x", "y")], 0).messages or ()
    # The last example's verdict, in the words of the prompt that stands beside it.
    assert message.content.count("Answer (b). Answer (a) takes five words.") == 1


def test_the_docs_name_every_pool_and_every_judge_of_the_thirteen():
    text = (Path(__file__).parents[2] / "docs" / "annotators.md").read_text("utf-8")
    titles = [judge.name.split("/")[1] for judge in load_panel("p-eval", THREE).judges]
    assert all(f"| `{name}` |" in text for name in [*shipped_pools(), *titles])


def test_judges_are_taken_over_from_a_pool_that_takes_them_over_itself(tmp_path):
    (tmp_path / "mine.toml").write_text('judges_from = "alpaca-farm-13-logit-bias"\norder = "both"')
    source = load_panel("alpaca-farm-13-logit-bias", THREE)
    panel = load_panel(str(tmp_path / "mine.toml"), THREE)
    assert len(panel.judges) == 13  # AlpacaFarm's thirteen, six of them with biases of their own
    assert [judge.identity for judge in panel.judges] == [judge.identity for judge in source.judges]
    more = '[judges.one-more]\nprompt = "short"\nmodel = "m"\nmax_completion_tokens = 5'
    (tmp_path / "heir.toml").write_text(f'judges_from = "mine.toml"\n{more}')
    assert len(load_panel(str(tmp_path / "heir.toml"), THREE).judges) == 14


def test_a_judge_taken_over_finds_its_prompt_and_examples_beside_the_file_that_names_it(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "own.toml").write_text(OWN_PROMPT.format(question="Which, says the base?"))
    (base / "shown.toml").write_text(EXAMPLE)
    table = 'model = "m"\nprompt = "own.toml"\nexamples = "shown.toml"\nshots = [1]\nmax_completion_tokens = 5'
    (base / "pool.toml").write_text(f"[judges.theirs]\n{table}")
    (tmp_path / "own.toml").write_text(OWN_PROMPT.format(question="Which, says the heir?"))
    mine = 'model = "m"\nprompt = "own.toml"\nmax_completion_tokens = 5'
    (tmp_path / "pool.toml").write_text(f'judges_from = "base/pool.toml"\n[judges.mine]\n{mine}')
    theirs, own = load_panel(tmp_path / "pool.toml").judges
    assert isinstance(theirs, Judge)
    assert isinstance(own, Judge)
    assert theirs.prompt.question == "Which, says the base?"
    assert own.prompt.question == "Which, says the heir?"


def test_pools_that_take_over_from_each_other_are_refused(tmp_path):
    for name, source in (("one", "two"), ("two", "three"), ("three", "two"), ("self", "self")):
        judge = f'[judges.{name}]\nprompt = "short"\nmodel = "m"\nmax_completion_tokens = 5'
        (tmp_path / f"{name}.toml").write_text(f'judges_from = "{source}.toml"\n{judge}')
    with pytest.raises(RecipeError, match=r"one\.toml -> two\.toml -> three\.toml -> two\.toml"):
        load_panel(str(tmp_path / "one.toml"))
    with pytest.raises(RecipeError, match=r"self\.toml -> self\.toml"):
        load_panel(str(tmp_path / "self.toml"))


def test_noise_of_an_annotator_who_is_not_in_the_pool_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    judge = '[judges.kind]\nprompt = "short"\nmodel = "m"\nmax_completion_tokens = 5'
    noise = 'noise = {{ kind = "per-annotator", probabilities = {{ "{}" = 0.1 }} }}'
    path.write_text(f"{noise.format('m/kind')}\n{judge}")
    assert load_panel(str(path)).noise is not None
    path.write_text(f"{noise.format('kind')}\n{judge}")
    with pytest.raises(RecipeError, match=r"probabilities names 'kind', and no judge .* Judges: m/kind"):
        load_panel(str(path))


def test_the_shipped_pools_are_named_whatever_was_asked_for():
    with pytest.raises(RecipeError, match=r"no pool '../mine.py'\. Shipped: .*alpaca-farm-13"):
        load_panel("../mine.py", [])
