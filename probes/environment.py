"""The environment of the measured process, what of it a measurement notes, and what a point may set in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ctxplan.environment import environment as implied

if TYPE_CHECKING:
    from probes.points import Point

PREFIXES = (
    "UNSLOTH_",
    "PYTORCH_",
    "TORCH_",
    "TORCHDYNAMO_",
    "TORCHINDUCTOR_",
    "TORCHELASTIC_",
    "TRITON_",
    "ACCELERATE_",
    "FSDP_",
    "BNB_",
    "BITSANDBYTES_",
    "XFORMERS_",
    "FLASH_ATTENTION_",
    "CUBLAS_",
    "CUBLASLT_",
    "NCCL_",
    "OMPI_COMM_WORLD_",
    "PMI_",
    "MV2_COMM_WORLD_",
)
NAMES = frozenset(
    {
        "CUDA_DEVICE_ORDER",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_MODULE_LOADING",
        "NVIDIA_TF32_OVERRIDE",
        # A launcher's, which make accelerate and transformers believe that there are several processes.
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "NODE_RANK",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    }
)
"""With `PREFIXES`: what can change what is measured. None of it comes from the surroundings into the process."""
TOOLCHAIN = frozenset(
    {
        "TRITON_PTXAS_PATH",
        "TRITON_PTXAS_BLACKWELL_PATH",
        "TRITON_CUOBJDUMP_PATH",
        "TRITON_NVDISASM_PATH",
        "TRITON_LIBCUDA_PATH",
    }
)
"""Where this machine has its compiler, without which nothing compiles there: kept from the surroundings alone."""
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
QUIET = {
    # A probe loads what lies on this machine, and tells nobody.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CACHES = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
"""Compiled kernels, which another process can use as they are."""
OLDER_NAMES = {"PYTORCH_CUDA_ALLOC_CONF": "PYTORCH_ALLOC_CONF"}
"""Where a point sets the first, the job's own second would win over it (torch reads both from 2.10 on)."""

POINT_VARIABLES = frozenset(
    """
    UNSLOTH_BLOCK_COMPILE UNSLOTH_BLOCK_COMPILE_DYNAMIC_BATCH UNSLOTH_BLOCK_COMPILE_LEGACY UNSLOTH_BLOCK_COMPILE_SSM
    UNSLOTH_BLOCK_CUDAGRAPHS UNSLOTH_BLOCK_FLEX UNSLOTH_BLOCK_MOE
    UNSLOTH_BNB_GEMM_4BIT UNSLOTH_BNB_NF4_LINEAR UNSLOTH_BNB_TRITON
    UNSLOTH_CE_CHUNK_ALIGN UNSLOTH_CE_FP32_HEAD_GRAD UNSLOTH_CE_LOSS_N_CHUNKS UNSLOTH_CE_LOSS_TARGET_GB
    UNSLOTH_CHUNKED_CE UNSLOTH_ENABLE_CCE UNSLOTH_FUSED_CE_COMPILE_DISABLE
    UNSLOTH_COMPILE_DISABLE UNSLOTH_COMPILE_MAXIMUM UNSLOTH_FULLGRAPH
    UNSLOTH_DISABLE_DOUBLE_BUFFER UNSLOTH_DISABLE_PINNED_MEMORY
    UNSLOTH_DISABLE_FLOAT32_UPCAST UNSLOTH_FORCE_FLOAT32 UNSLOTH_MIXED_PRECISION UNSLOTH_BFLOAT16_MIXED_PRECISION
    UNSLOTH_HIGH_PRECISION_LAYERNORM UNSLOTH_UPCAST_LAYERNORM UNSLOTH_RMSNORM_SAVE_OUTPUT
    UNSLOTH_DISABLE_MOE_SONIC UNSLOTH_DISABLE_MOE_TRITON UNSLOTH_EXPERTS_IMPLEMENTATION
    UNSLOTH_ENABLE_FLEX_ATTENTION UNSLOTH_FLEX_MASKLESS_SDPA UNSLOTH_FLEX_MASK_REUSE
    UNSLOTH_FUSED_ADD_RMSNORM UNSLOTH_FUSED_FORWARD UNSLOTH_FUSED_LINEAR UNSLOTH_FUSED_LINEAR_RECOMPUTE_FP32
    UNSLOTH_FUSED_LORA_BIAS UNSLOTH_FUSED_LORA_DROPOUT UNSLOTH_FUSED_QKNORM_ROPE
    UNSLOTH_GC_KEEP_LAYERS UNSLOTH_GC_MAX_INFLIGHT_COPIES UNSLOTH_GC_OFFLOAD_BACKEND UNSLOTH_GC_PINNED_MAX_GB
    UNSLOTH_GC_PREFETCH UNSLOTH_GC_STREAM_KEEP_LAST
    UNSLOTH_GDN_BACKEND UNSLOTH_GPTOSS_GROUPED UNSLOTH_GPT_OSS_BNB4BIT_DISABLE
    UNSLOTH_MOE_BACKEND UNSLOTH_MOE_DEQUANT_CHUNK_EXPERTS UNSLOTH_MOE_GROUPED UNSLOTH_MOE_GROUPED_LORA
    UNSLOTH_MOE_GROUPED_NF4_STACK UNSLOTH_MOE_GROUPED_RECOMPUTE UNSLOTH_MOE_LORA_MERGED UNSLOTH_MOE_NF4_FUSED
    UNSLOTH_MOE_RECOMPUTE UNSLOTH_MOE_SELECTIVE_DEQUANT UNSLOTH_MOE_STACKED_LORA
    UNSLOTH_MXFP4_EXPERT_CHUNK_MB UNSLOTH_MXFP4_FUSED_GEMM UNSLOTH_MXFP4_KEEP_PACKED UNSLOTH_MXFP4_MATMUL_OGS
    UNSLOTH_OFFLOAD_FP32 UNSLOTH_OFFLOAD_OPTIMIZER_STATE
    UNSLOTH_RETURN_HIDDEN_STATES UNSLOTH_RETURN_LOGITS
    UNSLOTH_SDPA_CUDNN_BUCKET UNSLOTH_SDPA_PACKED_SEGMENTS UNSLOTH_SDPA_TRAIN_CUDNN UNSLOTH_TORCH_VARLEN
    UNSLOTH_DECODE_CUDA_GRAPHS UNSLOTH_DISABLE_FAST_GENERATION UNSLOTH_DISABLE_STATIC_GENERATION
    UNSLOTH_TILED_MLP UNSLOTH_USE_NEW_MODEL UNSLOTH_VOCAB_PAD_MULTIPLE
    PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING
    TORCH_ALLOW_TF32_CUBLAS_OVERRIDE TORCH_BLAS_PREFER_CUBLASLT TORCH_COMPILE_DISABLE TORCHDYNAMO_DISABLE
    TORCHINDUCTOR_COMPREHENSIVE_PADDING TORCHINDUCTOR_CUDAGRAPHS TORCHINDUCTOR_MAX_AUTOTUNE
    TORCHINDUCTOR_MEMORY_PLANNING TORCHINDUCTOR_SHAPE_PADDING
    CUBLAS_WORKSPACE_CONFIG CUBLASLT_WORKSPACE_SIZE CUDA_LAUNCH_BLOCKING CUDA_MODULE_LOADING
    """.split()  # noqa: SIM905 -- a table of names
)
"""What a point may set, by name: switches and sizes that change the memory of a step. A point may come from another
machine, so a variable that names a file, a command, a package index or a host is not among them, and never will be.

Source: ``os.environ`` in unsloth and unsloth_zoo 2026.10.9; torch's notes on CUDA semantics, and
``torch/_inductor/config``.
"""
POINT_VALUE = r"[A-Za-z0-9_.,:=+>\[\]-]{0,200}"
"""Numbers, words and ``PYTORCH_ALLOC_CONF``'s lists: nothing that could be a path or a command."""


def child_environment(
    point: Point,
    workdir: Path,
    *,
    uuid: str | None,
    cache_folder: Path | None = None,
    around: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What the process gets: of the surroundings what changes no measurement, what the job implies, the point's own.

    Args:
        uuid: of the card that it sees, the only one; None for no card at all.
        cache_folder: absolute; where compiled kernels are kept for other processes. None: in the work folder.
        around: the surroundings; None: this process's own, as they are now.
    """
    # Not a default: libraries put another mapping in the place of os.environ (datasets, when it maps in processes).
    around = os.environ if around is None else around
    variables = {name: text for name, text in around.items() if not _changes_something(name)}
    variables |= {"PYTHONPATH": python_path(around), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    variables |= QUIET
    # With several cards in sight, transformers would spread the model or the batch over them. NVML and CUDA number
    # cards differently, so only the UUID means the one that is watched.
    variables |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid or ""}
    variables |= {name: str((cache_folder or workdir) / folder) for name, folder in CACHES.items()}
    variables["UNSLOTH_COMPILE_LOCATION"] = str(workdir / "unsloth_compiled_cache")  # source text, of this job alone
    variables |= implied(point.job)
    for older, name in OLDER_NAMES.items():
        if older in point.environment:
            variables.pop(name, None)
    return {**variables, **point.environment}


def noted(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that can change what is measured: no paths, no card's number and no secret."""
    return {
        name: text
        for name, text in sorted(environment.items())
        if _is_relevant(name) and not _is_path(text) and not any(word in name for word in SECRETS)
    }


def not_for_a_point(name: str, text: str) -> str | None:
    """Why a point may not set a variable so, as what is allowed instead; None where it may."""
    if name not in POINT_VARIABLES:
        near = get_close_matches(name, sorted(POINT_VARIABLES), n=3, cutoff=0.4) or ["UNSLOTH_TILED_MLP"]
        return f"a variable that changes memory, such as {', '.join(near)} (probes/environment.py lists them)"
    return None if re.fullmatch(POINT_VALUE, text) else "a number, a word or a list of settings; no path and no command"


def python_path(around: Mapping[str, str]) -> str:
    """PYTHONPATH with which another process, in another folder, imports the packages of this one."""
    ours = Path(__file__).resolve().parent.parent
    given = [os.path.abspath(part) for part in around.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join([str(ours), *(part for part in given if part != str(ours))])


def _changes_something(name: str) -> bool:
    return name not in TOOLCHAIN and (_is_relevant(name) or name.startswith("PYTHON"))


def _is_relevant(name: str) -> bool:
    return name in NAMES or name.startswith(PREFIXES)


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.startswith("~")
