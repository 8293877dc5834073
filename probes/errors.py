"""What can be wrong with a probe before there is anything to measure.

    CtxplanError
    └── ProbeError                a probe that cannot be asked, or cannot be run here
        ├── PointError            a point that is not one
        ├── ProbeUnavailable      a package, a device or a disk that the probe needs and this machine lacks
        ├── EvidenceError         a file of measurements that cannot be read or written
        ├── FitError              measurements that no calibration can be made from
        └── WrongBatch            the model was given another batch than the point's

What happens to a job that does run (out of memory, a crash, a hang) is a measurement, not an error; the last one is
raised in the measured process, and its point has crashed.
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


class FitError(ProbeError):
    """Measurements that no calibration can be made from."""

    code = "cannot-fit"


class WrongBatch(ProbeError):
    """The model was given another batch than the point's, so that what was measured is not the point."""

    code = "wrong-batch"
