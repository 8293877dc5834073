"""The environment variables with which a process runs a job as it is planned: scripts and probes set the same."""

from __future__ import annotations

from estimator import Job


def environment(job: Job, execution_path: str | None = None) -> dict[str, str]:
    """The variables, to be set before torch or Unsloth is imported.

    Args:
        job: as resolved by an estimate, together with the estimate's execution path; or as asked, without one. What
            an asked job leaves null sets nothing.

    Source: ``unsloth/models/_utils.py`` and ``unsloth_zoo`` read the variables at import (unsloth 2026.10.9).
    """
    variables = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    if job.framework == "transformers":
        return variables
    dense = not (job.padding_free or job.packing)
    if dense and job.mode == "train" and job.block_compile is False and execution_path in (None, "eager"):
        variables["UNSLOTH_BLOCK_COMPILE"] = "0"
    if job.use_gradient_checkpointing == "unsloth" and job.pin_host_memory is False:
        variables["UNSLOTH_DISABLE_PINNED_MEMORY"] = "1"
    if job.unsloth_tiled_mlp:
        variables["UNSLOTH_TILED_MLP"] = "arctic"
    return variables
