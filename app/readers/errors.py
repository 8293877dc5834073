"""What is wrong with a launcher's config, and where in its file."""

from __future__ import annotations

from typing import NamedTuple

from estimator.errors import CtxplanError


class Place(NamedTuple):
    """A line of a file, counted from 1; None where no single line is at fault."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class ConfigError(CtxplanError):
    """A config that cannot be read as what it is said to be.

    Attributes:
        place: the file, and the line of the key that is wrong.
    """

    code = "invalid-config"

    def __init__(self, message: str, *, place: Place, key: str | None = None, allowed: str | None = None) -> None:
        super().__init__(message, key=key, allowed=allowed)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {super().__str__()}"
