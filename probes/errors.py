"""What can be wrong with a probe before there is anything to measure.

    CtxplanError
    └── ProbeError                a probe that cannot be asked, or cannot be run here
        ├── PointError            a point that is not one
        ├── ProbeUnavailable      a package, a device or a disk that the probe needs and this machine lacks
        └── EvidenceError         a file of measurements that cannot be read or written

What happens to a job that does run (out of memory, a crash, a hang) is a measurement, not an error.
"""

from __future__ import annotations

from estimator.errors import CtxplanError


class ProbeError(CtxplanError):
    """A probe that cannot be asked, or cannot be run on this machine."""

    code = "probe-error"


class PointError(ProbeError):
    """A point that is not one; the key says which part."""

    code = "invalid-point"


class ProbeUnavailable(ProbeError):
    """A package, a device or a disk that the probe needs and this machine lacks."""

    code = "probe-unavailable"


class EvidenceError(ProbeError):
    """A file of measurements that cannot be read or written."""

    code = "invalid-evidence"
