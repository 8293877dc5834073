"""LLaMA-Factory's v1 format: flat as well, with plugins as mappings that have a ``name``. Not Unsloth: transformers'
model, PEFT, and a loop of its own with padded batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.readers.common import weights
from app.readers.document import Document
from app.readers.llamafactory_keys import ATTENTION
from app.readers.reading import Reading
from app.readers.section import Notebook, Section, Unmodelled
from app.readers.values import DROPOUT, LENGTH, POSITIVE, RANK, UNCHECKED, Flag, NameList, Word, names
from estimator.rules import Choice, Integer, Text, shown

TOOL = "llamafactory-v1"
VERSIONS = {"llamafactory": "0.9.5 (v1)", "transformers": "5.17.0", "peft": "0.21.2"}

BATCHING = ("normal", "padding_free", "dynamic_batching", "dynamic_padding_free")
PLUGINS = ("peft_config", "quant_config", "kernel_config", "dist_config", "optim_config", "init_config")
READ = names(
    "model flash_attn micro_batch_size global_batch_size cutoff_len bf16 batching_strategy "
    "enable_activation_checkpointing model_class"
) | frozenset(PLUGINS)
NO_MEMORY = names(
    "template trust_remote_code train_dataset eval_dataset output_dir learning_rate num_train_epochs max_steps "
    "max_grad_norm batching_workers lr_scheduler_config seed full_determinism resume_from_checkpoint save_steps "
    "save_epochs save_ckpt_as_hf save_total_limit logging_steps sample_backend max_new_tokens"
)
LORA_NO_MEMORY = ("name", "lora_alpha", "use_rslora", "export_dir", "export_size", "export_hub_model_id", "infer_dtype")
LORA_UNMODELLED: Mapping[str, Unmodelled] = {
    "use_dora": Unmodelled("more", "DoRA computes a weight norm of each adapted linear"),
    "adapter_name_or_path": Unmodelled("either", "goes on with an adapter, whose rank is its own"),
    "export_legacy_format": Unmodelled("less", "exports, and does not train"),
}
TARGETS = NameList({"all": "all-linear", "all-linear": "all-linear"})
LOOP_OPTIM = "adamw_torch"
"""v1/core/base_trainer.py: ``torch.optim.AdamW`` as torch has it."""


def read_llamafactory_v1(document: Document) -> Reading:
    """Read a config of ``llamafactory-cli`` v1. Raises ConfigError."""
    notebook = Notebook(document, TOOL, VERSIONS)
    root = Section(notebook)
    root.put("model", "model", Text(), "Qwen/Qwen3-4B-Instruct-2507")
    notebook.job["framework"] = "transformers"
    root.put("max_seq_length", "cutoff_len", LENGTH, 2048)
    _batch(root)
    root.put("use_gradient_checkpointing", "enable_activation_checkpointing", Flag(), True)
    planned = ATTENTION.get(str(root.take("flash_attn", Choice(tuple(ATTENTION)), "sdpa")))
    if planned:
        root.set("attn_implementation", planned, "flash_attn")
    if root.take("bf16", Flag(), True) is False:
        root.doubt("bf16", "more", "is off: the weights are kept in float32; bfloat16 is planned")
    if root.take("model_class", Choice(("llm", "cls", "other")), "llm") != "llm":
        root.doubt("model_class", "either", "trains no language model")
    _plugins(root)
    root.know(NO_MEMORY)
    root.finish(strict=True)
    return notebook.reading()


def _batch(root: Section) -> None:
    micro = root.put("per_device_train_batch_size", "micro_batch_size", POSITIVE, 1)
    total = root.take("global_batch_size", POSITIVE, None)
    if total is not None:
        if total % micro:
            raise root.error("global_batch_size", f"{total} is no multiple of micro_batch_size {micro}", "a multiple")
        root.set("gradient_accumulation_steps", total // micro, "global_batch_size")
        root.note("global_batch_size is planned on one GPU: all of it is accumulated there")
    strategy = root.take("batching_strategy", Word(BATCHING), "normal")
    if strategy != "normal":
        root.note(f"batching_strategy {strategy} is planned as dense batches of micro_batch_size x cutoff_len tokens")


def _plugins(root: Section) -> None:
    peft, quant = _plugin(root, "peft_config"), _plugin(root, "quant_config")
    kind = peft.take("name", Text(64), None)
    if kind not in (None, "lora"):
        raise peft.error("name", f'"{kind}" is not modelled', "lora, or no peft_config for full fine-tuning")
    bits = quant.take("quantization_bit", Integer(2, 8), 4 if quant.values.get("name") == "bnb" else None)
    if bits not in (None, 4, 8):
        raise quant.error("quantization_bit", f"{bits} is not modelled", "4, 8")
    four, eight = ("quant_config" if bits == size else None for size in (4, 8))
    weights(root, four=four, eight=eight, full=kind is None)
    quant.know(quant.values)
    if kind == "lora":
        _lora(peft)
    kernel = _plugin(root, "kernel_config")
    if kernel.values:
        root.doubt("kernel_config", "less", "its kernels hold less than is planned")
    if _plugin(root, "dist_config").values:
        root.doubt("dist_config", "either", "divides a training between GPUs, and one GPU by itself is planned")
    _plugin(root, "init_config")
    optim = _plugin(root, "optim_config")
    root.set("optim", LOOP_OPTIM, "optim_config")
    if optim.values:
        root.doubt("optim_config", "either", f"{shown(optim.values.get('name'))}: planned as {LOOP_OPTIM}")


def _lora(peft: Section) -> None:
    peft.put("r", "r", RANK, 8)
    peft.put("lora_dropout", "lora_dropout", DROPOUT, 0.05)
    peft.put(
        "target_modules", "target_modules", NameList({"all": "all-linear", "all-linear": "all-linear"}), "all-linear"
    )
    peft.put("modules_to_save", "modules_to_save", NameList())
    peft.know(LORA_NO_MEMORY)
    peft.doubt_those(LORA_UNMODELLED)
    peft.finish(strict=False)


def _plugin(root: Section, key: str) -> Section:
    """A plugin's mapping, which must say its ``name``; an empty one where it is not given."""
    section = root.section(key)
    name: Any = section.take("name", UNCHECKED)
    if section.values and not isinstance(name, str):
        raise root.error(key, "has no name", "a mapping with name and the plugin's settings")
    return section
