"""Which launcher a config is for, by the keys that only one of them has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.readers.document import Document
from app.readers.errors import ConfigError
from app.readers.values import names
from estimator.job import RULES

LLAMAFACTORY = names(
    "finetuning_type stage cutoff_len template lora_rank lora_target quantization_bit use_unsloth dataset_dir "
    "additional_target overwrite_cache flash_attn neat_packing pure_bf16 adapter_name_or_path"
)
LLAMAFACTORY_V1 = names(
    "train_dataset peft_config quant_config kernel_config dist_config batching_strategy "
    "enable_activation_checkpointing global_batch_size init_config optim_config micro_batch_size cutoff_len"
)
SECTIONS = ("training", "lora")


def detect(document: Document) -> str:
    """The tool's name. Raises ConfigError where no format, or more than one, has these keys."""
    values = document.values
    found = [tool for tool, fits in _shapes(values).items() if fits]
    if len(found) == 1:
        return found[0]
    seen = " and ".join(found) if found else "none of the known formats"
    raise ConfigError(
        f"its keys are those of {seen}",
        place=document.place(),
        allowed="--tool with one of unsloth, trl, axolotl, llamafactory, llamafactory-v1, job",
    )


def telling_key(document: Document, tool: str) -> str | None:
    """The first key of a document by which it is known to be this tool's; None where it is the whole shape."""
    keys = {
        "axolotl": frozenset({"base_model"}),
        "llamafactory": LLAMAFACTORY,
        "llamafactory-v1": LLAMAFACTORY_V1,
        "trl": frozenset({"model_name_or_path"}),
        "unsloth": frozenset(SECTIONS),
        "job": frozenset({"model"}),
    }[tool]
    return next((key for key in document.values if key in keys), None)


def _shapes(values: Mapping[str, Any]) -> dict[str, bool]:
    keys = values.keys()
    hub, job = "model_name_or_path" in keys, "model" in keys and len(keys - RULES.keys()) <= len(keys) // 2
    sections = any(key in keys for key in SECTIONS)
    v1 = "base_model" not in keys and not hub and bool(LLAMAFACTORY_V1 & keys)
    return {
        "axolotl": "base_model" in keys,
        "llamafactory": hub and bool(LLAMAFACTORY & keys),
        "trl": hub and not LLAMAFACTORY & keys,
        "unsloth": sections and not hub,
        "llamafactory-v1": v1 and not sections,
        "job": job and not sections and not v1,
    }
