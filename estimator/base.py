"""What is on the GPU at every instant of a step: weights, adapters, optimizer state, caches and workspaces."""

from __future__ import annotations

from estimator import rope
from estimator.checkpointing import Regime
from estimator.ledger import LiveSet
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics


def loaded(run: Run, statics: Statics, *, embedding_offloaded: bool) -> LiveSet:
    """After ``from_pretrained``."""
    weights = statics.weights
    embedding = 0 if embedding_offloaded else weights.embedding
    return [*_weights(run, statics, embedding, weights.head), *workspace(run, statics, at_load=True)]


def resident(run: Run, statics: Statics, *, embedding_offloaded: bool) -> LiveSet:
    """After ``get_peft_model``: what trains is there, and the frozen originals of ``modules_to_save`` are on disk."""
    weights, saved = statics.weights, run.job.modules_to_save if run.job.framework == "unsloth" else ()
    embedding = 0 if embedding_offloaded or "embed_tokens" in saved else weights.embedding
    head = 0 if "lm_head" in saved else weights.head
    rows = [*_weights(run, statics, embedding, head), *workspace(run, statics, at_load=True)]
    return [*rows, *trained(run, statics)]


def _weights(run: Run, statics: Statics, embedding: int, head: int) -> LiveSet:
    weights = statics.weights
    stored = f"{run.storage} of the linears, 16-bit norms"
    place = "2 V H" if embedding else "on the host"
    tied = "2 V H" if head else "tied to the embedding, or replaced by its trained copy"
    return [
        ("base_weights", weights.layers + weights.final_norm, stored, "bitsandbytes/functional.py quantize_4bit"),
        ("embedding", embedding, place, "unsloth/models/_utils.py offload_embedding_if_tight"),
        ("lm_head", head, tied, "kept in 16 bit"),
    ]


def workspace(run: Run, statics: Statics, *, at_load: bool) -> LiveSet:
    """cuBLAS workspaces: the main thread's (made while Unsloth loads, or by the first step), and autograd's own."""
    first = ("cublas_workspace", statics.workspace_bytes, "32 MiB on Hopper", "aten/src/ATen/cuda/CublasHandlePool.cpp")
    if at_load:
        return [first] if run.path != "transformers" else []
    second = (
        "cublas_workspace_backward",
        statics.workspace_bytes,
        "32 MiB on Hopper",
        "one handle a thread: autograd's own",
    )
    return [second] if run.path != "transformers" else [first, second]


def trained(run: Run, statics: Statics) -> LiveSet:
    """What ``prepare_model_for_kbit_training`` and ``get_peft_model`` add."""
    if not statics.trained_bytes:
        return []
    if statics.upcast_bytes:
        cast = (
            "fp32_modules",
            statics.upcast_bytes,
            "2 (2 V H + norms)",
            "peft/utils/other.py prepare_model_for_kbit_training",
        )
        return [cast, ("lora_parameters", statics.trained_bytes, "4 r sum(in + out)", "peft, autocast_adapter_dtype")]
    formula = "4 r sum(in + out)" + (" + full copies of modules_to_save" if run.job.modules_to_save else "")
    return [
        ("lora_parameters", statics.trained_bytes, formula, "unsloth_zoo/training_utils.py prepare_model_for_training")
    ]


def step(run: Run, statics: Statics, z: Sizes, regime: Regime) -> LiveSet:
    """What training steps add for good: optimizer state, caches, scratch."""
    terms = [
        ("token_ids", 2 * 8 * z.tokens, "2 * 8 T", "input ids and labels, int64"),
        *workspace(run, statics, at_load=False),
    ]
    if run.path in ("eager", "block_compiled"):
        rows = rope.cache_rows(run.architecture.rope, z.max_seq_length, z.length, positions_given=run.flattened)
        source = "unsloth/models/llama.py _PerDeviceRopeCache"
        terms.append(("rope_cache", rope.cache_bytes(run.architecture, rows), "2 * 2 rows hd", source))
    if regime.steady and statics.optimizer_bytes:
        terms.append(("optimizer_state", statics.optimizer_bytes, run.job.optim, "estimator/optimizer.py"))
    return terms
