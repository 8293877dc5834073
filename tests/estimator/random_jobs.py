"""Jobs of every path, for properties: any model of the catalogue, any GPU, any setting that resolves."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from ctxplan.models import models, resolve_model
from estimator import DEVICES, Architecture, Estimate, Job, JobError, MaxContext, estimate, max_context, parse_job
from estimator.job import ATTENTION, CHECKPOINTING, OPTIMIZERS

MODELS = tuple(listing.id for listing in models())
GPUS = tuple(device.name for device in DEVICES)

STEADY = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)
"""The same examples in every run, so that a red build means a changed model and not another die.

Random settings contradict each other often; an example that does not resolve is drawn again.
"""

TARGETS = st.sampled_from(
    [
        None,
        "all-linear",
        ["q_proj", "v_proj"],
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        ["gate_proj", "up_proj", "down_proj"],
    ]
)
FORMATS = st.sampled_from(
    [{}, {}, {}, {"load_in_16bit": True}, {"load_in_8bit": True}, {"load_in_fp8": True}, {"full_finetuning": True}]
)


@st.composite
def job_data(draw: st.DrawFn, *, longest: int = 300_000) -> dict[str, Any]:
    """A job as JSON. Not every one resolves: `run` assumes that it does."""
    data: dict[str, Any] = {
        "model": draw(st.sampled_from(MODELS)),
        "gpu": draw(st.sampled_from(GPUS)),
        "max_seq_length": draw(st.one_of(st.integers(1, 5000), st.integers(1, longest))),
        "per_device_train_batch_size": draw(st.sampled_from([1, 1, 1, 2, 3, 8, 64])),
        "gradient_accumulation_steps": draw(st.sampled_from([1, 1, 4])),
        "r": draw(st.sampled_from([1, 8, 16, 32, 128])),
        "optim": draw(st.sampled_from(OPTIMIZERS)),
        "use_gradient_checkpointing": draw(st.sampled_from(CHECKPOINTING)),
        "framework": draw(st.sampled_from(["unsloth", "unsloth", "unsloth", "transformers"])),
        "padding_free": draw(st.sampled_from([None, None, True, False])),
        "block_compile": draw(st.sampled_from([None, True, False])),
        "packing": draw(st.sampled_from([False, False, True])),
        "unsloth_tiled_mlp": draw(st.sampled_from([False, False, True])),
        "attn_implementation": draw(st.sampled_from([None, None, None, *ATTENTION])),
        "lora_dropout": draw(st.sampled_from([0, 0, 0.1])),
        "modules_to_save": draw(st.sampled_from([[], [], [], ["lm_head"], ["embed_tokens", "lm_head"]])),
        "num_hidden_layers": draw(st.sampled_from([None, None, 1, 2, 7])),
        "per_device_eval_batch_size": draw(st.sampled_from([None, None, 1, 16])),
        "offload_embedding": draw(st.sampled_from(["auto", "auto", True, False])),
        "host_ram_bytes": draw(st.sampled_from([None, None, None, 32 * 2**30, 128 * 2**30])),
        "confidence": draw(st.sampled_from([0.5, 0.8, 0.95, 0.95, 0.99])),
        **draw(FORMATS),
    }
    targets = draw(TARGETS)
    if targets is not None:
        data["target_modules"] = targets
    if draw(st.integers(0, 9)) == 0:
        data.update(mode="generate", max_new_tokens=draw(st.sampled_from([0, 1, 512, 4000])))
    return data


def architecture_of(model: str) -> Architecture:
    return resolve_model(model, offline=True).architecture


def read(data: dict[str, Any]) -> tuple[Job, Architecture]:
    return parse_job(data), architecture_of(data["model"])


def run(data: dict[str, Any], **changes: Any) -> Estimate:
    """The estimate; a job that contradicts itself is no example."""
    try:
        return estimate(*read({**data, **changes}))
    except JobError:
        assume(False)
        raise


def longest(data: dict[str, Any]) -> MaxContext:
    """The longest context; a job that contradicts itself is no example."""
    try:
        return max_context(*read(data))
    except JobError:
        assume(False)
        raise


def same_regime(one: Estimate, other: Estimate) -> bool:
    """Whether Unsloth decides alike in both; rows of a loss chunk and the number of host buffers follow the size."""
    sizes = ("loss_rows", "pinned_host_buffers")
    first, second = ({k: v for k, v in e.regime.items() if k not in sizes} for e in (one, other))
    return (first, one.execution_path) == (second, other.execution_path)
