"""Which layer inputs stay on the GPU, and which go to the host, for each ``use_gradient_checkpointing``.

Source: unsloth_zoo/gradient_checkpointing.py ``UnslothCheckpointFunction`` (``"unsloth"``), torch/utils/checkpoint.py
(``True``); unsloth/models/_utils.py ``apply_unsloth_gradient_checkpointing``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from estimator.allocator import MIB
from estimator.ledger import LiveSet
from estimator.resolve import Run
from estimator.sizes import Sizes

Checkpointing = Literal["unsloth", True, False]

LAST_INPUT = "last_layer_input"
SMART_MIN_LENGTH = 512
MINIMUM_OFFLOAD_BYTES = 2 * MIB
STAGING_START_BYTES = 2 * MIB
DOUBLE_BUFFER_HEADROOM_BYTES = 512 * MIB
SMART = "unsloth_zoo/gradient_checkpointing.py UnslothCheckpointFunction"
PLAIN = "torch/utils/checkpoint.py CheckpointFunction"
LAST_INDEX = f"{SMART}.forward, LAST_GC_INDEX"
SECOND_BUFFERS = f"{SMART}.forward, GPU_BUFFERS_B"
BUFFERS = f"{SMART}.forward, GPU_BUFFERS"


class Regime(NamedTuple):
    """What Unsloth decides from the free memory, for one step of one job on one device.

    Attributes:
        offloads: layer inputs go to the host ("unsloth", and one is larger than 2 MiB).
        double_buffer: a second staging buffer was admitted after the first step.
        embedding_offloaded: the input embedding lives on the host.
        steady: whether this is a step after the first (optimizer state exists, the last layer's input stays).
    """

    offloads: bool
    double_buffer: bool
    embedding_offloaded: bool
    steady: bool


def mode(run: Run, z: Sizes) -> Checkpointing:
    """The mode in effect: ``"unsloth"`` is plain checkpointing below a max_seq_length of 512, and outside Unsloth."""
    asked = run.job.use_gradient_checkpointing
    if asked == "unsloth" and (z.max_seq_length < SMART_MIN_LENGTH or run.job.framework == "transformers"):
        return True
    return asked


def offloads_inputs(run: Run, z: Sizes) -> bool:
    """Whether a hidden state is large enough for Unsloth to move it (strictly more than 2 MiB)."""
    return mode(run, z) == "unsloth" and z.u > MINIMUM_OFFLOAD_BYTES


def staging(run: Run, z: Sizes, regime: Regime) -> LiveSet:
    """The buffers through which layer inputs come back; they live for the whole run."""
    if mode(run, z) != "unsloth":
        return []
    first = max(z.u, STAGING_START_BYTES) if regime.offloads else 0
    second = 0
    if regime.offloads:
        second = max(z.u, STAGING_START_BYTES) if regime.double_buffer else 0
        if not regime.steady:
            second = STAGING_START_BYTES
    return [
        ("offload_staging", first, "u", BUFFERS),
        ("offload_staging_second", second, "u, after step 1 where 512 MiB are free", SECOND_BUFFERS),
    ]


def layer_inputs(run: Run, z: Sizes, regime: Regime, *, layers_done: int) -> LiveSet:
    """Layer inputs on the GPU while a layer runs, its predecessors' included.

    Args:
        layers_done: how many layers' inputs exist (all of them at the last layer, one at the first).
    """
    depth = run.architecture.num_hidden_layers
    if not regime.offloads:
        return [("layer_inputs", layers_done * z.u, "L u", f"{PLAIN}.forward")]
    leaf = (
        "embedding_output",
        z.u,
        "u",
        "unsloth/models/llama.py, leaf that requires grad, held by its AccumulateGrad",
    )
    if layers_done < depth or depth == 1 or not regime.steady:
        return [leaf]
    return [leaf, (LAST_INPUT, z.u, "u", LAST_INDEX)]


def host_slots(run: Run, regime: Regime) -> int:
    """Layer inputs that own a host buffer: all of them, since the first step offloads the last layer's too."""
    return run.architecture.num_hidden_layers if regime.offloads else 0
