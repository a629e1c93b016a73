"""Secrets that are handed out, and what is kept of them: digests alone.

An invite link holds a token. The cookie that takes its place holds a session, drawn from the token and of no use in a
link. The journal holds a digest of each, so that whoever reads it can be neither.
"""

import base64
import hashlib
import hmac
import secrets

TOKEN_BYTES = 24
ID_BYTES = 12


def new_token() -> str:
    """An invite token of 192 random bits, fit for a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def session_of(token: str) -> str:
    """The session that a token opens: always the same one, so that opening it writes nothing."""
    return _text(hmac.digest(token.encode(), b"pasture session", "sha256"))


def digest(secret: str) -> str:
    """What is stored of a token or a session; 192 random bits need no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def form_token(session: str) -> str:
    """What a form must carry to be taken for one of our own; only who holds the session can know it."""
    return _text(hmac.digest(session.encode(), b"pasture form", "sha256"))


def item_id(secret: str, annotator: str, role: str, comparison_id: str) -> str:
    """Name of an item: tells an annotator nothing of pair and role, and means nothing to another annotator."""
    return _text(_keyed(secret, "item", annotator, role, comparison_id)[:ID_BYTES])


def seal(secret: str, *parts: str) -> str:
    """A mark that only the campaign can have put on `parts`."""
    return _text(_keyed(secret, "seal", *parts)[:ID_BYTES])


def is_sealed(mark: str, secret: str, *parts: str) -> bool:
    """Whether `mark` is the campaign's own on `parts`."""
    return hmac.compare_digest(mark.encode(), seal(secret, *parts).encode())


def fraction(secret: str, *parts: str) -> float:
    """A draw from [0, 1) that belongs to `parts` and cannot be known without the secret."""
    return (int.from_bytes(_keyed(secret, "draw", *parts)[:8], "big") >> 11) / 2**53


def _keyed(secret: str, *parts: str) -> bytes:
    # Each part with its length, so that no two lists of parts are one text.
    message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.digest(secret.encode(), message, "sha256")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
