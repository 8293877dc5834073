"""The job: one training or generation run, as a plan sees it.

A job is written as JSON with Unsloth's and Hugging Face's own names. ``None`` always means "what the stack would
choose"; `estimator.resolve` fills it in, so that each answer carries the job that was really planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal

from estimator.errors import JobError
from estimator.rules import Choice, Integer, Names, Number, Optional, Rule, Schema, Text, parse_object, shown

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Unsloth's default ``target_modules``: the seven projections of a Llama-like decoder layer."""

CHECKPOINTING = ("unsloth", True, False)
OPTIMIZERS = (
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "adamw_torch",
    "adamw_torch_fused",
    "sgd",
    "adafactor",
    "lion_8bit",
    "paged_lion_8bit",
)
ATTENTION = ("sdpa", "flash_attention_2", "xformers", "flex_attention", "eager")
MAX_TOKENS = 2**27
MAX_BYTES = 2**50

_FLAG = Choice((True, False))
_MAYBE_FLAG = Optional(_FLAG)


class _Model:
    """A Hub id, a directory, or the config object itself."""

    def parse(self, key: str, value: Any) -> str | Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        if isinstance(value, str):
            return Text(512).parse(key, value)
        raise JobError(f"{shown(value)} is not accepted", key=key, allowed="a Hub id, a directory, or a config object")

    def schema(self) -> Schema:
        return {"anyOf": [Text(512).schema(), {"type": "object", "description": "a Hugging Face config.json"}]}


class _Gpu:
    """A catalogue name, or a GPU described by its name and bytes."""

    rules: Mapping[str, Rule] = {"name": Text(128), "total_bytes": Integer(2**30, MAX_BYTES)}

    def parse(self, key: str, value: Any) -> str | Mapping[str, Any]:
        if isinstance(value, Mapping):
            try:
                return parse_object(self.rules, value, what="gpu", required=frozenset(self.rules))
            except JobError as error:
                dotted = f"{key}.{error.key}" if error.key else key
                raise JobError(error.message, key=dotted, allowed=error.allowed) from None
        return Text(128).parse(key, value)

    def schema(self) -> Schema:
        described: Schema = {
            "type": "object",
            "properties": {name: rule.schema() for name, rule in self.rules.items()},
            "required": list(self.rules),
            "additionalProperties": False,
        }
        return {"anyOf": [Text(128).schema(), described]}


class _Versions:
    """Package names with the version that the run will use; null where the package is not installed."""

    names = (
        "bitsandbytes",
        "flash_attn",
        "peft",
        "python",
        "torch",
        "transformers",
        "triton",
        "trl",
        "unsloth",
        "unsloth_zoo",
        "xformers",
    )

    def parse(self, key: str, value: Any) -> Mapping[str, str | None]:
        if not isinstance(value, Mapping):
            raise JobError(f"{shown(value)} is not accepted", key=key, allowed="an object of package versions")
        rules: Mapping[str, Rule] = dict.fromkeys(self.names, Optional(Text(64)))
        try:
            return parse_object(rules, value, what="versions", required=frozenset())
        except JobError as error:
            raise JobError(error.message, key=f"{key}.{error.key}", allowed=", ".join(self.names)) from None

    def schema(self) -> Schema:
        version = Optional(Text(64)).schema()
        return {"type": "object", "properties": dict.fromkeys(self.names, version), "additionalProperties": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training or generation run. Units: tokens and bytes; defaults are Unsloth's."""

    model: str | Mapping[str, Any]
    gpu: str | Mapping[str, Any] = "H100-80GB"
    max_seq_length: int = 2048
    sequence_length: int | None = None
    num_hidden_layers: int | None = None
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    load_in_4bit: bool | None = None
    load_in_8bit: bool | None = None
    load_in_16bit: bool | None = None
    load_in_fp8: bool | None = None
    full_finetuning: bool | None = None
    r: int = 16
    target_modules: tuple[str, ...] | Literal["all-linear"] = ALL_LINEAR
    lora_dropout: float = 0.0
    modules_to_save: tuple[str, ...] = ()
    use_gradient_checkpointing: Literal["unsloth", True, False] = "unsloth"
    optim: str = "adamw_8bit"
    packing: bool = False
    padding_free: bool | None = None
    unsloth_tiled_mlp: bool = False
    offload_embedding: Literal["auto", True, False] = "auto"
    pin_host_memory: bool | None = None
    block_compile: bool | None = None
    attn_implementation: str | None = None
    framework: Literal["unsloth", "transformers"] = "unsloth"
    mode: Literal["train", "generate"] = "train"
    per_device_eval_batch_size: int | None = None
    max_new_tokens: int = 0
    host_ram_bytes: int | None = None
    confidence: float = 0.95
    versions: Mapping[str, str | None] = field(default_factory=dict)


RULES: Mapping[str, Rule] = {
    "model": _Model(),
    "gpu": _Gpu(),
    "max_seq_length": Integer(1, MAX_TOKENS),
    "sequence_length": Optional(Integer(1, MAX_TOKENS)),
    "num_hidden_layers": Optional(Integer(1, 10_000)),
    "per_device_train_batch_size": Integer(1, 65_536),
    "gradient_accumulation_steps": Integer(1, 65_536),
    "load_in_4bit": _MAYBE_FLAG,
    "load_in_8bit": _MAYBE_FLAG,
    "load_in_16bit": _MAYBE_FLAG,
    "load_in_fp8": _MAYBE_FLAG,
    "full_finetuning": _MAYBE_FLAG,
    "r": Integer(1, 8192),
    "target_modules": Names(shorthands=("all-linear",)),
    "lora_dropout": Number(0.0, 0.999),
    "modules_to_save": Names(),
    "use_gradient_checkpointing": Choice(CHECKPOINTING),
    "optim": Choice(OPTIMIZERS),
    "packing": _FLAG,
    "padding_free": _MAYBE_FLAG,
    "unsloth_tiled_mlp": _FLAG,
    "offload_embedding": Choice(("auto", True, False)),
    "pin_host_memory": _MAYBE_FLAG,
    "block_compile": _MAYBE_FLAG,
    "attn_implementation": Optional(Choice(ATTENTION)),
    "framework": Choice(("unsloth", "transformers")),
    "mode": Choice(("train", "generate")),
    "per_device_eval_batch_size": Optional(Integer(0, 65_536)),
    "max_new_tokens": Integer(0, MAX_TOKENS),
    "host_ram_bytes": Optional(Integer(2**30, MAX_BYTES)),
    "confidence": Number(0.5, 0.99),
    "versions": _Versions(),
}
"""One rule a key of the job's JSON; the keys are exactly the fields of `Job`."""


_KEYS = tuple(f.name for f in fields(Job))
_values = attrgetter(*_KEYS)


def parse_job(data: Any) -> Job:
    """Read a job from parsed JSON.

    Raises:
        JobError: an unknown key, a value out of its range or of the wrong type; the error names the key.
    """
    return Job(**parse_object(RULES, data, what="a job", required=frozenset({"model"})))


def job_to_json(job: Job) -> dict[str, Any]:
    """The job as plain JSON values, every key of the contract present."""
    out = dict(zip(_KEYS, _values(job), strict=True))
    for key in ("target_modules", "modules_to_save"):
        if isinstance(out[key], tuple):
            out[key] = list(out[key])
    for key in ("model", "gpu", "versions"):
        if isinstance(out[key], Mapping):
            out[key] = dict(out[key])
    return out


def job_schema() -> Schema:
    """The job as JSON Schema (draft 2020-12), for OpenAPI and for editors."""
    defaults = job_to_json(Job(model=""))
    properties = {key: {**rule.schema(), "default": defaults[key]} for key, rule in RULES.items() if key != "model"}
    return {
        "type": "object",
        "title": "Job",
        "properties": {"model": RULES["model"].schema(), **properties},
        "required": ["model"],
        "additionalProperties": False,
    }
