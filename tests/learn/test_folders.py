"""Training takes its folder as a path, and says so before it has begun where it is handed a text."""

from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import DataError
from pasture.learn import METHODS
from tests.learn import toy
from tests.learn.test_metrics_page import SETTINGS, data_for


@pytest.mark.parametrize(
    ("method", "what"),
    [*((method, "folder") for method in SETTINGS), ("reward_model_ensemble", "start"), ("expert_iteration", "start")],
)
def test_a_text_in_place_of_a_folder_is_told_how_it_becomes_a_path(
    method: str, what: str, imitator: Path, taste: Path, tmp_path: Path
) -> None:
    folders: dict[str, Any] = {"start": imitator, "folder": tmp_path}
    folders[what] = str(folders[what])
    module = METHODS[method]
    with pytest.raises(DataError, match=rf"{what}='.*': expected a Path, got str. Write {what}=Path\('.*'\)\."):
        module.train(
            module.Config(**SETTINGS[method]), **folders, seed=0, progress=toy.quiet, **data_for(method, taste)
        )
    assert list(tmp_path.iterdir()) == []
