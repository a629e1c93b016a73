"""Telling two trained models apart without reading them whole."""

import hashlib
from pathlib import Path

SAMPLED_BYTES = 2**20
"""Of each end of a file of weights: enough to tell two trained models apart, little enough for large ones."""


def weights_hash(folder: Path) -> str:
    """Sixteen hexadecimal digits that change with a model's configuration, tokenizer or weights."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.jinja")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
            file.seek(max(0, size - SAMPLED_BYTES))
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]
