"""The tables of a study say of its worlds what its recipe has them be."""

from pasture.report.study_content import StudyContent
from pasture.report.study_tables import method_table
from tests.report.study_numbers import study


def _meanings(content: StudyContent) -> dict[str, str]:
    table = method_table(content)
    assert table is not None
    return {column.title: column.meaning for column in table.columns if column.title != "Characters"}


def test_the_columns_of_the_two_worlds_name_who_taught_and_who_judged() -> None:
    worlds = [
        {"feedback": "our crowd", "judge": "crowd", "pairs": []},
        {"feedback": "one noiseless judge", "judge": "greedy", "pairs": []},
    ]
    found = _meanings(StudyContent.model_validate({**study().model_dump(), "differences": worlds}))
    assert found["Simulation"] == "Trained on one noiseless judge, judged by greedy."
    assert found["People"] == "Trained on our crowd, judged by crowd."
    assert found["Transfer"].startswith("Trained on one noiseless judge, judged by crowd: ")
