"""The lengths of the data that a run will see, from the JSON that ``ctxplan tokens`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estimator.errors import CtxplanError
from estimator.job import MAX_TOKENS
from estimator.rules import shown

PERCENTILES = ("p50", "p90", "p95", "p99", "max")


class TokenReportError(CtxplanError):
    """A document that is no report of ``ctxplan tokens``."""

    code = "invalid-documents"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """How long the samples are, in tokens.

    Attributes:
        p50, p99: lengths that half, and 99 %, of the samples do not exceed.
    """

    documents: int
    tokens: int
    p50: int
    p99: int
    longest: int

    def to_json(self) -> dict[str, int]:
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "p50": self.p50,
            "p99": self.p99,
            "longest": self.longest,
        }


def read_token_report(data: Any) -> TokenReport:
    """Read a report. Keys beside the ones that are needed are left alone. Raises TokenReportError."""
    if not isinstance(data, Mapping):
        raise TokenReportError(f"holds {shown(data)}", allowed="the JSON that ctxplan tokens writes")
    percentiles = data.get("percentiles")
    if not isinstance(percentiles, Mapping):
        raise TokenReportError(
            f"{shown(percentiles)} is not accepted", key="percentiles", allowed=", ".join(PERCENTILES)
        )
    lengths = [_count(percentiles, name, f"percentiles.{name}", MAX_TOKENS) for name in PERCENTILES]
    if lengths != sorted(lengths):
        raise TokenReportError("do not grow", key="percentiles", allowed="p50 <= p90 <= p95 <= p99 <= max")
    if not lengths[-1]:
        raise TokenReportError("no document has a token", key="percentiles.max", allowed="at least 1")
    return TokenReport(
        documents=_count(data, "documents", "documents", 2**53),
        tokens=_count(data, "tokens", "tokens", 2**63),
        p50=lengths[0],
        p99=lengths[3],
        longest=lengths[4],
    )


def _count(data: Mapping[str, Any], name: str, key: str, most: int) -> int:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise TokenReportError(f"{shown(value)} is not accepted", key=key, allowed=f"a whole number from 0 to {most}")
    return value
