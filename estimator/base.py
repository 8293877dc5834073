"""What is on the GPU at every instant of a step: weights, adapters, optimizer state, caches and workspaces."""

from __future__ import annotations

from estimator import rope
from estimator.checkpointing import mode
from estimator.ledger import LiveSet
from estimator.optimizer import OPTIMIZER_KINDS
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics


def loaded(run: Run, statics: Statics, *, embedding_offloaded: bool) -> LiveSet:
    """At the end of ``from_pretrained``."""
    weights = statics.weights
    embedding = 0 if embedding_offloaded else weights.embedding
    return [*_weights(run, statics, embedding, weights.head), *workspace(run, statics, at_load=True)]


def resident(run: Run, statics: Statics, z: Sizes, *, embedding_offloaded: bool) -> LiveSet:
    """After ``get_peft_model``: what trains is there too.

    The frozen originals of ``modules_to_save`` leave for the disk only on Unsloth's own forward with ``"unsloth"``
    checkpointing, and a tied head keeps its embedding (llama.py ``_offload_frozen_module_for_training``).
    """
    weights = statics.weights
    leaves = run.own_forward and mode(run, z) == "unsloth"
    gone = run.job.modules_to_save if leaves and not run.architecture.tie_word_embeddings else ()
    embedding = 0 if embedding_offloaded or "embed_tokens" in gone else weights.embedding
    head = 0 if "lm_head" in gone else weights.head
    rows = [*_weights(run, statics, embedding, head), *workspace(run, statics, at_load=True)]
    return [*rows, *trained(run, statics)]


def _weights(run: Run, statics: Statics, embedding: int, head: int) -> LiveSet:
    weights = statics.weights
    stored = f"{run.storage} of the linears, 16-bit norms" if run.storage != "fp32" else "4 B a parameter"
    source = "bitsandbytes/functional.py quantize_4bit" if run.storage.startswith("nf4") else "the checkpoint's dtype"
    place = "2 V H" if embedding else "on the host or on disk"
    tied = "2 V H" if head else "tied to the embedding, or replaced by its trained copy"
    return [
        ("base_weights", weights.layers + weights.final_norm, stored, source),
        ("embedding", embedding, place, "unsloth/models/_utils.py offload_embedding_if_tight"),
        ("lm_head", head, tied, "kept in 16 bit"),
    ]


def workspace(run: Run, statics: Statics, *, at_load: bool) -> LiveSet:
    """cuBLAS workspaces: the main thread's (made while Unsloth loads, or by the first step), and autograd's own."""
    formula = "32 MiB on Hopper, 8.1 MiB elsewhere"
    source = "aten/src/ATen/cuda/CublasHandlePool.cpp, one handle a thread"
    first = ("cublas_workspace", statics.workspace_bytes, formula, source)
    if at_load:
        return [first] if run.path != "transformers" else []
    second = ("cublas_workspace_backward", statics.workspace_bytes, formula, source)
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


def caches(run: Run, statics: Statics, z: Sizes) -> LiveSet:
    """What the first step adds for good, beside optimizer state: workspaces and RoPE caches, and its token ids."""
    terms = [
        ("token_ids", 2 * 8 * z.tokens, "2 * 8 T", "input ids and labels, int64"),
        *workspace(run, statics, at_load=False),
    ]
    if run.own_forward:
        rows = rope.cache_rows(run.architecture.rope, z.max_seq_length, z.length, positions_given=run.flattened)
        source = "unsloth/models/llama.py _PerDeviceRopeCache"
        terms.append(("rope_cache", rope.cache_bytes(run.architecture, rows), "2 * 2 rows hd (4 for Gemma)", source))
    return terms


def optimizer_state(run: Run, statics: Statics) -> LiveSet:
    """What the first optimizer step adds for good."""
    if not statics.optimizer_bytes:
        return []
    kind = OPTIMIZER_KINDS[run.job.optim]
    source = "torch/optim, transformers/optimization.py" if kind.bits != 8 else "bitsandbytes/optim/optimizer.py"
    return [("optimizer_state", statics.optimizer_bytes, kind.formula, source)]
