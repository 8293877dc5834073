"""Loads the model and adds the adapters, the way that the job's framework is used.

Sources: unsloth/models/loader.py ``FastLanguageModel.from_pretrained``; peft ``prepare_model_for_kbit_training``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from estimator import Job
from estimator.resolve import Run


class Loaded(NamedTuple):
    """A model with its tokenizer."""

    model: Any
    tokenizer: Any


def load_model(asked: Job, run: Run, checkpoint: str) -> Loaded:
    """Load from a directory.

    Args:
        asked: the job as asked, whose nulls are left to the stack. run: the same, resolved.
    """
    if run.job.framework == "unsloth":
        return _load_unsloth(asked, run.job, checkpoint)
    return _load_transformers(run.job, checkpoint)


def add_adapters(model: Any, job: Job) -> Any:
    """The model as it trains: with LoRA, unless it is fully fine-tuned."""
    if job.full_finetuning:
        if job.framework == "transformers":
            _prepare_checkpointing(model, job)
        return model
    return _unsloth_adapters(model, job) if job.framework == "unsloth" else _peft_adapters(model, job)


def lora_arguments(job: Job) -> dict[str, Any]:
    """What ``get_peft_model`` and ``LoraConfig`` both take."""
    return {
        "r": job.r,
        "target_modules": list(job.target_modules),
        "lora_alpha": job.r,
        "lora_dropout": job.lora_dropout,
        "bias": "none",
        "modules_to_save": list(job.modules_to_save) or None,
    }


def _load_unsloth(asked: Job, job: Job, checkpoint: str) -> Loaded:
    from unsloth import FastLanguageModel

    rare = {
        "load_in_fp8": job.load_in_fp8 or None,
        "offload_embedding": None if asked.offload_embedding == "auto" else asked.offload_embedding,
        "unsloth_tiled_mlp": job.unsloth_tiled_mlp or None,
        "attn_implementation": asked.attn_implementation,
    }
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=checkpoint,
        max_seq_length=job.max_seq_length,
        load_in_4bit=job.load_in_4bit,
        load_in_8bit=job.load_in_8bit,
        load_in_16bit=job.load_in_16bit,
        full_finetuning=job.full_finetuning,
        use_gradient_checkpointing=job.use_gradient_checkpointing,
        **{name: value for name, value in rare.items() if value is not None},
    )
    return Loaded(model, tokenizer)


def _unsloth_adapters(model: Any, job: Job) -> Any:
    from unsloth import FastLanguageModel

    return FastLanguageModel.get_peft_model(
        model,
        **lora_arguments(job),
        use_gradient_checkpointing=job.use_gradient_checkpointing,
        max_seq_length=job.max_seq_length,
        random_state=3407,
    )


def _load_transformers(job: Job, checkpoint: str) -> Loaded:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    quantisation = None
    if job.load_in_4bit:
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    elif job.load_in_8bit:
        quantisation = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.bfloat16,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
        attn_implementation=job.attn_implementation,
        **({"quantization_config": quantisation} if quantisation else {}),
    )
    model.config.use_cache = job.mode == "generate"
    return Loaded(model, AutoTokenizer.from_pretrained(checkpoint))


def _peft_adapters(model: Any, job: Job) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if job.load_in_4bit or job.load_in_8bit:
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=job.use_gradient_checkpointing is not False
        )
    else:
        _prepare_checkpointing(model, job)
    return get_peft_model(model, LoraConfig(**lora_arguments(job), task_type="CAUSAL_LM"))


def _prepare_checkpointing(model: Any, job: Job) -> None:
    if job.use_gradient_checkpointing is not False:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
