"""What can be wrong with a question, as one exception tree.

    CtxplanError
    ├── JobError                  a job that cannot be planned as it was written
    ├── ArchitectureError         a config that lacks a dimension or has an absurd one
    │   └── UnsupportedArchitecture   a model_type that is not modelled
    ├── CalibrationError          a document that is no calibration
    ├── UnknownDevice             a GPU that is not in the catalogue
    └── UnknownModel              a model that could not be found

Every error names the key that is wrong and what is allowed, so that a command line, an HTTP answer and a Python
traceback can all say the same thing. ``code`` is stable: it ends the ``type`` of the HTTP problem document.
"""

from __future__ import annotations


class CtxplanError(Exception):
    """An answer cannot be given; ``key`` says which part of the question is at fault.

    Attributes:
        code: stable slug of the kind of error.
        key: the JSON key that is wrong, dotted where nested, or None where no single key is.
        allowed: what would be accepted, in words.
    """

    code = "error"

    def __init__(self, message: str, *, key: str | None = None, allowed: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.allowed = allowed

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        what = f" (allowed: {self.allowed})" if self.allowed else ""
        return f"{where}{self.message}{what}"


class JobError(CtxplanError):
    """A job that cannot be planned as it was written."""

    code = "invalid-job"


class ArchitectureError(CtxplanError):
    """A model config that lacks a dimension, or has one that no model has."""

    code = "invalid-architecture"


class UnsupportedArchitecture(ArchitectureError):
    """A ``model_type`` that is not modelled; the message says what support would need."""

    code = "unsupported-architecture"


class CalibrationError(CtxplanError):
    """A document that is no calibration, or one that was changed."""

    code = "invalid-calibration"


class UnknownDevice(CtxplanError):
    """A GPU name that is not in the catalogue."""

    code = "unknown-gpu"


class UnknownModel(CtxplanError):
    """A model that is neither in the catalogue, nor in a local cache, nor reachable."""

    code = "unknown-model"
