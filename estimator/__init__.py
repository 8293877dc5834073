"""ctxplan's memory model: what an Unsloth training step needs on its GPU, term by term, and the longest context that
fits.

Pure Python: no torch, no pydantic, no input or output. Bytes in, bytes out.

    from estimator import estimate, parse_job, read_config
    answer = estimate(parse_job({"model": "...", "max_seq_length": 89389, "r": 32}), read_config(config))
"""

from estimator.answer import estimate
from estimator.architecture import Architecture
from estimator.device import DEVICES, Device, find_device
from estimator.errors import (
    ArchitectureError,
    CtxplanError,
    JobError,
    UnknownDevice,
    UnknownModel,
    UnsupportedArchitecture,
)
from estimator.estimate import Bytes, Estimate, HostBytes, MaxContext, Phase, Term
from estimator.families import read_config
from estimator.job import RULES, Job, job_schema, job_to_json, parse_job
from estimator.parameters import parameter_count, with_layers
from estimator.solve import max_context

__all__ = [
    "DEVICES",
    "RULES",
    "Architecture",
    "ArchitectureError",
    "Bytes",
    "CtxplanError",
    "Device",
    "Estimate",
    "HostBytes",
    "Job",
    "JobError",
    "MaxContext",
    "Phase",
    "Term",
    "UnknownDevice",
    "UnknownModel",
    "UnsupportedArchitecture",
    "estimate",
    "find_device",
    "job_schema",
    "job_to_json",
    "max_context",
    "parameter_count",
    "parse_job",
    "read_config",
    "with_layers",
]
