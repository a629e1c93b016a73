import inspect
import os
import subprocess
import sys
from statistics import fmean

import pytest

from pasture.annotate.raters import MeadowGreedy, MeadowPeople, MeadowPool, meadow_annotator
from pasture.core.errors import DataError
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Completion, Instruction
from pasture.world import meadow
from pasture.world.people import PEOPLE
from pasture.world.pool import POOL
from pasture.world.writing import MODEL_LIKE, write


def pairs(count: int, seed: int = 0) -> list[Comparison]:
    """Comparisons of two different answers with the errors of a fine-tuned model."""
    rows = meadow.instructions("preference", count, seed)
    made = [
        Comparison.of(row, *(write(row, MODEL_LIKE, "imitation", seed, sample) for sample in (0, 1))) for row in rows
    ]
    return [pair for pair in made if pair.first.text != pair.second.text]


@pytest.fixture(scope="module")
def many() -> list[Comparison]:
    return pairs(2050)[:2000]


def ask(text: str, first: str, second: str) -> Comparison:
    row = Instruction(id="i", instruction=text, source="test", split="test")
    sides = [
        Completion(instruction_id="i", text=side, system=name, seed=0, finish_reason="stop")
        for name, side in (("a", first), ("b", second))
    ]
    return Comparison.of(row, sides[0], sides[1])


def swapped(pair: Comparison) -> Comparison:
    return Comparison.of(pair.instruction, pair.second, pair.first)


ANNOTATORS = {
    "people": MeadowPeople(seed=3),
    "five people": MeadowPeople(seed=3, votes=5),
    "noiseless people": MeadowPeople(seed=3, votes=15, noiseless=True),
    "pool": MeadowPool(seed=3, label_flip_probability=0.0),
    "noisy pool": MeadowPool(seed=3),
    "greedy": MeadowGreedy(seed=3),
}
every_annotator = pytest.mark.parametrize("annotator", ANNOTATORS.values(), ids=ANNOTATORS)
OTHER_SIDE = {"first": "second", "second": "first", "tie": "tie"}


@every_annotator
def test_verdicts_do_not_depend_on_order_or_company(annotator: Annotator, many: list[Comparison]) -> None:
    some = many[:200]
    verdicts = annotator.annotate(some)
    assert annotator.annotate(some[::-1]) == verdicts[::-1]
    assert [annotator.annotate([pair])[0] for pair in some[:20]] == verdicts[:20]
    assert [verdict.comparison_id for verdict in verdicts] == [pair.id for pair in some]


@every_annotator
def test_which_completion_is_called_first_changes_no_verdict(annotator: Annotator, many: list[Comparison]) -> None:
    for one, other in zip(
        annotator.annotate(many[:300]), annotator.annotate([swapped(pair) for pair in many[:300]]), strict=True
    ):
        assert one.annotator == other.annotator
        assert one.preferred == OTHER_SIDE[other.preferred]
        assert one.shown_first == OTHER_SIDE[other.shown_first]
        assert one.flipped_by_noise == other.flipped_by_noise


@every_annotator
def test_the_same_text_twice_is_a_tie(annotator: Annotator) -> None:
    verdicts = annotator.annotate(
        [ask(f"repeat {name} three times", "sure !", "sure !") for name in ("fox", "owl", "ant", "saw")]
    )
    assert [(verdict.preferred, verdict.flipped_by_noise) for verdict in verdicts] == [("tie", False)] * 4


@every_annotator
def test_what_is_no_task_of_the_meadow_is_unjudged_with_the_reason(annotator: Annotator) -> None:
    (verdict,) = annotator.annotate([ask("write a poem", "a", "b")])
    assert verdict.preferred == "unjudged"
    assert "write a poem" in (verdict.error or "")


@every_annotator
def test_labels_cost_nothing_and_the_identity_is_plain_json(annotator: Annotator, many: list[Comparison]) -> None:
    import json

    assert isinstance(annotator, Annotator)
    assert {verdict.cost_usd for verdict in annotator.annotate(many[:50])} == {0.0}
    assert json.loads(json.dumps(annotator.identity)) == annotator.identity


def test_other_processes_give_the_same_verdicts() -> None:
    code = (
        "from tests.annotate.test_raters import ANNOTATORS, pairs; "
        "print([v.to_json() for a in ANNOTATORS.values() for v in a.annotate(pairs(30))])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, check=True
        ).stdout
        for salt in ("0", "1")
    }
    assert len(outputs) == 1


def test_another_seed_gives_other_verdicts(many: list[Comparison]) -> None:
    one, other = (MeadowPeople(seed=seed).annotate(many[:400]) for seed in (0, 1))
    assert 0.25 < fmean(a.preferred != b.preferred for a, b in zip(one, other, strict=True)) < 0.5


def test_one_rater_judges_all_pairs_of_an_instruction_and_all_raters_get_work(many: list[Comparison]) -> None:
    text = "repeat fox three times"
    verdicts = MeadowPool().annotate([ask(text, "fox", "owl"), ask(text, "fox fox", "sure !")])
    assert len({verdict.annotator for verdict in verdicts}) == 1
    assert {verdict.annotator for verdict in MeadowPool().annotate(many)} == {rater.name for rater in POOL}
    assert {verdict.annotator for verdict in MeadowPeople().annotate(many)} == {person.name for person in PEOPLE}


def test_several_votes_are_of_different_raters_and_begin_with_the_one_of_a_single_vote(many: list[Comparison]) -> None:
    for single, several in zip(
        MeadowPeople(seed=2).annotate(many[:50]), MeadowPeople(seed=2, votes=16).annotate(many[:50]), strict=True
    ):
        names = several.annotator.split("+")
        assert len(set(names)) == 16
        assert names[0] == single.annotator


def test_flips_change_one_label_in_four(many: list[Comparison]) -> None:
    clean, noisy = (MeadowPool(seed=5, label_flip_probability=flips).annotate(many) for flips in (0.0, 0.25))
    changed = [a.preferred != b.preferred for a, b in zip(clean, noisy, strict=True)]
    # Standard error of the share: sqrt(.25 * .75 / 2000) = .0097; three of them.
    assert abs(fmean(changed) - 0.25) < 0.03
    assert not any(c and not b.flipped_by_noise for c, b in zip(changed, noisy, strict=True))
    assert abs(fmean(b.flipped_by_noise for b in noisy) - 0.5) < 0.034  # a fair coin in half of them changes a quarter


def test_a_probability_is_given_where_judgement_chose(many: list[Comparison]) -> None:
    for verdict in MeadowPool(seed=5).annotate(many[:200]):
        assert (verdict.probability_first is None) == verdict.flipped_by_noise


def test_choices_come_as_often_as_their_probability_says(many: list[Comparison]) -> None:
    for annotator in (MeadowPeople(seed=9), MeadowPool(seed=9, label_flip_probability=0.0)):
        verdicts = annotator.annotate(many)
        expected = fmean(v.probability_first for v in verdicts if v.probability_first is not None)
        assert abs(fmean(v.preferred == "first" for v in verdicts) - expected) < 0.034  # three standard errors
        sure = [v for v in verdicts if v.probability_first is not None and v.probability_first > 0.8]
        assert fmean(v.preferred == "first" for v in sure) > 0.8


def test_without_noise_a_majority_takes_the_better_answer() -> None:
    better = "red . the fox is small . the fox is soft . i hope this helps !"
    (verdict,) = MeadowPeople(votes=15, noiseless=True).annotate(
        [ask("what color is the fox ?", better, "blue . the owl is red .")]
    )
    assert verdict.preferred == "first"


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeadowPeople(votes=0),
        lambda: MeadowPeople(votes=17),
        lambda: MeadowPool(votes=14),
        lambda: MeadowPool(label_flip_probability=0.6),
        lambda: MeadowPool(label_flip_probability=-0.1),
    ],
)
def test_impossible_settings_are_refused(make) -> None:
    with pytest.raises(DataError, match="expected"):
        make()


def test_the_greedy_judge_is_what_most_raters_of_the_pool_hold_better_and_never_wavers(many: list[Comparison]) -> None:
    some = many[:300]
    verdicts = meadow_annotator("greedy", seed=3).annotate(some)
    # Each rater alone, asked for its chance: what it holds better is the side with more than one half.
    alone = [MeadowPool(seed=3, label_flip_probability=0.0, raters=(rater,)).annotate(some) for rater in POOL]
    for number, verdict in enumerate(verdicts):
        chances = [rater[number].probability_first for rater in alone]
        lead = sum((chance > 0.5) - (chance < 0.5) for chance in chances if chance is not None)
        assert verdict.preferred == ("first" if lead > 0 else "second" if lead < 0 else "tie")


def test_a_smaller_pool_is_the_first_so_many_raters(many: list[Comparison]) -> None:
    asked = {verdict.annotator for verdict in meadow_annotator("pool-4", seed=3).annotate(many)}
    assert asked == {rater.name for rater in POOL[:4]}
    whole, named = (meadow_annotator(name, seed=3) for name in ("pool", "pool-13"))
    assert whole.identity == named.identity
    with pytest.raises(DataError, match=r"pool-14.*pool-1 to pool-13"):
        meadow_annotator("pool-14", seed=3)


def test_the_signature_of_the_pool_is_one_that_help_can_show(many: list[Comparison]) -> None:
    assert len(str(inspect.signature(MeadowPool))) < 300
    assert MeadowPool(seed=3).annotate(many[:50]) == MeadowPool(seed=3, raters=POOL).annotate(many[:50])
