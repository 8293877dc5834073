"""Axolotl's YAML: flat, with its own names for transformers' settings. It ignores a key that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.readers.axolotl_keys import FP32, FUSED_SHARE, KERNELS, MOVED, NO_MEMORY, OPTIMIZERS, UNMODELLED
from app.readers.common import attention, on, optimizer, weights
from app.readers.document import Document
from app.readers.reading import Reading
from app.readers.section import Notebook, Section
from app.readers.values import DROPOUT, LENGTH, POSITIVE, RANK, UNCHECKED, Flag, Lax, NameList, Word, names
from estimator.rules import Text

TOOL = "axolotl"
VERSIONS = {"axolotl": "0.19.0"}

ADAPTERS = ("lora", "qlora")
RL = ("dpo", "gdpo", "grpo", "ipo", "orpo", "kto", "simpo", "ebft")
READ = names(
    "base_model sequence_len micro_batch_size gradient_accumulation_steps batch_size eval_batch_size val_set_size "
    "test_datasets adapter load_in_4bit load_in_8bit lora_r lora_dropout lora_target_modules lora_target_linear "
    "lora_modules_to_save gradient_checkpointing optimizer attn_implementation flash_attention sdp_attention "
    "flex_attention xformers_attention eager_attention sage_attention sample_packing batch_flattening bf16 "
    "rl plugins chunked_cross_entropy eval_strategy evals_per_epoch eval_steps "
    "model_revision revision_of_model pad_to_sequence_len"
)
"""Keys that become a part of the job, or decide one."""
ATTENTION_FLAGS = {
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "flex_attention": "flex_attention",
    "xformers_attention": "xformers",
    "eager_attention": "eager",
    "sage_attention": "flash_attention_2",
}
LOSS_PLUGINS = ("cut_cross_entropy", "liger")
"""Plugins whose loss never holds all logits."""


def read_axolotl(document: Document) -> Reading:
    """Read a config of ``axolotl train``. Raises ConfigError."""
    notebook = Notebook(document, TOOL, VERSIONS)
    root = Section(notebook)
    root.refuse_moved({key: became for key, became in MOVED.items() if on(root.values.get(key))})
    root.know(MOVED)
    if root.put("model", "base_model", Text()) is None:
        raise root.error("base_model", "is required", "a Hub id or a directory")
    notebook.job["framework"] = "transformers"
    root.put("max_seq_length", "sequence_len", Lax(LENGTH), 512)
    _batch(root)
    _checkpointing(root)
    optimizer(root, "optimizer", "adamw_torch_fused", OPTIMIZERS)
    _attention(root)
    _adapter(root)
    _precision(root)
    _evaluation(root)
    full_logits = _loss(root)
    _method(root)
    _kernels(root)
    root.know(NO_MEMORY)
    root.doubt_those(UNMODELLED)
    root.finish(strict=False)
    return notebook.reading(full_logits=full_logits)


def _batch(root: Section) -> None:
    micro = root.put("per_device_train_batch_size", "micro_batch_size", Lax(POSITIVE), 1)
    total = root.take("batch_size", Lax(POSITIVE))
    if total is not None and root.has("gradient_accumulation_steps"):
        root.contradiction("batch_size", "gradient_accumulation_steps", "one of the two")
    if total is not None and not root.has("micro_batch_size"):
        raise root.error("batch_size", "is given without micro_batch_size", "both, or micro_batch_size alone")
    if total is not None:
        # Axolotl divides the older key by the micro-batch to get the accumulation.
        root.set("gradient_accumulation_steps", max(total // micro, 1), "batch_size")
        root.know(["gradient_accumulation_steps"])
    else:
        root.put("gradient_accumulation_steps", "gradient_accumulation_steps", Lax(POSITIVE), 1)
    packs = root.take("sample_packing", Flag(lax=True), None)
    flattens = on(root.take("batch_flattening", UNCHECKED))
    root.take("pad_to_sequence_len", Flag(lax=True), None)
    root.notebook.packs = bool(packs)
    if packs or flattens:
        root.note("packed and flattened batches are planned as dense ones of micro_batch_size x sequence_len tokens")


def _checkpointing(root: Section) -> None:
    words = Word((True, False, "offload", "offload_disk", "unsloth"))
    asked = root.take("gradient_checkpointing", words, False)
    root.set("use_gradient_checkpointing", asked is not False, "gradient_checkpointing")
    if isinstance(asked, str):
        where = "the disk" if asked == "offload_disk" else "the host"
        root.doubt("gradient_checkpointing", "less", f"{asked} moves the layers' inputs to {where}; planned on the GPU")


def _attention(root: Section) -> None:
    flags = [key for key in ATTENTION_FLAGS if root.take(key, Flag(lax=True), None)]
    if root.has("attn_implementation"):
        attention(root, "attn_implementation")
    elif flags:
        root.set("attn_implementation", ATTENTION_FLAGS[flags[0]], flags[0])
        if len(flags) > 1:
            root.contradiction(flags[1], flags[0], "one of them")


def _adapter(root: Section) -> None:
    four, eight = root.take("load_in_4bit", Flag(lax=True), None), root.take("load_in_8bit", Flag(lax=True), None)
    adapter = root.take("adapter", Text(64), None)
    if adapter is not None and adapter not in ADAPTERS:
        raise root.error("adapter", f'"{adapter}" is not modelled', "lora, qlora, or none for full fine-tuning")
    if adapter == "qlora" and not four:
        raise root.error("adapter", "is qlora without 4-bit weights", "load_in_4bit: true beside it, or lora")
    names = {"four": "load_in_4bit" if four else None, "eight": "load_in_8bit" if eight else None}
    weights(root, **names, full=adapter is None)
    keys = ("lora_r", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_modules_to_save")
    if adapter is None:
        root.know(keys)
        return
    if root.put("r", "lora_r", Lax(RANK)) is None:
        raise root.error("lora_r", "is required with an adapter", "a rank", at="adapter")
    root.put("lora_dropout", "lora_dropout", Lax(DROPOUT), 0.0)
    _targets(root)
    root.put("modules_to_save", "lora_modules_to_save", NameList())


def _targets(root: Section) -> None:
    targets = root.take("lora_target_modules", NameList({"all-linear": "all-linear"}))
    linear = root.take("lora_target_linear", Flag(lax=True), None)
    if linear:
        root.set("target_modules", "all-linear", "lora_target_linear")
    elif targets:
        root.set("target_modules", targets, "lora_target_modules")
    else:
        root.note("neither lora_target_modules nor lora_target_linear is given: PEFT's default for the architecture")
        root.notebook.job["target_modules"] = None


def _precision(root: Section) -> None:
    for key in FP32:
        if on(root.take(key, UNCHECKED)):
            root.doubt(key, *FP32[key])
    if root.take("bf16", Word(("auto", True, False), lax=True), "auto") is False and not root.has("float32"):
        root.doubt("bf16", "more", "is off: the weights are kept in another dtype than bfloat16, which is planned")


def _evaluation(root: Section) -> None:
    """Axolotl evaluates on a share of the data, or on data of its own, with the training micro-batch by default."""
    share = root.take("val_set_size", UNCHECKED, None)
    asked = (isinstance(share, int | float) and share > 0) or on(root.take("test_datasets", UNCHECKED))
    batch = root.take("eval_batch_size", Lax(POSITIVE), None)
    for key in ("eval_steps", "evals_per_epoch"):
        root.take(key, UNCHECKED)
    if asked and root.take("eval_strategy", UNCHECKED) not in ("no", False):
        key = "eval_batch_size" if batch else "val_set_size" if share else "test_datasets"
        root.set("per_device_eval_batch_size", batch or root.notebook.job["per_device_train_batch_size"], key)
    root.know(["eval_strategy"])


def _loss(root: Section) -> bool:
    """Whether the loss holds all logits."""
    plugins = root.take("plugins", NameList()) or ()
    found = [plugin for plugin in plugins if any(name in str(plugin).lower() for name in LOSS_PLUGINS)]
    chunked = root.take("chunked_cross_entropy", Flag(lax=True), None)
    others = [plugin for plugin in plugins if plugin not in found]
    if others:
        root.doubt("plugins", "either", f"{', '.join(others)}: what a plugin does to memory is not planned")
    if found:
        root.doubt("plugins", "less", f"{', '.join(found)}: its kernels hold less than is planned")
    return not (found or chunked)


def _method(root: Section) -> None:
    if root.take("rl", Word(RL), None):
        root.doubt("rl", "more", "preference and reinforcement training hold more than the step that is planned")
    revision: Any = root.take("revision_of_model", Text(), None) or root.take("model_revision", Text(), None)
    if revision:
        root.notebook.job["model"] += f"@{revision}"


def _kernels(root: Section) -> None:
    """Axolotl switches its LoRA kernels on by itself where nothing is said of them (its config schema,
    ``check_auto_enable_lora_kernels``)."""
    eight = root.notebook.job.get("load_in_8bit")
    others = any(on(root.values.get(key)) for key in ("rl", "trust_remote_code"))
    if not root.has("adapter") or eight or others or any(root.has(key) for key in KERNELS):
        return
    message = "is on by itself, as the other LoRA kernels are: they hold less than is planned"
    root.doubt(KERNELS[0], "less", message, most=FUSED_SHARE, at="adapter")


TABLES: tuple[Mapping[str, Any] | frozenset[str], ...] = (READ, NO_MEMORY, UNMODELLED, FP32, MOVED)
"""Every key that is known, by what is done with it."""
