"""How a key is written: ``ctxp_``, 37 random characters, and six of a checksum.

The fixed beginning and the checksum let a scanner of secrets tell a key from any other text without asking anybody, and
let the service refuse a mistyped one without a look into the database.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib

START = "ctxp_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_CHARACTERS = 37
"""220 bits: such a key cannot be guessed, so that a fast hash of it will do."""
CHECK_CHARACTERS = 6
SHOWN_CHARACTERS = len(START) + 8
"""Of a key's beginning, by which its row is found and a person tells it from others."""
PATTERN = re.compile(rf"{START}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECK_CHARACTERS}}}")


def new_key() -> str:
    """A new key."""
    body = START + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return body + checksum(body)


def is_key(text: str) -> bool:
    """Whether a text is written as a key, its checksum right."""
    return PATTERN.fullmatch(text) is not None and checksum(text[:-CHECK_CHARACTERS]) == text[-CHECK_CHARACTERS:]


def prefix_of(key: str) -> str:
    """What of a key may be shown."""
    return key[:SHOWN_CHARACTERS]


def checksum(body: str) -> str:
    """CRC-32 of what stands before it, in base 62, six characters."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECK_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
