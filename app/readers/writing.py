"""A change of a job in the words of the tool whose config it is: the other way round than the readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Changes = Mapping[str, Any]
IMPLIED = ""
"""In place of a key: the tool gets there by the keys beside it."""
OTHER_FORMATS = {"load_in_16bit": IMPLIED, "load_in_fp8": IMPLIED}
TRANSFORMERS = {
    key: key
    for key in (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "per_device_eval_batch_size",
        "optim",
    )
}
ENVIRONMENT = {
    ("block_compile", False): ("UNSLOTH_BLOCK_COMPILE", "0"),
    ("pin_host_memory", False): ("UNSLOTH_DISABLE_PINNED_MEMORY", "1"),
}
"""Variables that Unsloth reads when it is imported, whoever imports it; as `estimator.advise.code` has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A change, written.

    Attributes:
        config: keys of the tool's config with their new values. environment: variables to set before the start.
        missing: keys of the job that change, and that no setting of the tool changes.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """How one tool calls the keys of a job.

    Attributes:
        keys: its own key for a job's. special: what a key's value alone does not say. runs_unsloth: whether the
            tool runs Unsloth, which reads variables. impossible: keys of the job that no run of the tool can have.
    """

    keys: Mapping[str, str]
    special: Callable[[Changes, Changes], Changes] = lambda changes, job: {}
    runs_unsloth: bool = False
    impossible: frozenset[str] = frozenset()


def written(tool: str, changes: Changes, job: Changes) -> Written | None:
    """The changes in the tool's words.

    Args:
        tool: one of `app.readers.TOOLS`. changes: keys of a job with their new values. job: the whole changed job.

    Returns:
        None where a run of this tool cannot have them at all.
    """
    words = WORDS.get(tool)
    if words is None:
        return Written(config={key: _plain(value) for key, value in changes.items() if key != "gpu"})
    if any(changes.get(key) for key in words.impossible):
        return None
    special = words.special(changes, job)
    config: dict[str, Any] = {}
    environment: dict[str, str] = {}
    missing = []
    for key, value in changes.items():
        own = words.keys.get(key)
        variable = ENVIRONMENT.get((key, value)) if isinstance(value, bool) else None
        if variable and (words.runs_unsloth or job.get("framework") == "unsloth"):
            environment[variable[0]] = variable[1]
        elif own:
            config[own] = _plain(value)
        elif own is None and key not in special and key != "gpu":
            missing.append(key)
    for key, value in special.items():
        config |= value or {}
        if value is None:
            missing.append(key)
    return Written(config=config, environment=environment, missing=tuple(missing))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _comma(value: Any) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _unsloth(changes: Changes, job: Changes) -> Changes:
    """Values of ``unsloth train``: full fine-tuning is a training type, and targets are one text."""
    found: dict[str, Any] = {}
    if "full_finetuning" in changes:
        found["full_finetuning"] = {"training.training_type": "full" if changes["full_finetuning"] else "lora"}
    if "target_modules" in changes:
        found["target_modules"] = {"lora.target_modules": _comma(changes["target_modules"])}
    return found


def _checkpointing(own: str, *, on: Any = True, off: Any = False) -> Callable[[Changes, Changes], Changes]:
    """Of a tool without Unsloth's own checkpointing."""

    def told(changes: Changes, job: Changes) -> Changes:
        key = "use_gradient_checkpointing"
        if key not in changes:
            return {}
        asked = changes[key]
        return {key: None if asked == "unsloth" else {own: on if asked else off}}

    return told


def _trl(changes: Changes, job: Changes) -> Changes:
    found = dict(_checkpointing("gradient_checkpointing")(changes, job))
    if "full_finetuning" in changes:
        found["full_finetuning"] = {"use_peft": not changes["full_finetuning"]}
    return found


def _axolotl(changes: Changes, job: Changes) -> Changes:
    """4-bit weights with adapters are an adapter of their own there."""
    found = dict(_checkpointing("gradient_checkpointing")(changes, job))
    four = changes.get("load_in_4bit")
    if four and not job.get("full_finetuning"):
        found["load_in_4bit"] = {"load_in_4bit": True, "adapter": "qlora"}
    if changes.get("full_finetuning") is False:
        found["full_finetuning"] = {} if four else {"adapter": "lora"}
    return found


def _llamafactory(changes: Changes, job: Changes) -> Changes:
    found: dict[str, Any] = {}
    unsloth = job.get("framework") == "unsloth"
    if "framework" in changes:
        found["framework"] = {"use_unsloth": unsloth}
    if "use_gradient_checkpointing" in changes:
        asked = changes["use_gradient_checkpointing"]
        if unsloth:  # with use_unsloth it is always Unsloth's own
            found["use_gradient_checkpointing"] = {} if asked == "unsloth" else None
        else:
            found["use_gradient_checkpointing"] = {"disable_gradient_checkpointing": not asked}
    if changes.get("load_in_4bit"):
        found["load_in_4bit"] = {"quantization_bit": 4}
    if changes.get("full_finetuning") is False:
        found["full_finetuning"] = {"finetuning_type": "lora"}
    if "target_modules" in changes:
        targets = changes["target_modules"]
        found["target_modules"] = {"lora_target": "all" if targets == "all-linear" else _comma(targets)}
    if "modules_to_save" in changes:
        found["modules_to_save"] = {"additional_target": _comma(changes["modules_to_save"])}
    return found


def _llamafactory_v1(changes: Changes, job: Changes) -> Changes:
    """A step's sequences are one number there, whatever they are divided into."""
    found = dict(_checkpointing("enable_activation_checkpointing")(changes, job))
    if "gradient_accumulation_steps" in changes:
        total = job["per_device_train_batch_size"] * job["gradient_accumulation_steps"]
        found["gradient_accumulation_steps"] = {"global_batch_size": total}
    if changes.get("load_in_4bit"):
        found["load_in_4bit"] = {"quant_config": {"name": "bnb", "quantization_bit": 4}}
    if changes.get("full_finetuning") is False:
        found["full_finetuning"] = {"peft_config.name": "lora"}
    return found


def _lora(r: str, targets: str, saved: str) -> dict[str, str]:
    return {"r": r, "target_modules": targets, "modules_to_save": saved}


WORDS: Mapping[str, _Words] = {
    "unsloth": _Words(
        keys={
            "max_seq_length": "training.max_seq_length",
            "per_device_train_batch_size": "training.batch_size",
            "gradient_accumulation_steps": "training.gradient_accumulation_steps",
            "use_gradient_checkpointing": "training.gradient_checkpointing",
            "optim": "training.optim",
            "packing": "training.packing",
            "load_in_4bit": "training.load_in_4bit",
            "r": "lora.lora_r",
            **OTHER_FORMATS,
        },
        special=_unsloth,
        runs_unsloth=True,
    ),
    "trl": _Words(
        keys={
            **TRANSFORMERS,
            **OTHER_FORMATS,
            **_lora("lora_r", "lora_target_modules", "lora_modules_to_save"),
            "max_seq_length": "max_length",
            "load_in_4bit": "load_in_4bit",
            "load_in_8bit": "load_in_8bit",
        },
        special=_trl,
    ),
    "axolotl": _Words(
        keys={
            **OTHER_FORMATS,
            **_lora("lora_r", "lora_target_modules", "lora_modules_to_save"),
            "max_seq_length": "sequence_len",
            "per_device_train_batch_size": "micro_batch_size",
            "gradient_accumulation_steps": "gradient_accumulation_steps",
            "per_device_eval_batch_size": "eval_batch_size",
            "optim": "optimizer",
            "load_in_4bit": "load_in_4bit",
            "load_in_8bit": "load_in_8bit",
        },
        special=_axolotl,
    ),
    "llamafactory": _Words(
        keys={
            **TRANSFORMERS,
            **OTHER_FORMATS,
            "load_in_4bit": IMPLIED,
            "load_in_8bit": IMPLIED,
            "max_seq_length": "cutoff_len",
            "r": "lora_rank",
        },
        special=_llamafactory,
        # Its Trainer pads: packed rows reach the model as dense ones.
        impossible=frozenset({"packing", "padding_free"}),
    ),
    "llamafactory-v1": _Words(
        keys={
            **OTHER_FORMATS,
            **_lora("peft_config.r", "peft_config.target_modules", "peft_config.modules_to_save"),
            "load_in_4bit": IMPLIED,
            "load_in_8bit": IMPLIED,
            "max_seq_length": "cutoff_len",
            "per_device_train_batch_size": "micro_batch_size",
        },
        special=_llamafactory_v1,
    ),
}
"""Every tool that is not the planner's own job."""
