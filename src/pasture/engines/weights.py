"""Telling two trained models apart."""

import hashlib
from pathlib import Path

from pasture.core.files import weights_fingerprint


def weights_hash(folder: Path) -> str:
    """Sixteen hexadecimal digits that change with a model's configuration, tokenizer or weights."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.jinja")]):
        digest.update(f"{path.name} {weights_fingerprint(path)}\n".encode())
    return digest.hexdigest()[:16]
