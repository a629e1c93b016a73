"""Keeping keys off the screen and the disk: what was named a secret is cut out of every text that leaves."""

import logging
from typing import Any

_SECRETS: set[str] = set()
SHORTEST_SECRET = 8
"""Shorter values, such as a placeholder key of a local server, would cut up ordinary words."""


def remember_secret(value: str) -> None:
    """Have `redact` cut `value` out from now on."""
    if len(value) >= SHORTEST_SECRET:
        _SECRETS.add(value)


def redact(text: str) -> str:
    """`text` with '[key]' in the place of every secret."""
    for secret in _SECRETS:
        if secret in text:
            text = text.replace(secret, "[key]")
    return text


def redact_all(value: Any) -> Any:
    """Parsed JSON with every text in it redacted: its escapes may have spelled a secret that the file did not show."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_all(name): redact_all(part) for name, part in value.items()}
    if isinstance(value, list):
        return [redact_all(part) for part in value]
    return value


class RedactingFormatter(logging.Formatter):
    """Formats a record, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to be written."""
        return redact(super().format(record))
