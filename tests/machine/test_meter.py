"""The metrics log: resumed equals undisturbed, and nothing half-written is kept."""

import json
import math
import resource

import pytest

from pasture.core.errors import RunFolderError, TrainingError
from pasture.machine.meter import MetricsLog, peak_memory_bytes
from tests.disks import mounted


def write_steps(path, steps, after_step=0):
    with MetricsLog(path, after_step=after_step) as log:
        for step in steps:
            log.write(step, loss=1.0 / step, reward=0.1 * step)


def test_rows_are_json_lines(tmp_path):
    write_steps(tmp_path / "metrics.jsonl", [1, 2])
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 1.0, "reward": 0.1}\n{"step": 2, "loss": 0.5, "reward": 0.2}\n'
    )


def test_a_row_is_on_disk_before_the_log_is_closed(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, loss=2.0)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 2.0}
    log.close()


@pytest.mark.parametrize("killed_after", range(9))
@pytest.mark.parametrize("cut", [0, 1, 10])
def test_a_resumed_log_equals_an_undisturbed_one(tmp_path, killed_after, cut):
    # A checkpoint every three steps; the kill may cut the last row short.
    write_steps(tmp_path / "whole", range(1, 10))
    write_steps(tmp_path / "resumed", range(1, killed_after + 1))
    content = (tmp_path / "resumed").read_bytes()
    if killed_after % 3:
        (tmp_path / "resumed").write_bytes(content[: len(content) - cut])
    checkpoint = killed_after // 3 * 3
    write_steps(tmp_path / "resumed", range(checkpoint + 1, 10), after_step=checkpoint)
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_new_run_empties_an_old_log(tmp_path):
    write_steps(tmp_path / "metrics.jsonl", [1, 2, 3])
    write_steps(tmp_path / "metrics.jsonl", [])
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_stops_training(tmp_path, value):
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(TrainingError, match="step 4: kl is"):
        log.write(4, loss=1.0, kl=value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_full_disk_says_so(tmp_path):
    with mounted(tmp_path / "disk", "8k") as disk, pytest.raises(RunFolderError, match="make room"):
        write_steps(disk.path / "metrics.jsonl", range(1, 2000))


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot write"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")


def test_peak_memory_is_what_the_system_counts():
    assert peak_memory_bytes() == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.01)
