"""From a recipe to the steps that it takes: a graph with a content hash for every step."""

from pasture.plan.graph import Plan, Step, assemble, folder_fingerprint
from pasture.plan.loop import ANNOTATORS, BOARD, REPORT, build, outline
from pasture.plan.material import Absent, Outline
from pasture.plan.study import build_study, expanded, outline_study, run_name
from pasture.plan.systems import DATA, REWARD_MODEL, SFT

__all__ = [
    "ANNOTATORS",
    "BOARD",
    "DATA",
    "REPORT",
    "REWARD_MODEL",
    "SFT",
    "Absent",
    "Outline",
    "Plan",
    "Step",
    "assemble",
    "build",
    "build_study",
    "expanded",
    "folder_fingerprint",
    "outline",
    "outline_study",
    "run_name",
]
