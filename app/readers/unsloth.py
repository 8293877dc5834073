"""Configs of ``unsloth train`` and of Unsloth Studio: sections ``training``, ``lora``, ``data`` and ``logging``.

The command line forbids a key that it does not know; Studio's files have a few more, and ``inference`` beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.readers.common import optimizer
from app.readers.document import Document
from app.readers.reading import Reading
from app.readers.section import Notebook, Section, Unmodelled
from app.readers.values import DROPOUT, LENGTH, POSITIVE, RANK, STEPS, Flag, Lax, NameList, Word, names
from estimator.rules import Text

TOOL = "unsloth"
VERSIONS = {"unsloth": "2026.10.9"}

SECTIONS = ("data", "training", "lora", "logging", "inference")
CHECKPOINTING: dict[str | bool, str | bool] = {
    "unsloth": "unsloth",
    "": "unsloth",
    True: True,
    "true": True,
    "yes": True,
    "1": True,
    False: False,
    "none": False,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
STUDIO_OPTIM = "adamw_8bit"

TRAINING_NO_MEMORY = names(
    "output_dir num_epochs learning_rate warmup_steps warmup_ratio max_steps save_steps weight_decay random_seed "
    "train_on_completions lr_scheduler_type"
)
LORA_NO_MEMORY = frozenset({"lora_alpha", "use_rslora", "use_loftq"})
LORA_UNMODELLED: Mapping[str, Unmodelled] = {
    "use_dora": Unmodelled("more", "DoRA computes a weight norm of each adapted linear, which is not planned"),
}
VISION = ("finetune_vision_layers", "vision_all_linear")
"""Without effect on a text model, which is all that is planned."""
PARTS = {
    "finetune_language_layers": (),
    "finetune_attention_modules": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "finetune_mlp_modules": ("gate_proj", "up_proj", "down_proj"),
}

KNOWN: Mapping[str, frozenset[str]] = {
    "training": TRAINING_NO_MEMORY
    | names(
        "training_type max_seq_length load_in_4bit batch_size gradient_accumulation_steps packing "
        "gradient_checkpointing optim eval_steps"
    ),
    "lora": LORA_NO_MEMORY
    | frozenset(LORA_UNMODELLED)
    | frozenset(VISION)
    | frozenset(PARTS)
    | frozenset({"lora_r", "lora_dropout", "target_modules"}),
}
"""Every key of the two sections that matter, the command line's and Studio's."""


def read_unsloth(document: Document) -> Reading:
    """Read a config of ``unsloth train`` or of Studio. Raises ConfigError."""
    notebook = Notebook(document, TOOL, VERSIONS)
    root = Section(notebook, null_is_unset=False)
    _model(root)
    training, lora = root.section("training"), root.section("lora")
    _training(training)
    full = training.take("training_type", Word(("lora", "full"), lax=True), "lora") == "full"
    if full:
        _full(training, lora)
    else:
        training.put("load_in_4bit", "load_in_4bit", Flag(lax=True), True)
        if not notebook.job["load_in_4bit"]:
            notebook.job["load_in_16bit"] = True
        _lora(lora)
    training.finish(strict=True)
    lora.finish(strict=True)
    root.know(SECTIONS)
    root.finish(strict=True)
    return notebook.reading()


def _model(root: Section) -> None:
    root.put("model", "model", Text())  # a file of Studio's defaults is for any model
    for key in ("data", "logging", "inference"):
        root.section(key)
    root.know(["audio_input", "audio_type"])


def _training(training: Section) -> None:
    training.know(TRAINING_NO_MEMORY)
    training.put("max_seq_length", "max_seq_length", Lax(LENGTH), 2048)
    training.put("per_device_train_batch_size", "batch_size", Lax(POSITIVE), 2)
    training.put("gradient_accumulation_steps", "gradient_accumulation_steps", Lax(POSITIVE), 4)
    training.notebook.packs = training.put("packing", "packing", Flag(lax=True), False)
    words = Word(tuple(CHECKPOINTING), lax=True)
    training.put("use_gradient_checkpointing", "gradient_checkpointing", words, "unsloth", CHECKPOINTING.__getitem__)
    optimizer(training, "optim", STUDIO_OPTIM)
    if training.has("eval_steps") and _positive(training.take("eval_steps", Lax(STEPS))):
        training.set("per_device_eval_batch_size", training.notebook.job["per_device_train_batch_size"], "eval_steps")
        training.note("evaluation is planned with the training batch size")


def _full(training: Section, lora: Section) -> None:
    if training.has("load_in_4bit") and training.take("load_in_4bit", Flag(lax=True)):
        training.contradiction("load_in_4bit", "training_type full", "false, or training_type lora")
    training.know(["load_in_4bit"])
    training.set("full_finetuning", True, "training_type")
    lora.know(KNOWN["lora"])
    if lora.values:
        training.note("training_type full: the section lora has no effect")


def _lora(lora: Section) -> None:
    lora.know({*LORA_NO_MEMORY, *VISION})
    lora.put("r", "lora_r", Lax(RANK), 64)
    lora.put("lora_dropout", "lora_dropout", Lax(DROPOUT), 0.0)
    default = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    targets = lora.take("target_modules", NameList({"all-linear": "all-linear"}), tuple(default.split(",")))
    if targets:
        lora.set("target_modules", targets, "target_modules")
    for key, modules in PARTS.items():
        if lora.take(key, Flag(lax=True), None) is False:
            named = f" ({', '.join(modules)})" if modules else ""
            lora.doubt(key, "less", f"leaves modules{named} without adapters on multimodal models")
    lora.doubt_those(LORA_UNMODELLED)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
