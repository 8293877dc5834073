"""One measured number, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A measurement.

    Attributes:
        limit: the promise, or None for a number that is only shown. better: which side of the limit keeps it.
    """

    what: str
    measured: float
    unit: str
    limit: float | None = None
    better: Literal["below", "above"] = "below"

    @property
    def passed(self) -> bool:
        if self.limit is None:
            return True
        return self.measured <= self.limit if self.better == "below" else self.measured >= self.limit

    @property
    def text(self) -> str:
        return _with_unit(self.measured, self.unit)

    @property
    def limit_text(self) -> str:
        sign = "<=" if self.better == "below" else ">="
        return "" if self.limit is None else f"{sign} {_with_unit(self.limit, self.unit)}"


def _with_unit(value: float, unit: str) -> str:
    return f"{value:,.3g} {unit}".rstrip() if value < 1000 else f"{value:,.0f} {unit}".rstrip()
