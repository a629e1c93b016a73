"""A recipe says exactly what is done: nothing unknown, nothing converted, every default written out."""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
import tomli_w
from pydantic import BaseModel, Field, model_validator

from pasture.core.errors import ModelError, RecipeError
from pasture.core.sections import check_section
from pasture.recipe import Recipe, load, parse, resolved, resolved_for_steps, start_folder

REPOSITORY = Path(__file__).parents[1]
MEADOW = sorted((REPOSITORY / "recipes" / "meadow").glob("*.toml"))


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "loop.toml"
    path.write_text(
        'name = "tiny"\nseed = 3\ndata.sft = 64\nsampling.temperature = 0.5\n[learn.sft]\nepochs = 2\n[learn.ppo]\n'
    )
    return path


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse({"name": "tiny", **table}, "loop.toml")
    return str(caught.value)


def test_a_recipe_file_is_read_with_its_defaults(recipe_file: Path) -> None:
    recipe = load(recipe_file)
    assert (recipe.name, recipe.seed, recipe.data.sft, recipe.sampling.temperature) == ("tiny", 3, 64, 0.5)
    assert recipe.learn == {"sft": {"epochs": 2}, "ppo": {}}
    # The paper's: 805 evaluation instructions, a quarter of the pool's labels flipped, answers at temperature 0.7.
    assert recipe.data.evaluation == 805
    assert recipe.feedback.label_flip_probability == 0.25
    assert recipe.answering.temperature == 0.7


@pytest.mark.parametrize("section", ["sampling", "answering", "data", "feedback", "model"])
def test_setting_one_key_of_a_section_leaves_its_others_at_their_defaults(section: str) -> None:
    defaults = resolved(parse({"name": "tiny"}, "loop.toml"))[section]
    for key, value in defaults.items():
        assert resolved(parse({"name": "tiny", section: {key: value}}, "loop.toml"))[section] == defaults


def test_the_resolved_recipe_survives_the_disk_and_says_the_same(recipe_file: Path) -> None:
    recipe = load(recipe_file)
    table = tomllib.loads(tomli_w.dumps(resolved(recipe)))
    assert parse(table, "recipe.toml") == recipe
    assert table["answering"] == {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 48, "batch_tokens": 32768}
    assert "threads" not in table  # absent is absent


@pytest.mark.parametrize("path", MEADOW, ids=lambda path: path.stem)
def test_the_recipes_that_come_with_pasture_hold(path: Path) -> None:
    recipe = load(path)
    assert recipe.name.startswith("meadow-")
    assert MEADOW


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"sede": 1},
            "the recipe has no key 'sede'. Did you mean 'seed'? Keys: annotators, answering, baselines, campaigns, ",
        ),
        (
            {"baselines": {"g": {"writter": "careful"}}},
            "[baselines.g] has no key 'writter'. Did you mean 'writer'? Keys: evaluation, live, writer.",
        ),
        ({"data": {"prefrence": 10}}, "[data] has no key 'prefrence'. Did you mean 'preference'? Keys: "),
        ({"sampling": {"top_k": 5}}, "[sampling] has no key 'top_k'. Did you mean 'top_p'? Keys: batch_tokens, max"),
        (
            {"feedback": {"zebra": 1}},
            "[feedback] has no key 'zebra'. Keys: annotator, file, label_flip_probability, lab",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_likeliest_one(table: dict[str, Any], said: str) -> None:
    assert refusal(table).startswith(f"loop.toml: {said}")


def test_no_likely_key_no_guess() -> None:
    assert "Did you mean" not in refusal({"feedback": {"zebra": 1}})


class Settings(BaseModel, extra="forbid"):
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, ...] = ()


def test_settings_of_a_method_are_checked_under_their_own_name() -> None:
    with pytest.raises(RecipeError) as caught:
        check_section(Settings, {"learning_rat": 1}, "loop.toml", "learn.ppo")
    assert str(caught.value) == (
        "loop.toml: [learn.ppo] has no key 'learning_rat'. Did you mean 'learning_rate'? Keys: betas, learning_rate."
    )
    with pytest.raises(RecipeError, match=r"^loop\.toml: learn\.ppo\.learning_rate: Input should be greater than 0"):
        check_section(Settings, {"learning_rate": 0}, "loop.toml", "learn.ppo")
    assert check_section(Settings, {"betas": [1, 0.5]}, "loop.toml").betas == (1.0, 0.5)


@pytest.mark.parametrize(
    ("table", "place", "came"),
    [
        ({"seed": -1}, "seed", "-1"),
        ({"seed": "1"}, "seed", "'1'"),
        ({"seed": True}, "seed", "True"),
        ({"seed": 1.5}, "seed", "1.5"),
        ({"name": "Has Blanks"}, "name", "'Has Blanks'"),
        ({"name": "../up"}, "name", "'../up'"),
        ({"data": {"sft": 0}}, "data.sft", "0"),
        ({"data": {"splits": "half"}}, "data.splits", "'half'"),
        ({"data": 5}, "data", "5"),
        ({"sampling": {"temperature": -0.1}}, "sampling.temperature", "-0.1"),
        ({"sampling": {"temperature": math.nan}}, "sampling.temperature", "nan"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p", "0"),
        ({"sampling": {"max_new_tokens": "many"}}, "sampling.max_new_tokens", "'many'"),
        ({"feedback": {"label_flip_probability": 0.51}}, "feedback.label_flip_probability", "0.51"),
        ({"feedback": {"annotator": 6}}, "feedback.annotator", "6"),
        ({"evaluate": {"judges": ["people", "../me"]}}, "evaluate.judges.1", "'../me'"),
        ({"evaluate": {"judges": []}}, "evaluate.judges", "[]"),
        ({"learn": {"ppo": 5}}, "learn.ppo", "5"),
        ({"learn": ["ppo"]}, "learn", "['ppo']"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_never_converted(
    table: dict[str, Any], place: str, came: str
) -> None:
    message = refusal(table)
    assert message.startswith(f"loop.toml: {place}: ")
    assert message.endswith(f", got {came}.")


class Choices(BaseModel):
    """Settings that may be of several kinds, and tables within."""

    kept: Annotated[int, Field(ge=1)] | Literal["all"] = 1
    layers: Literal["all"] | tuple[str, ...] = "all"
    cap: float | None = None
    name: str | None = "somebody"
    scale: Literal["none", "mean"] = "mean"
    inner: Settings | None = None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kept": 0}, "kept: Input should be greater than or equal to 1 or 'all', got 0."),
        ({"kept": "most"}, "kept: Input should be a valid integer or 'all', got 'most'."),
        ({"layers": 3}, "layers: Input should be 'all' or a valid array, got 3."),
        ({"layers": ["q", 3]}, "layers.1: Input should be a valid string, got 3."),
        ({"inner": {"learning_rate": 0}}, "inner.learning_rate: Input should be greater than 0, got 0."),
        ({"inner": {"betas": [1, "x"]}, "kept": 2}, "inner.betas.1: Input should be a valid number, got 'x'."),
        ({"kept": 0, "layers": 3}, "kept: Input should be greater than or equal to 1 or 'all', got 0."),
    ],
)
def test_where_several_kinds_of_value_would_do_each_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_section(Choices, table, "loop.toml")
    assert str(caught.value) == f"loop.toml: {said}"


class Paired(BaseModel):
    """Settings of which two must fit each other."""

    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is more than high")
        return self


def test_settings_that_do_not_fit_each_other_are_refused_in_one_sentence() -> None:
    with pytest.raises(RecipeError) as caught:
        check_section(Paired, {"low": 2}, "pasture train mine")
    assert str(caught.value) == "pasture train mine: low is more than high."
    with pytest.raises(RecipeError) as caught:
        check_section(Paired, {"low": 2}, "loop.toml", "learn.mine")
    assert str(caught.value) == "loop.toml: learn.mine: low is more than high."


def test_none_stands_for_an_absent_key_where_that_means_none() -> None:
    assert check_section(Choices, {"cap": "none", "inner": "none"}, "x") == Choices()
    # Where a key that is absent is something, or where the word is a choice, it is not touched.
    assert check_section(Choices, {"name": "none", "scale": "none"}, "x") == Choices(name="none", scale="none")
    with pytest.raises(RecipeError, match="kept: Input should be a valid integer or 'all', got 'none'"):
        check_section(Choices, {"kept": "none"}, "x")


def test_none_takes_adapters_out_of_a_recipe_again() -> None:
    weights = {"dtype": "bfloat16", "lora": "none"}
    recipe = parse({"name": "tiny", "model": {"weights": weights}}, "x")
    assert recipe.model.weights.lora is None
    assert recipe.model.weights.dtype == "bfloat16"


def test_a_missing_name_is_said_to_be_missing() -> None:
    with pytest.raises(RecipeError) as caught:
        parse({}, "loop.toml")
    assert str(caught.value) == "loop.toml: name: Field required."


def test_an_unknown_template_is_refused_with_the_known_ones() -> None:
    assert refusal({"model": {"template": "alpacca"}}) == (
        "loop.toml: [model] template: no template 'alpacca'. Templates: alpaca, chat, plain."
    )


@pytest.mark.parametrize(
    "table",
    [{"pools": {"comparisons": {}}}, {"campaigns": {"comparisons": {"campaign": "a.campaign"}}}],
    ids=["pools", "campaigns"],
)
def test_no_annotator_may_write_its_labels_over_what_it_labelled(table: dict[str, Any]) -> None:
    [kind] = table
    assert refusal(table) == (
        f"loop.toml: [{kind}.comparisons]: no annotator can be called 'comparisons', as its labels lie in a file of "
        "its name, beside the one of what was compared. Choose another name."
    )


def test_a_step_that_shows_the_recipe_is_not_told_what_nothing_depends_on() -> None:
    pool = {"pool": "greedy", "models": ["gpt-4.1"], "sample": 1}
    plain = {"pools": {"j": pool}, "model": {"template": "chat"}}
    table = {
        "pools": {"j": {**pool, "max_usd": 5.0, "store": "other.sqlite"}},
        "model": {"template": "chat", "parameter_count": 7e9},
        "cards": {"training_operations_per_second": 1, "drawing_operations_per_second": 1, "usd_per_hour": 1},
        "gpus": 0.5,
    }
    shown, same = (resolved_for_steps(parse({"name": "tiny", **one}, "x")) for one in (table, plain))
    assert shown == same
    assert (shown["pools"]["j"]["sample"], shown["model"]["template"]) == (1, "chat")


def test_a_known_template_is_taken() -> None:
    assert parse({"name": "tiny", "model": {"template": "alpaca"}}, "x").model.template == "alpaca"


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("data.sft=5", ("data", "sft"), 5),
        ("learn.ppo.steps=20", ("learn", "ppo", "steps"), 20),
        ("learn.ppo.learning_rate=1e-4", ("learn", "ppo", "learning_rate"), 1e-4),
        ("learn.ppo.early=true", ("learn", "ppo", "early"), True),
        ("learn.dpo.beta=0.1", ("learn", "dpo", "beta"), 0.1),
        ("learn.ppo.sizes=[1, 2]", ("learn", "ppo", "sizes"), [1, 2]),
        ('learn.ppo={steps = 4, note = "x"}', ("learn", "ppo"), {"steps": 4, "note": "x"}),
        ("model.start=models/my model", ("model", "start"), "models/my model"),
        ("model.start=/a/b.c", ("model", "start"), "/a/b.c"),
        ('title="5"', ("title",), "5"),
        ("title=a=b", ("title",), "a=b"),
        (" title = naïve 🐑 ", ("title",), "naïve 🐑"),
        ("title=", ("title",), ""),
    ],
)
def test_an_override_sets_one_value_of_its_toml_type(
    recipe_file: Path, override: str, place: tuple[str, ...], value: object
) -> None:
    before, after = resolved(load(recipe_file)), resolved(load(recipe_file, [override]))
    found: Any = after
    for key in place:
        found = found[key]
    assert found == value
    assert type(found) is type(value)
    # Everything else is as it was.
    for table in (before, after):
        inner = table
        for key in place[:-1]:
            inner = inner.get(key, {})
        inner.pop(place[-1], None)
    before["learn"].setdefault("dpo", {})
    after["learn"].setdefault("dpo", {})
    assert before == after


def test_the_last_override_of_a_key_counts(recipe_file: Path) -> None:
    assert load(recipe_file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("override", ["seed", "=1", "data.=1", ".sft=1", "data..sft=1", ""])
def test_an_override_without_key_or_value_is_refused_with_an_example(recipe_file: Path, override: str) -> None:
    with pytest.raises(RecipeError, match=r"expected key=value, such as seed=1 or learn\.ppo\.steps=20"):
        load(recipe_file, [override])


def test_an_override_below_a_value_is_refused(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="'sft' is a value, not a section"):
        load(recipe_file, ["data.sft.more=1"])


def test_an_override_with_an_unknown_key_gets_the_same_answer_as_the_file(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[data\] has no key 'sfft'\. Did you mean 'sft'\?"):
        load(recipe_file, ["data.sfft=1"])


@pytest.mark.parametrize("override", ["seed=1\nname='other'", "title=\udcff", "title=a\x1b[2J"])
def test_an_override_cannot_smuggle_lines_bytes_or_escapes(recipe_file: Path, override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe_file, [override])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "not valid TOML: Invalid value (at end of document)"),
        (b'name = "a"\nname = "b"\n', "not valid TOML: Cannot overwrite a value (at line 2"),
        (b'name = "a"\n\xff', "cannot be read"),
    ],
)
def test_a_file_that_is_no_toml_is_said_to_be_that_with_the_line(recipe_file: Path, content: bytes, said: str) -> None:
    recipe_file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load(recipe_file)
    assert str(caught.value).startswith(f"{recipe_file}: {said}")


def test_a_missing_recipe_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: no such file\. Recipes that come with Pasture lie in recipes/"):
        load(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(tmp_path)


def test_a_model_that_is_no_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'meadow-base', 'meadow-untrained' or a folder that save_pretrained wrote"):
        start_folder(str(tmp_path / "none"))
    assert start_folder(str(tmp_path)) == tmp_path
    assert start_folder("meadow-base").parts[-3:] == ("pasture", "world", "base_model")


def test_a_recipe_cannot_be_changed() -> None:
    recipe = Recipe(name="tiny")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 5  # type: ignore[misc]


def test_some_systems_of_a_recipe_are_the_recipe_of_these_alone() -> None:
    table = {
        "name": "r",
        "learn": {"sft": {}, "reward_model": {}, "ppo": {}, "dpo": {}},
        "evaluate": {"curves": ["ppo"]},
    }
    alone = {"name": "r", "learn": {"sft": {}, "reward_model": {}, "dpo": {}}}
    assert parse({**table, "systems": ["dpo"]}, "r.toml") == parse(alone, "r.toml")
    with pytest.raises(RecipeError, match=r"systems names 'pop', but there is no \[learn.pop\]. Systems: ppo, dpo"):
        parse({**table, "systems": ["pop"]}, "r.toml")


def test_some_systems_of_a_study_leave_out_the_arms_that_make_others() -> None:
    arms = {"simulation": {}, "people": {}, "quiet": {"systems": ["ppo"]}, "loud": {"systems": ["ppo", "dpo"]}}
    table = {"name": "tiny", "learn": {"sft": {}, "reward_model": {}, "ppo": {}, "dpo": {}}, "study": {"arms": arms}}
    found = parse({**table, "systems": ["dpo"]}, "r.toml").study
    assert found is not None
    assert {name: arm.systems for name, arm in found.arms.items()} == {
        "simulation": None, "people": None, "loud": ("dpo",),
    }  # fmt: skip
