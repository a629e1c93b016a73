"""Every layout, read back by who reads it; labels from elsewhere as a finished campaign."""

import gzip
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.events import Settings, Voted
from pasture.annotate.campaign.export import cross_annotation_rows, majority, preferences, trl_rows, write_export
from pasture.annotate.campaign.finished import finished
from pasture.annotate.campaign.making import named_annotators, opening, read_answered, read_pairs
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.tables import write_rows
from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Preference
from pasture.core.tables import read_rows
from pasture.validate.agreement import analyze
from pasture.validate.cross_annotations import Columns, read_cross_annotations
from tests.annotate.people.campaigns import answer, comparison, do, make, truly

PANDALM = Path(__file__).parents[4] / "shared" / "data" / "pandalm" / "human_pairs.jsonl.gz"


def labelled() -> Campaign:
    """Two pairs by three people: the first is two to one for its first, the second a tie, both bad and a skip."""
    campaign = make(2, ["ann", "ben", "cy"], overlap=3, wage_usd_per_hour=36.0, repeat_share=1.0, gold=1)
    wanted = {
        ("ann", "i0000"): "first", ("ben", "i0000"): "first", ("cy", "i0000"): "second",
        ("ann", "i0001"): "tie", ("ben", "i0001"): "both_bad", ("cy", "i0001"): "skip",
    }  # fmt: skip
    for name in campaign.annotators:
        while (item := campaign.current(name)) is not None:
            said = wanted.get((name, item.pair.comparison.instruction.id), "tie")
            if said in ("first", "second"):
                said = truly(said)(name, item)
            answer(campaign, name, said, reason="unclear", seconds=20.0)  # type: ignore[arg-type]
    return campaign


def test_records_hold_every_label_once_and_no_gold_or_repetition(tmp_path: Path) -> None:
    campaign = labelled()
    write_export(campaign, "records", tmp_path)
    said = read_records(tmp_path / "preferences.jsonl", Preference)
    pairs = read_records(tmp_path / "comparisons.jsonl", Comparison)
    assert [each.instruction.id for each in pairs] == ["i0000", "i0001"]
    verdicts = [(each.comparison_id == pairs[0].id, each.annotator, each.preferred) for each in said]
    assert verdicts == [
        (True, "ann", "first"), (True, "ben", "first"), (True, "cy", "second"),
        (False, "ann", "tie"), (False, "ben", "tie"), (False, "cy", "unjudged"),
    ]  # fmt: skip
    assert said[4].evidence == {"both_bad": True, "reason": "unclear"}
    assert said[5].error == "skipped: unclear"
    assert all(each.cost_usd == pytest.approx(0.20) for each in said)  # 20 s at 36 dollars an hour


def test_trl_gets_the_majoritys_choice_and_is_told_what_is_left_out(tmp_path: Path) -> None:
    campaign = labelled()
    told = write_export(campaign, "trl", tmp_path / "trl.jsonl")
    assert read_rows(tmp_path / "trl.jsonl") == [
        {"prompt": "Say the number 0.", "chosen": "It is 0.", "rejected": "Perhaps 0?"}
    ]
    assert "left out: 1 pairs without a majority" in told


def test_alpaca_eval_annotations_code_first_second_tie_and_none(tmp_path: Path) -> None:
    write_export(labelled(), "alpaca-eval", tmp_path / "annotations.json")
    rows = json.loads((tmp_path / "annotations.json").read_text())
    assert [row["preference"] for row in rows] == [1.0, 1.0, 2.0, 1.5, 1.5, None]
    assert {row["generator_1"] for row in rows} == {"secret-system-alpha"}


def test_cross_annotations_are_read_back_with_the_agreement_that_they_hold() -> None:
    # By hand: the first pair's labels agree in 1 of 3 couples; the second's two ties agree, the skip is missing.
    rows = cross_annotation_rows(labelled())
    assert [row["annotator_index"] for row in rows] == [0, 1, 2, 0, 1, 2]
    crowd = read_cross_annotations(rows, Columns(), name="people")["people"]
    assert crowd.labels.shape == (2, 3)
    report = analyze(crowd, crowd, seed=0)
    assert report.pairwise_agreement is not None
    # The mean over couples of columns: (0 + 0)/2 for the first two people, 1 and 1 for the other couples of one pair.
    assert report.pairwise_agreement.value == pytest.approx(1 - (0 + 1 + 1) / 3)


def test_answers_of_the_dropped_are_in_no_export() -> None:
    campaign = labelled()
    do(campaign, acts.drop(campaign, "ben"))
    assert {each.annotator for each in preferences(campaign)} == {"ann", "cy"}
    assert trl_rows(campaign)[0] == []


def test_a_majority_is_more_than_the_other_side_ties_aside() -> None:
    def vote(said):
        return Voted(
            annotator="a", item="i", comparison_id="c", role="work", said=said, shown_first="first"
        )  # fmt: skip

    assert majority([vote("first"), vote("tie"), vote("both_bad")]) == "first"
    assert majority([vote("first"), vote("second")]) is None
    assert majority([]) is None


def test_an_unknown_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Layouts: records, trl"):
        write_export(labelled(), "excel", tmp_path / "x")  # type: ignore[arg-type]


class TestMaking:
    def test_pairs_come_as_rows_as_records_from_two_systems_or_from_samples(self, tmp_path: Path) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "preference": 1}
        write_rows(tmp_path / "rows.jsonl", [row, row])
        made = read_pairs(tmp_path / "rows.jsonl")
        assert [each.first.text for each in made.comparisons] == ["Hello."]
        assert made.left_out == ("1 pairs that are there twice, word for word",)
        (tmp_path / "records.jsonl").write_text(comparison(3).to_json() + "\n")
        assert read_pairs(tmp_path / "records.jsonl").comparisons == [comparison(3)]
        for name, text in (("a", "One."), ("b", "Two.")):
            write_rows(tmp_path / f"{name}.json", [{"instruction": "Count.", "output": text, "generator": name}])
        joined = read_pairs(tmp_path / "a.json", other=tmp_path / "b.json").comparisons
        assert [(each.first.system, each.second.text) for each in joined] == [("a", "Two.")]
        write_rows(tmp_path / "samples.json", [{"instruction": "Count.", "outputs": ["1", "2", "3"]}])
        assert len(read_pairs(tmp_path / "samples.json", samples="all").comparisons) == 3

    def test_whatever_columns_a_file_has_are_not_in_the_way_of_its_pairs(self, tmp_path: Path) -> None:
        more = {"seconds": 1.2, "preference": 1, "annotator": "x", "cost_usd": 0.1}
        for name in "ab":
            write_rows(tmp_path / f"{name}.json", [{"instruction": "Count.", "output": name, **more}])
        assert len(read_pairs(tmp_path / "a.json", other=tmp_path / "b.json").comparisons) == 1
        write_rows(tmp_path / "samples.json", [{"instruction": "Count.", "outputs": ["1", "2"], **more}])
        assert len(read_pairs(tmp_path / "samples.json", samples="one").comparisons) == 1

    def test_two_pairs_of_one_id_are_not_taken_for_one(self, tmp_path: Path) -> None:
        one, other = comparison(1), comparison(2).model_copy(update={"id": comparison(1).id})
        write_records(tmp_path / "pairs.jsonl", [one, other])
        with pytest.raises(DataError, match=rf"two comparisons have the id '{one.id}'"):
            read_pairs(tmp_path / "pairs.jsonl")

    @pytest.mark.parametrize(
        ("answer", "means"),
        [
            (1, "first"), ("2", "second"), (1.5, "tie"), ("tie", "tie"),
            ("first", "first"), ("second", "second"), ("1.0", "first"), ("2.0", "second"), ("0.0", "tie"),
        ],
    )  # fmt: skip
    def test_known_answers_are_read_in_every_coding(self, tmp_path: Path, answer: object, means: str) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "preference": answer}
        write_rows(tmp_path / "gold.jsonl", [row])
        assert read_answered(tmp_path / "gold.jsonl")[0][1] == means

    @pytest.mark.parametrize("answer", [3, "both", None, -1, 1.3, True, False, {"a": 1}])
    def test_other_answers_are_an_error_that_names_the_row(self, tmp_path: Path, answer: object) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "preference": answer}
        write_rows(tmp_path / "gold.jsonl", [row])
        with pytest.raises(DataError, match="row 1: answer"):
            read_answered(tmp_path / "gold.jsonl")

    def test_annotators_are_numbered_or_named(self) -> None:
        assert named_annotators("3") == ("a01", "a02", "a03")
        assert named_annotators("100")[-1] == "a100"
        assert named_annotators(" ann, ben") == ("ann", "ben")
        for wrong in ("", "0", "ann,ann", "owner,ann"):
            with pytest.raises(DataError, match="annotators"):
                named_annotators(wrong)

    def test_a_round_that_nobody_could_pass_is_refused(self) -> None:
        with pytest.raises(DataError, match="less than 1, got 1"):
            opening("x", [comparison(1)], ["ann"], Settings(pass_share=1.0))

    def test_a_pair_has_one_role(self) -> None:

        with pytest.raises(DataError, match="among the work and the gold pairs"):
            opening("x", [comparison(1)], ["ann"], Settings(), gold=[(comparison(1), "first")])


class TestFinished:
    def test_labels_of_others_give_the_agreement_of_their_file(self, tmp_path: Path) -> None:
        """PandaLM's three people, the oracle being NumPy on the file itself."""
        if not PANDALM.exists():
            pytest.skip("PandaLM's labels are not on this machine")

        campaign = Campaign.replayed(finished(PANDALM, "pandalm", ["human_1", "human_2", "human_3"]))
        crowd = read_cross_annotations(cross_annotation_rows(campaign), Columns(pair="pair_id"), name="people")[
            "people"
        ]
        report = analyze(crowd, crowd, seed=0)
        rows = [json.loads(line) for line in gzip.decompress(PANDALM.read_bytes()).splitlines()]
        coded = {0: 0.5, 1: 0.0, 2: 1.0}
        table = np.array([[coded[row[f"human_{n}"]] for n in (1, 2, 3)] for row in rows])
        distance = np.mean([np.abs(table[:, i] - table[:, j]) for i, j in combinations(range(3), 2)])
        same = np.mean([table[:, i] == table[:, j] for i, j in combinations(range(3), 2)])
        assert report.pair_count == len(campaign.pairs) == 463
        assert report.pairwise_agreement is not None
        assert report.pairwise_agreement.value == pytest.approx(1 - distance, abs=1e-12)
        assert same > 0.9  # "about 0.92 pairwise" of all 999, says their README
        assert campaign.closed
        assert campaign.missing_labels() == 0
        assert {campaign.share_of(name) for name in campaign.annotators} == {463}

    def test_one_label_a_row_with_its_annotator_is_read_too(self, tmp_path: Path) -> None:
        campaign = labelled()
        do(campaign, acts.close(campaign))
        write_export(campaign, "alpaca-eval", tmp_path / "a.json")
        again = Campaign.replayed(finished(tmp_path / "a.json", "again", ["preference"], "annotator"))
        wanted = [(each.annotator, each.preferred) for each in preferences(campaign) if each.preferred != "unjudged"]
        assert [(each.annotator, each.preferred) for each in preferences(again)] == wanted
        assert again.missing_labels() == 1

    @pytest.mark.parametrize("nobody", [None, "", float("nan")])
    def test_whoever_has_no_name_is_unknown(self, tmp_path: Path, nobody: object) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "who": nobody, "label": 1}
        (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
        assert list(Campaign.replayed(finished(tmp_path / "a.jsonl", "a", ["label"], "who")).annotators) == ["unknown"]

    def test_the_owner_is_no_annotator_of_a_file_either(self, tmp_path: Path) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "who": "owner", "label": 1}
        write_rows(tmp_path / "a.jsonl", [row])
        with pytest.raises(DataError, match=r"a\.jsonl: 'owner' is who made a campaign"):
            finished(tmp_path / "a.jsonl", "a", ["label"], "who")

    @pytest.mark.parametrize(
        ("label", "means"), [("tie", "tie"), ("1.0", "first"), ("garbage", None), (-1.0, None), ("null", None)]
    )
    def test_labels_are_read_as_everywhere(self, tmp_path: Path, label: object, means: str | None) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "sure": 2, "label": label}
        write_rows(tmp_path / "a.jsonl", [row])
        campaign = Campaign.replayed(finished(tmp_path / "a.jsonl", "a", ["sure", "label"]))
        said = {each.annotator: each.preferred for each in preferences(campaign) if each.preferred != "unjudged"}
        assert said == {"sure": "second"} | ({} if means is None else {"label": means})

    @pytest.mark.parametrize("label", [7, 1.3, True])
    def test_a_label_that_is_none_is_named(self, tmp_path: Path, label: object) -> None:
        row = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hi.", "who": "x", "label": label}
        write_rows(tmp_path / "a.jsonl", [row])
        with pytest.raises(DataError, match=f"row 1: label {label} under 'label'"):
            finished(tmp_path / "a.jsonl", "a", ["label"])
        with pytest.raises(DataError, match="no column 'human'"):
            finished(tmp_path / "a.jsonl", "a", ["human"])
