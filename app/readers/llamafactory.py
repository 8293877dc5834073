"""LLaMA-Factory's YAML (v0, the released format): flat, five groups of dataclasses. It refuses a key that it does not
know. With ``use_unsloth`` Unsloth loads and trains, under a Trainer that pads its batches.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.readers.common import DISTRIBUTED, on, optimizer, weights
from app.readers.document import Document
from app.readers.hf_arguments import TRAINING_BEFORE, TRAINING_NO_MEMORY, TRAINING_UNMODELLED, evaluation
from app.readers.llamafactory_keys import ATTENTION, NO_MEMORY, OPTIMIZER_SWITCHES, UNMODELLED
from app.readers.reading import Reading
from app.readers.section import Notebook, Section
from app.readers.values import DROPOUT, LENGTH, POSITIVE, RANK, UNCHECKED, Flag, NameList, Word, names
from estimator.rules import Choice, Integer, Text

TOOL = "llamafactory"
VERSIONS = {"llamafactory": "0.9.5", "transformers": "5.17.0", "peft": "0.21.2"}

STAGES = ("sft", "pt", "rm", "ppo", "dpo", "kto")
MOVED = {
    "evaluation_strategy": "eval_strategy",
    "max_seq_length": "cutoff_len",
    "sequence_len": "cutoff_len",
    "lora_r": "lora_rank",
    "max_source_length": "cutoff_len",
    "max_target_length": "cutoff_len",
    "load_in_4bit": "quantization_bit: 4",
    "load_in_8bit": "quantization_bit: 8",
    "checkpoint_dir": "adapter_name_or_path",
    "dpo_beta": "pref_beta",
    "dpo_ftx": "pref_ftx",
    "sft_packing": "packing",
    "reserved_label_len": "nothing in its place",
    "cutoff_length": "cutoff_len",
}
"""Keys of older releases or of other tools, and what LLaMA-Factory 0.9.5 has in their place."""
READ = names(
    "model_name_or_path model_revision cutoff_len per_device_train_batch_size gradient_accumulation_steps optim "
    "use_unsloth quantization_bit quantization_method quantization_type double_quantization finetuning_type lora_rank "
    "lora_dropout lora_target additional_target disable_gradient_checkpointing gradient_checkpointing use_unsloth_gc "
    "flash_attn packing neat_packing stage val_size eval_dataset eval_strategy per_device_eval_batch_size pure_bf16 "
    "bf16 fp16 enable_liger_kernel"
)
"""Keys that become a part of the job, or decide one."""


def read_llamafactory(document: Document) -> Reading:
    """Read a config of ``llamafactory-cli train``. Raises ConfigError."""
    notebook = Notebook(document, TOOL, VERSIONS)
    root = Section(notebook)
    root.refuse_moved(MOVED)
    if root.put("model", "model_name_or_path", Text()) is None:
        raise root.error("model_name_or_path", "is required", "a Hub id or a directory")
    unsloth = root.take("use_unsloth", Flag(), False)
    notebook.job["framework"] = "unsloth" if unsloth else "transformers"
    root.put("max_seq_length", "cutoff_len", LENGTH, 2048)
    root.put("per_device_train_batch_size", "per_device_train_batch_size", POSITIVE, 8)
    root.put("gradient_accumulation_steps", "gradient_accumulation_steps", POSITIVE, 1)
    _method(root, unsloth=unsloth)
    _checkpointing(root, unsloth=unsloth)
    _optimizer(root)
    _attention(root)
    _rows(root, unsloth=unsloth)
    _evaluation(root)
    liger = on(root.take("enable_liger_kernel", Flag(), False))
    if liger and unsloth:
        root.note(
            "enable_liger_kernel with use_unsloth: Unsloth's own kernels and loss are taken to replace what Liger "
            "patches, and are planned alone"
        )
    root.know(NO_MEMORY | TRAINING_NO_MEMORY | TRAINING_BEFORE)
    root.doubt_those({**TRAINING_UNMODELLED, **UNMODELLED, **DISTRIBUTED})
    root.finish(strict=True)
    return notebook.reading(full_logits=not liger)


def _method(root: Section, *, unsloth: bool) -> None:
    stage = root.take("stage", Choice(STAGES), "sft")
    if stage not in ("sft", "pt"):
        root.doubt("stage", "more", f"{stage} holds more than the supervised step planned here")
    kind = root.take("finetuning_type", Choice(("lora", "oft", "freeze", "full")), "lora")
    if kind in ("oft", "freeze"):
        raise root.error("finetuning_type", f'"{kind}" is not modelled', "lora, full")
    bits = root.take("quantization_bit", Integer(2, 8), None)
    if bits not in (None, 4, 8):
        raise root.error("quantization_bit", f"{bits} is not modelled", "4, 8")
    method = root.take("quantization_method", Text(32), None)
    if bits and method not in (None, "bnb"):
        root.doubt("quantization_method", "either", f"{method}: planned as bitsandbytes")
    root.know(["quantization_type", "double_quantization"])
    if root.take("double_quantization", Flag(), None) is False and bits == 4:
        root.doubt("double_quantization", "more", "is off: planned with double quantisation, 0.4 bit a weight less")
    four, eight = ("quantization_bit" if bits == size else None for size in (4, 8))
    weights(root, four=four, eight=eight, full=kind == "full")
    _precision(root, full=kind == "full", unsloth=unsloth)
    _adapters(root, lora=kind == "lora")


def _precision(root: Section, *, full: bool, unsloth: bool) -> None:
    pure = root.take("pure_bf16", Flag(), False)
    root.take("bf16", Flag(), None)
    if root.take("fp16", Flag(), None):
        root.doubt("fp16", "either", "trains in float16; bfloat16 is planned")
    if full and not pure and not unsloth:
        root.doubt("finetuning_type", "more", "full without pure_bf16 trains float32 weights; bfloat16 is planned")
    if pure and not full:
        root.doubt("pure_bf16", "less", "keeps adapters in bfloat16; float32 is planned")


def _adapters(root: Section, *, lora: bool) -> None:
    keys = ("lora_rank", "lora_dropout", "lora_target", "additional_target")
    if not lora:
        root.know(keys)
        return
    root.put("r", "lora_rank", RANK, 8)
    root.put("lora_dropout", "lora_dropout", DROPOUT, 0.0)
    root.put("target_modules", "lora_target", NameList({"all": "all-linear"}), "all-linear")
    root.put("modules_to_save", "additional_target", NameList())


def _checkpointing(root: Section, *, unsloth: bool) -> None:
    """On unless it is disabled; Unsloth's own with ``use_unsloth``, and a copy of it with ``use_unsloth_gc``."""
    off = root.take("disable_gradient_checkpointing", Flag(), None)
    root.take("gradient_checkpointing", UNCHECKED)
    root.set(
        "use_gradient_checkpointing", False if off else "unsloth" if unsloth else True, "disable_gradient_checkpointing"
    )
    if off and unsloth:
        root.note("disable_gradient_checkpointing has no effect with use_unsloth, which always asks for its own")
        root.set("use_gradient_checkpointing", "unsloth", "disable_gradient_checkpointing")
    if root.take("use_unsloth_gc", Flag(), None) and not unsloth:
        root.doubt("use_unsloth_gc", "less", "moves the layers' inputs to the host; planned on the GPU")


def _optimizer(root: Section) -> None:
    optimizer(root, "optim", "adamw_torch_fused")
    for key, (effect, message) in OPTIMIZER_SWITCHES.items():
        if root.take(key, Flag(), None):
            root.doubt(key, effect, message)


def _attention(root: Section) -> None:
    name = root.take("flash_attn", Word((*ATTENTION, "auto", True, False)), None)
    planned = ATTENTION.get(str(name))
    if planned:
        root.set("attn_implementation", planned, "flash_attn")
        if planned == "eager" and root.notebook.job["framework"] == "unsloth":
            root.notebook.job.pop("attn_implementation")
            root.note("flash_attn disabled has no effect with use_unsloth")


def _rows(root: Section, *, unsloth: bool) -> None:
    packs = root.take("packing", Flag(), None)
    neat = root.take("neat_packing", Flag(), None)
    root.notebook.packs = bool(packs or neat)
    if packs or neat:
        root.note(
            "packed rows are planned as dense rows of cutoff_len tokens, which is what the collator makes of them"
        )
    # With and without Unsloth, so that a change to Unsloth is planned as what it would be here.
    root.notebook.job["padding_free"] = False
    if unsloth:
        root.note("LLaMA-Factory's Trainer pads its batches: the dense path of Unsloth is planned")


def _evaluation(root: Section) -> None:
    share = root.take("val_size", UNCHECKED)
    data = root.take("eval_dataset", UNCHECKED)
    evaluation(root, batch_default=8)
    if "per_device_eval_batch_size" not in root.notebook.job and (on(share) or on(data)):
        root.note("eval_strategy is not given: no evaluation during training")
    revision = root.take("model_revision", Text(), None)
    if revision and revision != "main":
        root.notebook.job["model"] += f"@{revision}"


TABLES: tuple[Mapping[str, object] | frozenset[str], ...] = (
    READ,
    NO_MEMORY,
    UNMODELLED,
    OPTIMIZER_SWITCHES,
    TRAINING_NO_MEMORY,
    TRAINING_UNMODELLED,
    TRAINING_BEFORE,
    DISTRIBUTED,
)
"""Every key that is known, by what is done with it."""
