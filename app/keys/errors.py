"""What is wrong with keys.

CtxplanError
└── KeysError
    ├── SecretUnavailable     what keys are hashed with cannot be read, made or trusted
    ├── InvalidKeyRequest     a key that cannot be made as it was asked for
    └── UnknownKey            no key has this id
"""

from __future__ import annotations

from estimator.errors import CtxplanError


class KeysError(CtxplanError):
    """Keys cannot be used, or not so."""

    code = "keys-error"


class SecretUnavailable(KeysError):
    """What keys are hashed with cannot be read or made, or others can read it."""

    code = "queue-unavailable"


class InvalidKeyRequest(KeysError):
    """A key that cannot be made as it was asked for."""

    code = "invalid-submission"


class UnknownKey(KeysError):
    """No key has this id or prefix, or several begin so."""

    code = "unknown-key"
