"""Writes the script that runs a job: the same settings the plan was made of, in Unsloth's own calls.

Whatever came from outside is written as a Python literal by ``repr``, so no name can become code. The calls
are those of ``FastLanguageModel.from_pretrained`` and ``get_peft_model`` (unsloth/models/loader.py, llama.py)
and of ``SFTConfig`` (trl).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from ctxplan.environment import environment
from ctxplan.naming import gpu_name
from estimator import Architecture, Estimate, Job
from estimator.errors import JobError

TEMPLATES = Path(__file__).parent / "templates"
WEIGHT_FORMATS = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "full_finetuning")
PURPOSES = {
    ("unsloth", "train"): "Fine-tune a model with Unsloth.",
    ("unsloth", "generate"): "Generate text with Unsloth.",
    ("transformers", "train"): "Fine-tune a model with plain transformers and PEFT.",
    ("transformers", "generate"): "Generate text with plain transformers.",
}

USAGES = {
    "train": ' --data train.jsonl\n\nThe data is JSON lines with a "text" in each. Without --data it trains on random '
    "tokens: the memory\nis the plan's, the result is worth nothing.",
    "generate": ' --prompt "Once upon a time"\n\nWithout --prompt it continues random tokens of the planned length.',
}


@dataclass(frozen=True, slots=True)
class Script:
    """A complete Python program and a name for its file."""

    filename: str
    text: str


def write_script(asked: Job, estimate: Estimate, architecture: Architecture) -> Script:
    """Write the script of a job.

    Args:
        asked: the job as it was given; what it leaves to the stack, the script leaves to the stack where it
        can. estimate: its estimate, whose job has every null resolved.

    Raises:
        JobError: the job describes something that no training script does (a model cut to fewer layers).
    """
    job = estimate.job
    if job.num_hidden_layers not in (None, architecture.num_hidden_layers):
        raise JobError(
            "a script trains the whole model",
            key="num_hidden_layers",
            allowed=f"null or {architecture.num_hidden_layers}",
        )
    filename = f"{job.framework}_{job.mode}.py"
    parts = _unsloth_parts(asked, job) if job.framework == "unsloth" else _transformers_parts(job)
    return Script(filename, _head(job, estimate, filename) + "".join(parts))


def _head(job: Job, estimate: Estimate, filename: str) -> str:
    plan = {
        "gpu": gpu_name(job.gpu),
        "verdict": estimate.verdict,
        "peak_allocated_bytes": estimate.peak_allocated_bytes.expected,
        "peak_reserved_bytes": estimate.peak_reserved_bytes.expected,
        "host_bytes": estimate.host_bytes.expected,
        "versions": dict(job.versions),
    }
    return _fill(
        "head",
        purpose=PURPOSES[job.framework, job.mode],
        filename=filename,
        plan=_literal(plan),
        environment=_literal(environment(job, estimate.execution_path)),
        model=repr(job.model if isinstance(job.model, str) else None),
        max_seq_length=repr(job.max_seq_length),
        sequence_length=repr(job.sequence_length),
        usage=USAGES[job.mode],
        arguments=_template(f"{job.mode}_arguments").template.rstrip("\n"),
    )


def _unsloth_parts(asked: Job, job: Job) -> list[str]:
    loading = _arguments(1, _unsloth_loading(asked, job))
    if job.mode == "generate":
        return [_fill("unsloth_generate", from_pretrained=loading), _generation(job)]
    adapters = (
        "" if job.full_finetuning else _call("model = FastLanguageModel.get_peft_model", "model", _unsloth_lora(job))
    )
    evaluates = bool(job.per_device_eval_batch_size)
    return [
        _fill(
            "unsloth_train",
            from_pretrained=loading,
            adapters=adapters,
            rows_per_step=repr(job.per_device_train_batch_size * job.gradient_accumulation_steps),
            eval_dataset="rows,  # the training rows: put held-out ones here" if evaluates else "None,",
            config=_arguments(2, _sft_config(job)),
        )
    ]


def _unsloth_loading(asked: Job, job: Job) -> dict[str, Any]:
    loading: dict[str, Any] = {"max_seq_length": _Code("MAX_SEQ_LENGTH")}
    loading |= {name: bool(getattr(job, name)) for name in WEIGHT_FORMATS}
    loading["use_gradient_checkpointing"] = job.use_gradient_checkpointing
    # Unsloth's CPU backend does not know these, so they are named only where they change something.
    rare = {
        "load_in_fp8": job.load_in_fp8 or None,
        "offload_embedding": None if asked.offload_embedding == "auto" else asked.offload_embedding,
        "unsloth_tiled_mlp": job.unsloth_tiled_mlp or None,
        "attn_implementation": asked.attn_implementation,
    }
    return loading | {name: value for name, value in rare.items() if value is not None}


def _unsloth_lora(job: Job) -> dict[str, Any]:
    return {
        **_lora(job),
        "use_gradient_checkpointing": job.use_gradient_checkpointing,
        "max_seq_length": _Code("MAX_SEQ_LENGTH"),
        "random_state": 3407,
    }


def _sft_config(job: Job) -> dict[str, Any]:
    config: dict[str, Any] = {
        "max_length": _Code("SEQUENCE_LENGTH"),
        "per_device_train_batch_size": job.per_device_train_batch_size,
        "gradient_accumulation_steps": job.gradient_accumulation_steps,
        "optim": job.optim,
        "learning_rate": 2e-4,
        "packing": job.packing,
        "padding_free": bool(job.padding_free),
        "dataset_num_proc": 1,
    }
    if job.per_device_eval_batch_size:
        config["per_device_eval_batch_size"] = job.per_device_eval_batch_size
        config["eval_strategy"] = "epoch"
    return config


def _transformers_parts(job: Job) -> list[str]:
    quantised = bool(job.load_in_4bit or job.load_in_8bit)
    if job.load_in_fp8:
        raise JobError(
            "no plain transformers script is written for it", key="load_in_fp8", allowed='framework "unsloth"'
        )
    trains = job.mode == "train"
    imports = ", Trainer, TrainingArguments" if trains else ""
    imports += ", BitsAndBytesConfig" if quantised else ""
    loading: dict[str, Any] = {"attn_implementation": job.attn_implementation}
    if quantised:
        loading["quantization_config"] = _Code(f"BitsAndBytesConfig({_inline(_quantisation(job))})")
    load = _fill("transformers_load", more_imports=imports, from_pretrained=_arguments(1, loading))
    if not trains:
        return [load, _generation(job)]
    train = _fill(
        "transformers_train",
        adapters=_transformers_adapters(job, quantised=quantised),
        batch_size=repr(job.per_device_train_batch_size),
        optim=repr(job.optim),
        accumulation=repr(job.gradient_accumulation_steps),
    )
    return [load, train]


def _quantisation(job: Job) -> dict[str, Any]:
    if job.load_in_8bit:
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": _Code("torch.bfloat16"),
    }


def _transformers_adapters(job: Job, *, quantised: bool) -> str:
    checkpoints = job.use_gradient_checkpointing is not False
    lines = []
    if quantised:
        lines.append("from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training\n")
        lines.append(f"model = prepare_model_for_kbit_training(model, use_gradient_checkpointing={checkpoints!r})")
    else:
        if not job.full_finetuning:
            lines.append("from peft import LoraConfig, get_peft_model\n")
        if checkpoints:
            lines.append("model.gradient_checkpointing_enable()")
            lines.append("model.enable_input_require_grads()")
    if not job.full_finetuning:
        lines.append(_call("model = get_peft_model", "model", {"peft_config": _lora_config(job)}))
    return "\n".join(lines)


def _lora_config(job: Job) -> _Code:
    return _Code(f"LoraConfig({_inline({**_lora(job), 'task_type': 'CAUSAL_LM'})})")


def _lora(job: Job) -> dict[str, Any]:
    targets = list(job.target_modules) if isinstance(job.target_modules, tuple) else job.target_modules
    return {
        "r": job.r,
        "target_modules": targets,
        "lora_alpha": job.r,
        "lora_dropout": job.lora_dropout,
        "bias": "none",
        "modules_to_save": list(job.modules_to_save) or None,
    }


def _generation(job: Job) -> str:
    return _fill(
        "generate",
        batch_size=repr(job.per_device_train_batch_size),
        max_new_tokens=repr(job.max_new_tokens or 1),
    )


class _Code(str):
    """Text of our own that is code: a name in the script, or a call made of literals."""

    def __repr__(self) -> str:
        return str(self)


def _arguments(depth: int, values: Mapping[str, Any]) -> str:
    return "\n".join(f"{'    ' * depth}{name}={value!r}," for name, value in values.items())


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _call(function: str, first: str, values: Mapping[str, Any]) -> str:
    return f"{function}(\n    {first},\n{_arguments(1, values)}\n)\n"


def _literal(values: Mapping[str, Any]) -> str:
    """A dict on lines of its own."""
    return "{\n" + "".join(f"    {name!r}: {value!r},\n" for name, value in values.items()) + "}"


def _fill(template: str, **values: str) -> str:
    return _template(template).substitute(values)


@cache
def _template(name: str) -> Template:
    return Template((TEMPLATES / f"{name}.py.tmpl").read_text(encoding="utf-8"))
