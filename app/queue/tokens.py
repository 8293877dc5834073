"""The secret of a lease."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """256 random bits, as text for a header."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is stored of a token. It has too many random bits to be guessed, so a plain hash will do."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
