"""A job from the objects of a training script: the arguments of TRL or transformers, PEFT's LoRA, bitsandbytes'
settings, a model or its name.

Each is known by its shape, and nothing of those libraries is imported. Read as of trl 1.15.0, transformers 5.17.0, peft
0.21.2 and unsloth 2026.10.9.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ctxplan.hf import DEFAULT_TARGETS, planned_optimizer
from ctxplan.models import resolve_model
from estimator import Job, parse_job
from estimator.errors import CtxplanError, JobError
from estimator.job import RULES
from estimator.rules import shown

UNSLOTH_CHECKPOINTING = "_unsloth_gradient_checkpointing"
"""What Unsloth's ``patch_peft_model`` leaves on a model: its ``use_gradient_checkpointing``."""
LORA_UNMODELLED = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "rank_pattern",
    "layers_to_transform",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "exclude_modules",
)
ARGUMENTS_UNMODELLED = (
    "activation_offloading",
    "use_liger_kernel",
    "torch_compile",
    "deepspeed",
    "fsdp",
    "neftune_noise_alpha",
    "auto_find_batch_size",
    "optim_target_modules",
    "label_smoothing_factor",
    "bf16_full_eval",
    "parallelism_config",
)


SOME_LORA = frozenset({"r", "target_modules", "modules_to_save"})
"""Keys of a job with which it trains adapters, without a ``LoraConfig``."""
FLOAT32 = "float32"


class NotModelled(UserWarning):
    """A setting that matters for memory and that the job says nothing of."""


class _Parts(NamedTuple):
    """The objects, each by what it is."""

    model: Any = None
    arguments: Any = None
    lora: Any = None
    quantization: Any = None


def job_from(*objects: Any, **keys: Any) -> Job:
    """The job that a training script with these objects runs.

    Args:
        objects: in any order, each at most once: ``SFTConfig`` or ``TrainingArguments``, ``LoraConfig``,
            ``BitsAndBytesConfig``, and a model: loaded, its config, or its name.
        keys: keys of a job (``gpu``, ``max_seq_length``, ...), which win over what the objects say. Without
            ``framework``, the run is Unsloth's where Unsloth was imported.

    Raises:
        JobError: an object that is none of these, no model, no length, or settings that cannot be planned.

    Warns:
        NotModelled: a setting that matters for memory and is not planned, by its name; weights that are kept in
            float32 among them.
    """
    for key in keys:
        if key not in RULES:
            raise JobError("unknown key", key=key, allowed="the keys of a job")
    parts = _sorted(objects)
    framework = keys.get("framework") or ("unsloth" if "unsloth" in sys.modules else "transformers")
    values: dict[str, Any] = {"framework": framework}
    values |= _of_model(parts.model)
    values |= _of_arguments(parts.arguments, values)
    lora = parts.lora or _active_adapter(parts.model)
    values |= _of_lora(lora, values) if lora is not None else {}
    adapts = lora is not None or bool(keys.keys() & SOME_LORA)
    weights = _weights(parts, lora=adapts, framework=framework)
    job = {**values, **weights, **keys}
    if job.get("mode", "train") == "train":
        if not adapts and "full_finetuning" not in keys:
            _refuse_quantised(weights)
        _refuse_no_length(job, parts)
    return parse_job(job)


def length_of(*objects: Any) -> int | None:
    """Tokens to which these objects of a script cut the samples; None where nothing cuts them.

    Raises:
        JobError: an object that `job_from` does not know.
    """
    parts = _sorted(objects)
    of_model = _of_model(parts.model)
    lengths = {**of_model, **(_lengths(parts.arguments, of_model) if parts.arguments is not None else {})}
    found: int | None = lengths.get("sequence_length") or lengths.get("max_seq_length")
    return found


def _refuse_quantised(weights: Mapping[str, Any]) -> None:
    """Quantised weights do not train by themselves. Raises JobError where nothing says which adapters do."""
    for key in ("load_in_4bit", "load_in_8bit"):
        if weights.get(key):
            allowed = "quantised weights with LoRA only: a LoraConfig, or r="
            raise JobError("contradicts full fine-tuning", key=key, allowed=allowed)


def _refuse_no_length(job: Mapping[str, Any], parts: _Parts) -> None:
    """A plan is one of some length. Raises JobError where neither the keys nor the objects say which."""
    if job.get("max_seq_length") is None and job.get("sequence_length") is None:
        why = "is not known: nothing cuts the samples" if parts.arguments is not None else "is not given"
        allowed = "max_seq_length=, the tokens of the longest sample, or SFTConfig(max_length=...)"
        raise JobError(why, key="max_seq_length", allowed=allowed)


def _sorted(objects: Iterable[Any]) -> _Parts:
    found: dict[str, Any] = {}
    for thing in objects:
        kind = _kind(thing)
        if kind in found:
            raise JobError(f"two objects are the {kind}", key=kind, allowed="one of each")
        found[kind] = thing
    return _Parts(**found)


def _kind(thing: Any) -> str:
    """Which part of a job an object is, by the attributes that only such an object has."""
    if isinstance(thing, str) or (hasattr(thing, "config") and callable(getattr(thing, "parameters", None))):
        return "model"
    if hasattr(thing, "per_device_train_batch_size") and hasattr(thing, "gradient_accumulation_steps"):
        return "arguments"
    if hasattr(thing, "lora_alpha") and hasattr(thing, "target_modules"):
        return "lora"
    if hasattr(thing, "bnb_4bit_quant_type"):
        return "quantization"
    if hasattr(thing, "model_type") and callable(getattr(thing, "to_dict", None)):
        return "model"
    allowed = "SFTConfig, TrainingArguments, LoraConfig, BitsAndBytesConfig, a model, its config or its name"
    raise JobError(f"a {type(thing).__name__} is not known", allowed=allowed)


def _of_model(model: Any) -> dict[str, Any]:
    if model is None or isinstance(model, str):
        return {} if model is None else {"model": model}
    config = getattr(model, "config", model)
    values: dict[str, Any] = {"model": json.loads(json.dumps(config.to_dict(), default=str))}
    # Unsloth keeps the length that a model was loaded for on the model.
    length = getattr(model, "max_seq_length", None)
    if isinstance(length, int):
        values["max_seq_length"] = length
    checkpointing = getattr(model, UNSLOTH_CHECKPOINTING, None)
    if checkpointing is not None:
        values["use_gradient_checkpointing"] = checkpointing
    return values


def _of_arguments(arguments: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    if arguments is None:
        return {}
    _warn_of(arguments, ARGUMENTS_UNMODELLED)
    named = planned_optimizer(_plain(arguments.optim))
    if named is None:
        raise JobError(
            f"{shown(_plain(arguments.optim))} is not modelled", key="optim", allowed="transformers' optimizers"
        )
    if named.effect:
        _warn(f"optim: {_plain(arguments.optim)} {named.why}: planned as {named.optim}")
    out: dict[str, Any] = {
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "optim": named.optim,
    }
    if values["framework"] == "transformers":
        out["use_gradient_checkpointing"] = bool(arguments.gradient_checkpointing)
        for key in ("packing", "padding_free"):
            if getattr(arguments, key, False):
                _warn(f"{key}: packed and padding-free batches are planned as dense ones of as many tokens")
    else:
        out["packing"] = bool(getattr(arguments, "packing", False))
        out["padding_free"] = True if getattr(arguments, "padding_free", False) else None
    if _plain(getattr(arguments, "eval_strategy", "no")) != "no":
        out["per_device_eval_batch_size"] = arguments.per_device_eval_batch_size
    return out | _lengths(arguments, values)


def _lengths(arguments: Any, values: Mapping[str, Any]) -> dict[str, int]:
    """``max_length`` cuts the samples; a model that Unsloth loaded for fewer tokens cuts them further."""
    asked = getattr(arguments, "max_seq_length", None) or getattr(arguments, "max_length", None)
    loaded = values.get("max_seq_length")
    if asked is None:
        return {}
    return {"max_seq_length": asked} if loaded is None else {"sequence_length": min(asked, loaded)}


def _active_adapter(model: Any) -> Any:
    """The LoRA settings of a model that PEFT has wrapped."""
    configs = getattr(model, "peft_config", None)
    return next(iter(configs.values()), None) if isinstance(configs, Mapping) else None


def _of_lora(lora: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    _warn_of(lora, LORA_UNMODELLED)
    if getattr(lora, "bias", "none") != "none":
        _warn(f"bias {lora.bias}: trains biases, which are not planned")
    targets = lora.target_modules
    if targets is None:
        targets = _default_targets(values.get("model"))
    elif isinstance(targets, str) and targets != "all-linear":
        raise JobError("is a pattern, which is not modelled", key="target_modules", allowed="a list of modules")
    modules = targets if isinstance(targets, str) else sorted(targets)
    return {
        "r": lora.r,
        "lora_dropout": lora.lora_dropout,
        "target_modules": modules,
        "modules_to_save": sorted(lora.modules_to_save or ()),
    }


def _default_targets(model: Any) -> tuple[str, ...]:
    """What PEFT adapts where nobody says, by the model's family: its config's, or that of a name that is known here
    (the catalogue, a directory, the local cache). Raises JobError."""
    family = model.get("model_type") if isinstance(model, Mapping) else None
    if isinstance(model, str):
        try:
            family = resolve_model(model, offline=True).architecture.model_type
        except CtxplanError:
            family = None
    if family not in DEFAULT_TARGETS:
        allowed = "a list of modules, or all-linear"
        reason = f"PEFT has no default for {family}" if family else "PEFT's default is known by the model alone"
        raise JobError(f"is None, and {reason}", key="target_modules", allowed=allowed)
    return DEFAULT_TARGETS[family]


def _weights(parts: _Parts, *, lora: bool, framework: str) -> dict[str, Any]:
    """The weight format: as it is asked for, or as the loaded model has it."""
    quantization = parts.quantization
    if quantization is None and parts.model is not None and not isinstance(parts.model, str):
        quantization = getattr(getattr(parts.model, "config", parts.model), "quantization_config", None)
    four, eight = (_flag(quantization, name) for name in ("load_in_4bit", "load_in_8bit"))
    if four or eight:
        return {"load_in_4bit": four, "load_in_8bit": eight}
    _warn_of_float32(parts, framework, lora=lora)
    if lora:
        # A name alone, with Unsloth, says nothing of the format: from_pretrained's default is 4 bit.
        named = isinstance(parts.model, str) and framework == "unsloth" and quantization is None
        return {} if named else {"load_in_4bit": False, "load_in_16bit": True}
    return {} if framework == "unsloth" and isinstance(parts.model, str) else {"full_finetuning": True}


def _warn_of_float32(parts: _Parts, framework: str, *, lora: bool) -> None:
    """A loaded model tells its dtype; what TRL loads by its name is float32 unless its settings say otherwise (trl
    1.15.0, ``SFTTrainer``: ``model_init_kwargs``)."""
    planned = "they are planned in bfloat16, half of it"
    if not isinstance(parts.model, str):
        # Full fine-tuning in float32 is what Unsloth makes of a card without bfloat16, and is planned as such.
        dtype = _plain(getattr(parts.model, "dtype", None)).removeprefix("torch.")
        if dtype == FLOAT32 and (lora or framework != "unsloth"):
            _warn(f"dtype: the model's base weights are in float32; {planned}")
        return
    if framework == "unsloth" or not hasattr(parts.arguments, "model_init_kwargs"):
        return
    settings = parts.arguments.model_init_kwargs
    dtype = settings.get("dtype", FLOAT32) if isinstance(settings, Mapping) else FLOAT32
    if _plain(dtype).removeprefix("torch.") == FLOAT32:
        _warn(
            f"dtype: TRL loads a model by its name in float32, unless model_init_kwargs say otherwise; {planned}. Of a "
            "model that is loaded elsewhere give the model itself, or its config"
        )


def _flag(quantization: Any, name: str) -> bool:
    if isinstance(quantization, Mapping):
        return bool(quantization.get(name))
    return bool(getattr(quantization, name, False))


def _warn_of(thing: Any, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(thing, name, None)
        if value not in (None, False, "", 0, 0.0) and value != {} and value != []:
            _warn(f"{name} is set, and matters for memory: it is not planned")


def _warn(message: str) -> None:
    warnings.warn(message, NotModelled, stacklevel=4)


def _plain(value: Any) -> str:
    """An enumeration's value, or the text itself."""
    return str(getattr(value, "value", value))
