"""What to do about a model or data that a recipe names and that are not on this machine."""

from pathlib import PurePosixPath

from pasture.data.hub import HUB
from pasture.plan import Absent


def remedy(absent: Absent) -> str:
    """How it comes here, or what to name in its place."""
    if absent.key == "model.start":
        return (
            f"Put a model there (hf download ORG/NAME --local-dir {absent.name}), or name another folder: "
            "model.start=FOLDER."
        )
    if absent.name.startswith(HUB):
        return _from_hub(absent)
    if absent.key.startswith("pools."):
        return f"Put a model there as well, or name another: {absent.key}.models='[\"FOLDER\"]'."
    return f"Put the file there, or name another: {absent.key}=FILE."


def _from_hub(absent: Absent) -> str:
    """The run fetches it; the command is for machines without a network."""
    name, _, revision = absent.name.removeprefix(HUB).partition("@")
    organization, data_set, *files = name.split("/")
    pattern = "/".join(files)
    include = f" --include '{pattern}'" if pattern else ""
    at = f" --revision {revision}" if revision else ""
    place = PurePosixPath("FOLDER", pattern)
    place = place.parent if "*" in pattern else place
    return (
        f"The run fetches it, unless it did before; or: hf download {organization}/{data_set} --repo-type dataset"
        f"{include}{at} --local-dir FOLDER, then {absent.key}={place}."
    )
