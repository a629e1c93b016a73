"""Keeping keys off the screen and the disk: what was named a secret is cut out of every text that leaves."""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from pasture.core.errors import RecipeError

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


def parse_redacted(text: str) -> Any:
    """The JSON in `text` with every text in it redacted; where it has no escapes, one look at the whole is enough.

    Raises:
        ValueError: if it is not JSON.
    """
    parsed = json.loads(text)
    return redact_all(parsed) if "\\" in text or redact(text) != text else parsed


_WITH_USER = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)?[^/?#]*@(?P<host>[^/?#]*)")


def refuse_key_in_address(address: str) -> None:
    """Let an address pass that holds no user's name and no key before its host: addresses are written into results.

    Raises:
        RecipeError: without repeating the key.
    """
    found = _WITH_USER.match(address)
    if found is not None:
        raise RecipeError(
            f"the address {found['scheme'] or ''}[key]@{found['host']} holds a name or a key in front of its host, "
            "and addresses are written into results. Leave it out, put the key into an environment variable, and name "
            "that: api_key_env, or --api-key-env."
        )


def refuse_keys_in_addresses(value: Any) -> None:
    """Do so for every text of a table of settings that is an address with its scheme.

    Raises:
        RecipeError: without repeating the key.
    """
    if isinstance(value, str) and "://" in value:
        refuse_key_in_address(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            refuse_keys_in_addresses(part)
    elif isinstance(value, list | tuple):
        for part in value:
            refuse_keys_in_addresses(part)


class RedactingFormatter(logging.Formatter):
    """Formats a record, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to be written."""
        return redact(super().format(record))
