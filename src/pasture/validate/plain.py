"""Results as plain JSON values."""

import math


def plain(value: object) -> object:
    """`value` with tuples as lists, named tuples as objects and numbers that are not finite as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        fields = getattr(value, "_asdict", None)
        return plain(fields()) if fields else [plain(part) for part in value]
    return value
