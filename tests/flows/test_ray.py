"""The same run on a Ray cluster of two nodes, one of which is killed amid its work: the same bytes."""

import threading
import time
from pathlib import Path

import pytest

from pasture.core.errors import RunFolderError
from pasture.flow import NoScreen, execute, prepare
from tests.flows.test_kill import results
from tests.flows.tiny import LOOP, TINY, run_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Watched(NoScreen):
    """Says when so many steps are done."""

    def __init__(self, enough: int) -> None:
        self.reached = threading.Event()
        self._left = enough

    def finished(self, step: object, seconds: float, cost_usd: float | None) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()


def differing(home: Path, clustered: Path) -> list[str]:
    """The files of a run at home whose bytes are others on a cluster; reports hold the time they were made."""
    expected, found = results(home), results(clustered)
    alike = sorted(name for name in expected if not name.startswith((".locks", "7-report")))
    return [name for name in alike if found[name] != expected[name]]


def test_a_lost_node_means_that_its_steps_are_done_again_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    from ray.cluster_utils import Cluster

    quiet, clustered = tmp_path / "quiet", tmp_path / "clustered"
    assert run_tiny(quiet).returncode == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        screen = Watched(4)

        def lose() -> None:
            screen.reached.wait()
            time.sleep(0.5)
            cluster.remove_node(lost, allow_graceful=False)

        thief = threading.Thread(target=lose, daemon=True)
        thief.start()
        execute(prepare(LOOP, TINY, clustered), screen, cluster=cluster.address)
        thief.join()
    finally:
        cluster.shutdown()
    assert differing(quiet, clustered) == []


def test_a_training_of_two_processes_ends_on_a_cluster_as_at_home(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    from ray.cluster_utils import Cluster

    two = (*TINY, "processes=2")
    execute(prepare(LOOP, two, tmp_path / "home"), NoScreen())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        execute(prepare(LOOP, two, tmp_path / "clustered"), NoScreen(), cluster=cluster.address)
    finally:
        cluster.shutdown()
    assert differing(tmp_path / "home", tmp_path / "clustered") == []


def test_a_cluster_that_does_not_answer_is_said_before_anything_is_done(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    with pytest.raises(RunFolderError, match="no Ray cluster answers"):
        execute(prepare(LOOP, TINY, tmp_path / "run"), NoScreen(), cluster="127.0.0.1:1")
