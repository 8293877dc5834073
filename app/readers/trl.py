"""Configs of TRL's command line: ``SFTConfig`` (with all of ``TrainingArguments``), ``ModelConfig`` and the data keys,
in one flat YAML file. TRL refuses a key that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.readers.common import DISTRIBUTED, attention, optimizer, weights
from app.readers.document import Document
from app.readers.hf_arguments import TRAINING_MOVED, TRAINING_NO_MEMORY, TRAINING_UNMODELLED, evaluation
from app.readers.reading import Reading
from app.readers.section import Notebook, Section, Unmodelled
from app.readers.values import DROPOUT, LENGTH, POSITIVE, RANK, UNCHECKED, Flag, NameList, names
from estimator.rules import Choice, Optional, Text

TOOL = "trl"
VERSIONS = {"trl": "1.15.0", "transformers": "5.17.0", "peft": "0.21.2"}

FLOAT32_BASE = "loads the base weights in float32, which is TRL's default; they are planned in bfloat16, half of it"
READ = names(
    "model_name_or_path max_length per_device_train_batch_size gradient_accumulation_steps gradient_checkpointing "
    "optim packing padding_free packing_strategy attn_implementation use_peft lora_r lora_dropout lora_target_modules "
    "lora_modules_to_save load_in_4bit load_in_8bit dtype bf16 fp16 eval_strategy per_device_eval_batch_size "
    "model_revision"
)
"""Keys that become a part of the job."""

NO_MEMORY = names(
    "trust_remote_code router_aux_loss_coef chat_template_path dataset_text_field dataset_kwargs dataset_num_proc "
    "eos_token truncation_mode shuffle_dataset completion_only_loss assistant_only_loss pad_token lora_alpha "
    "lora_task_type use_rslora dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming "
    "ignore_bias_buffers datasets streaming test_split_size env config eval_packing loss_type"
)

UNMODELLED: Mapping[str, Unmodelled] = {
    "activation_offloading": Unmodelled("less", "moves saved activations to the host, which is not planned"),
    "use_dora": Unmodelled("more", "DoRA computes a weight norm of each adapted linear, which is not planned"),
    "lora_target_parameters": Unmodelled("more", "adapts parameters that are no modules, which is not planned"),
    "pad_to_multiple_of": Unmodelled("more", "pads every batch further", (None, False, 1, 8)),
    "model_init_kwargs": Unmodelled("either", "loads the model with settings that are not read", (None, {})),
    "bnb_4bit_quant_storage": Unmodelled("either", "stores 4-bit weights in another dtype", (None, "uint8")),
}
QUANTISED = {
    "bnb_4bit_quant_type": "the same bytes in either type",
    "use_bnb_nested_quant": "planned with double quantisation, which takes 0.4 bit a weight less than without",
}

MOVED = {
    **TRAINING_MOVED,
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "dataset_batch_size": "nothing in its place",
    "num_of_sequences": "nothing in its place",
    "chars_per_token": "nothing in its place",
    "use_flash_attention_2": "attn_implementation: flash_attention_2",
    "dataset_mixer": "datasets, a list of them",
    "dataset_mixture": "datasets, a list of them",
    "dataset_splits": "dataset_train_split and dataset_test_split",
    "chat_template": "chat_template_path",
    "preprocessing_num_workers": "dataset_num_proc",
}
"""Keys of other releases, and what TRL 1.15.0 has in their place."""


def read_trl(document: Document) -> Reading:
    """Read a config of ``trl sft``. Raises ConfigError."""
    notebook = Notebook(document, TOOL, VERSIONS)
    root = Section(notebook)
    root.refuse_moved(MOVED)
    if root.put("model", "model_name_or_path", Text()) is None:
        raise root.error("model_name_or_path", "is required", "a Hub id or a directory")
    notebook.job["framework"] = "transformers"
    from_data = _length(root)
    root.put("per_device_train_batch_size", "per_device_train_batch_size", POSITIVE, 8)
    root.put("gradient_accumulation_steps", "gradient_accumulation_steps", POSITIVE, 1)
    root.put("use_gradient_checkpointing", "gradient_checkpointing", Flag(), True)
    optimizer(root, "optim", "adamw_torch_fused")
    attention(root, "attn_implementation")
    _adapters(root)
    _precision(root)
    _rows(root)
    evaluation(root, batch_default=8)
    root.know(NO_MEMORY | TRAINING_NO_MEMORY)
    root.doubt_those({**TRAINING_UNMODELLED, **UNMODELLED, **DISTRIBUTED})
    root.finish(strict=True)
    return notebook.reading(length_from_data=from_data, full_logits=False)


def _length(root: Section) -> bool:
    """``max_length``; null cuts nothing, so that the data says how long a sample is."""
    if "max_length" in root.values and root.values["max_length"] is None:
        root.know(["max_length"])
        root.note("max_length is null: nothing cuts the samples, so the longest one is planned")
        return True
    root.put("max_seq_length", "max_length", LENGTH, 1024)
    return False


def _adapters(root: Section) -> None:
    four = root.take("load_in_4bit", Flag(), None)
    eight = root.take("load_in_8bit", Flag(), None)
    lora = root.take("use_peft", Flag(), False)
    weights(root, four="load_in_4bit" if four else None, eight="load_in_8bit" if eight else None, full=not lora)
    for key, what in QUANTISED.items():
        if root.take(key, UNCHECKED) is not None:
            root.note(f"{key}: {what}")
    if not lora:
        root.know(["lora_r", "lora_dropout", "lora_target_modules", "lora_modules_to_save"])
        return
    root.put("r", "lora_r", RANK, 16)
    root.put("lora_dropout", "lora_dropout", DROPOUT, 0.05)
    targets = root.put("target_modules", "lora_target_modules", NameList({"all-linear": "all-linear"}))
    if not targets:
        root.note("lora_target_modules is not given: PEFT's own default for the architecture")
        root.notebook.job["target_modules"] = None
    root.put("modules_to_save", "lora_modules_to_save", NameList())


def _precision(root: Section) -> None:
    dtype = root.take("dtype", Text(32), "float32")
    quantised = root.notebook.job.get("load_in_4bit") or root.notebook.job.get("load_in_8bit")
    if dtype == "float32" and not quantised:
        root.doubt("dtype", "more", FLOAT32_BASE)
    half = root.take("fp16", Flag(), False)
    if root.take("bf16", Flag(), not half) is False:
        where = "fp16" if half else "bf16"
        root.doubt(where, "either" if half else "more", "trains in another precision than bfloat16, which is planned")


def _rows(root: Section) -> None:
    """Packed and padding-free batches: as many tokens as a dense batch, which is what the transformers path plans."""
    strategies = Choice(("bfd", "bfd_split", "bfd-requeue", "wrapped"))
    packs = root.take("packing", Flag(), False)
    flattened = root.take("padding_free", Flag(), False)
    root.take("packing_strategy", Optional(strategies))
    root.notebook.packs = bool(packs)
    if packs or flattened:
        root.note("packed and padding-free batches are planned as dense ones of as many tokens")
    if root.has("model_revision") and root.take("model_revision", Text()) != "main":
        root.notebook.job["model"] += f"@{root.values['model_revision']}"
