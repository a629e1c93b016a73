"""Keys of services: read from the environment where they are first needed, and cut out of whatever is written after."""

import os

from pasture.core.errors import EngineError
from pasture.core.redaction import remember_secret


def key_in_environment(variable: str, address: str, setting: str) -> str:
    """The key in the environment variable that `setting` names, for the service at `address`.

    Raises:
        EngineError: naming the variable, where it is not set.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EngineError(
            f"{address} needs a key in the environment variable {variable}, which is not set. "
            f"Export it, or name another with {setting}."
        )
    remember_secret(key)
    return key
