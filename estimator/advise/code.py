"""How changes read in a training script, in Unsloth's own calls (or TRL's, transformers' and PEFT's)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.job import Job
from estimator.resolve import Trainer

LOADING = (
    "max_seq_length",
    "load_in_4bit",
    "load_in_8bit",
    "load_in_16bit",
    "load_in_fp8",
    "full_finetuning",
    "unsloth_tiled_mlp",
    "offload_embedding",
)
ADAPTERS = ("r", "target_modules", "modules_to_save", "use_gradient_checkpointing")
CONFIG = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "optim",
    "packing",
    "padding_free",
)
VARIABLES = {
    ("block_compile", False): 'os.environ["UNSLOTH_BLOCK_COMPILE"] = "0"',
    ("pin_host_memory", False): 'os.environ["UNSLOTH_DISABLE_PINNED_MEMORY"] = "1"',
}
"""Read when Unsloth is imported, so they are set before (`ctxplan.environment` sets the same)."""

FLATTENED = "each micro-batch flattened into one row, with packed_seq_lengths"


def code_lines(changes: Mapping[str, Any], job: Job, trainer: Trainer) -> tuple[str, ...]:
    """One line a call that changes.

    Args:
        changes: keys of the job with their new values. job: the changed job, resolved.
    """
    lines = [f"{line}  # before unsloth is imported" for key, line in VARIABLES.items() if _sets(changes, *key)]
    if "framework" in changes:
        lines.append("from unsloth import FastLanguageModel  # in place of AutoModelForCausalLM and get_peft_model")
    lines += _unsloth_lines(changes, job) if job.framework == "unsloth" else _transformers_lines(changes)
    lines += _step_lines(changes, job, trainer)
    if "gpu" in changes:
        lines.append(f"# on one {changes['gpu']}")
    return tuple(lines)


def _unsloth_lines(changes: Mapping[str, Any], job: Job) -> list[str]:
    loading, adapters = _given(changes, LOADING), _given(changes, ADAPTERS)
    if job.full_finetuning or job.mode == "generate":
        return _call("FastLanguageModel.from_pretrained", {**loading, **adapters})
    lines = _call("FastLanguageModel.from_pretrained", loading)
    if adapters or changes.get("full_finetuning") is not False:
        return [*lines, *_call("FastLanguageModel.get_peft_model", adapters)]
    return [*lines, "model = FastLanguageModel.get_peft_model(model, ...)"]


def _transformers_lines(changes: Mapping[str, Any]) -> list[str]:
    lines = _call("BitsAndBytesConfig", {"load_in_4bit": True} if changes.get("load_in_4bit") else {})
    lines += _call("LoraConfig", _given(changes, ("r", "target_modules", "modules_to_save")))
    if changes.get("full_finetuning") is False:
        lines.append("model = get_peft_model(model, LoraConfig(...))")
    if changes.get("use_gradient_checkpointing"):
        lines.append("model.gradient_checkpointing_enable()")
    return lines


def _step_lines(changes: Mapping[str, Any], job: Job, trainer: Trainer) -> list[str]:
    """What an ``SFTConfig`` takes, or what a loop has to do itself."""
    given = _given(changes, CONFIG)
    if trainer == "sft":
        if "max_seq_length" in changes and job.mode == "train":
            given = {"max_length": changes["max_seq_length"], **given}
        return _call("SFTConfig", given)
    flattened = given.pop("padding_free", None) or given.get("packing")
    if "max_seq_length" in changes and job.framework == "transformers":
        given["tokens of a sequence"] = changes["max_seq_length"]
    lines = [f"# in the loop: {key} = {_literal(value)}" for key, value in given.items()]
    return [*lines, f"# in the loop: {FLATTENED}"] if flattened else lines


def _given(changes: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: changes[key] for key in keys if changes.get(key) is not None}


def _sets(changes: Mapping[str, Any], key: str, value: bool) -> bool:
    return changes.get(key) is value


def _call(name: str, arguments: Mapping[str, Any]) -> list[str]:
    if not arguments:
        return []
    listed = ", ".join(f"{key}={_literal(value)}" for key, value in arguments.items())
    return [f"{name}(..., {listed})"]


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) and '"' not in value and "\\" not in value else repr(value)
