"""Why a fleet cannot be asked for, or not be started.

ProbeError
└── FleetError            a fleet that cannot be
    ├── FleetOptionError  an option that no script or manifest can carry
    ├── ToolMissing       sbatch, kubectl or ray is not installed here
    ├── SubmitFailed      the tool refused
    └── ClusterAway       the Ray cluster cannot be reached, or is gone
"""

from __future__ import annotations

from probes.errors import ProbeError


class FleetError(ProbeError):
    """A fleet that cannot be."""

    code = "fleet-error"


class FleetOptionError(FleetError):
    """An option that no script or manifest can carry; the key names it."""

    code = "invalid-fleet-option"


class ToolMissing(FleetError):
    """What starts the fleet is not installed here."""

    code = "tool-missing"


class SubmitFailed(FleetError):
    """The tool that starts the fleet refused."""

    code = "submit-failed"


class ClusterAway(FleetError):
    """The Ray cluster cannot be reached, or is gone."""

    code = "cluster-away"
