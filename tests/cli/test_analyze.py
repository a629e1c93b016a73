"""`pasture analyze-annotators` on pairs whose texts repeat, and on the published ones."""

import gzip
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pasture.cli import analyze
from pasture.core.errors import DataError

app = typer.Typer()
analyze.register(app)
app.command("other")(lambda: None)  # with one verb alone typer would want no name

PANDALM = Path(__file__).parents[2].parent / "shared/data/pandalm/human_pairs.jsonl.gz"
needs_pandalm = pytest.mark.skipif(not PANDALM.exists(), reason=f"no PandaLM data at {PANDALM}")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["analyze-annotators", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def reports(*arguments: object) -> dict[str, Any]:
    return {row["annotator"]: row for row in json.loads(run(*arguments, "--json"))}


@pytest.fixture
def repeated(tmp_path: Path) -> Path:
    """Four pairs; the texts of the first two are the same, the answers of other systems."""
    labels = [(1, 1, 2, 2), (1, 2, 2, 1), (2, 2, 2, 2), (1, 1, 1, 2)]
    rows = [
        {"id": str(number), "instruction": "i" if number < 2 else f"i{number}", "output_1": "x", "output_2": "y",
         "generator_1": "a", "generator_2": f"b{number % 2}", "h1": one, "h2": two, "h3": three, "bot": bot}
        for number, (one, two, three, bot) in enumerate(labels)
    ]  # fmt: skip
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    return path


def test_rows_with_equal_texts_stay_pairs_of_their_own(repeated):
    found = reports(repeated, "--people", "h1,h2,h3", "--labels", "bot")
    assert [found[name]["pair_count"] for name in ("bot", "people")] == [4, 4]
    assert [found[name]["label_count"] for name in ("bot", "people")] == [4, 12]
    # Majorities by hand: 1, 2, 2, 1; the bot says 2, 1, 2, 2.
    assert found["bot"]["agreement"]["value"] == pytest.approx(1 / 4)
    # Two labels of a pair agree in 1, 1, 3 and 3 of 3 cases.
    assert found["people"]["pairwise_agreement"]["value"] == pytest.approx(8 / 12)


def test_an_error_says_which_of_the_two_files_lacks_the_column(repeated, tmp_path):
    people = tmp_path / "people.json"
    people.write_text(json.dumps([{"instruction": "i", "output_1": "x", "output_2": "y", "vote": 1}]))
    options = ("--labels", "bot", "--people")
    with pytest.raises(
        DataError, match=r"people\.json, row 1: no column 'preference'.*instruction, output_1, .*, vote"
    ):
        run(repeated, *options, people)
    with pytest.raises(DataError, match=r"pairs\.json, row 1: no column 'cat'"):
        run(repeated, "--labels", "cat")
    people.write_text("[]")
    with pytest.raises(DataError, match=r"people\.json holds no rows"):
        run(repeated, *options, people)
    people.write_text(json.dumps([{"id": "0", "preference": 1}]))
    with pytest.raises(DataError, match=r"people\.json, pairs: expected text under 'output_1'"):
        run(repeated, *options, people, "--pair", "id")


def test_a_column_that_names_the_pair_does_the_same(repeated):
    found = reports(repeated, "--labels", "bot", "--pair", "id")
    assert found["bot"]["pair_count"] == 4
    assert reports(repeated, "--labels", "bot")["bot"]["pair_count"] == 3


def test_each_annotator_ranks_the_systems(repeated):
    found = reports(repeated, "--people", "h1,h2,h3", "--labels", "bot", "--systems", "generator_1,generator_2")
    ranked = {row["system"]: row for row in found["people"]["ranking"]}
    assert ranked.keys() == {"a", "b0", "b1"}
    assert ranked["a"]["judged"] == 12
    # b0 wins 4 of 6 against a, b1 wins 2 of 6: without ties the gaps are the log odds.
    assert ranked["b0"]["strength"] - ranked["a"]["strength"] == pytest.approx(np.log(2), abs=1e-3)
    assert ranked["b1"]["strength"] - ranked["a"]["strength"] == pytest.approx(-np.log(2), abs=1e-3)
    assert "ranks not ruled out" in run(repeated, "--labels", "bot", "--systems", "generator_1,generator_2")
    with pytest.raises(DataError, match="expected two columns"):
        run(repeated, "--labels", "bot", "--systems", "generator_1")


@needs_pandalm
def test_pandalm_comes_out_as_counted_from_its_rows():
    with gzip.open(PANDALM, "rt") as file:
        rows = [json.loads(line) for line in file]
    people = np.array([[row[f"human_{number}"] for number in (1, 2, 3)] for row in rows])
    found = reports(
        PANDALM, "--people", "human_1,human_2,human_3", "--labels", "gpt35,pandalm_7b", "--systems",
        "generator_1,generator_2",
    )  # fmt: skip
    assert found["people"]["pair_count"] == 463
    alpha = krippendorff.alpha(reliability_data=people.T, level_of_measurement="nominal")
    assert found["people"]["alpha"]["value"] == pytest.approx(alpha, abs=1e-9)
    place = np.array([0.5, 0.0, 1.0])[people]
    gaps = [np.abs(place[:, a] - place[:, b]).mean() for a, b in combinations(range(3), 2)]
    assert found["people"]["pairwise_agreement"]["value"] == pytest.approx(1 - np.mean(gaps), abs=1e-9)
    for judge in ("gpt35", "pandalm_7b"):
        label = np.array([{"1": 0.0, "2": 1.0, "0": 0.5, "Tie": 0.5}.get(str(row[judge]), np.nan) for row in rows])
        clear = np.array([Counter(row).most_common(1)[0][1] > 1 for row in people.tolist()])
        majority = np.array([Counter(row).most_common(1)[0][0] for row in people.tolist()])
        agreement = 1 - np.nanmean(np.abs(label - np.array([0.5, 0.0, 1.0])[majority])[clear])
        # The few pairs with three different labels fall by AlpacaEval's draw, which this count leaves out.
        assert (~clear).sum() <= 5
        assert found[judge]["agreement"]["value"] == pytest.approx(agreement, abs=0.01)
        assert found[judge]["agreement"]["interval"]["low"] < agreement < found[judge]["agreement"]["interval"]["high"]
        assert len(found[judge]["ranking"]) == 5
    # All three call llama-7b the strongest and cerebras-gpt the weakest of the five.
    for annotator in found.values():
        assert annotator["ranking"][0]["system"] == "llama-7b"
        assert annotator["ranking"][-1]["system"] == "cerebras-gpt-6.7B"
        assert all(one["interval"][0] < one["strength"] < one["interval"][1] for one in annotator["ranking"])
