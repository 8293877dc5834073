"""From a job as written to a job as run: every null filled in, contradictions refused, the execution path named.

Sources: unsloth/models/loader.py (which families have Unsloth's own forward), unsloth/trainer.py and
unsloth/utils/padding_choice.py (padding-free), unsloth/utils/attention_dispatch.py ``select_attention_backend``,
unsloth/models/_utils.py ``apply_unsloth_gradient_checkpointing``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from estimator.adapters import EMBEDDINGS, Fused, check_targets, fused_kernels, known_targets
from estimator.architecture import Architecture
from estimator.calibration.document import STRUCTURAL, Calibration
from estimator.device import Device
from estimator.errors import JobError
from estimator.job import ALL_LINEAR, Job
from estimator.kernels import Kernel, choose_kernel
from estimator.parameters import with_layers
from estimator.stack import MEASURED_STACK, Stack, read_stack
from estimator.weights import Storage, checkpoint_storage

ExecutionPath = Literal["eager", "block_compiled", "generated", "transformers"]

Trainer = Literal["sft", "loop"]
"""What runs the steps: TRL's ``SFTTrainer``, or a bare loop of forward, backward and optimizer step."""

EAGER_FAMILIES = frozenset({"llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3"})
"""Families whose forward Unsloth replaces (unsloth/models/loader.py); every other goes through FastModel."""

NO_PADDING_FREE = frozenset({"gemma2", "gpt_oss"})
"""unsloth/trainer.py ``PADDING_FREE_BLOCKLIST``: soft-capped or sink attention cannot take packed batches."""

ALWAYS_PADDING_FREE = frozenset({9, 10})
"""Compute capability majors that padding_choice.py has no measurement for: they keep padding-free batches."""

FLASH_CAPABILITY = 8
"""Compute capability major from which FlashAttention 2 runs (unsloth/models/_utils.py)."""

BF16_CAPABILITY = 8
"""Compute capability major from which bfloat16 is supported; below it full fine-tuning upcasts to fp32
(unsloth/models/vision.py ``float32_mixed_precision``)."""

FORMAT_STORAGE: dict[str, Storage] = {
    "load_in_8bit": "int8",
    "load_in_16bit": "bf16",
    "load_in_fp8": "fp8",
    "full_finetuning": "bf16",
}

FORMATS = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "load_in_fp8", "full_finetuning")

OWN_FORWARD = ("eager", "block_compiled")


class Run(NamedTuple):
    """A job as it will run: everything that does not depend on the number of tokens.

    Attributes:
        flattened: whether a micro-batch is one row of all its tokens (padding-free or packed).
        trainer: a Trainer keeps what a bare loop frees: logits for its metrics, 32-bit optimizer state of embeddings.
    """

    job: Job
    architecture: Architecture
    device: Device
    stack: Stack
    path: ExecutionPath
    storage: Storage
    attention: str
    kernel: Kernel
    flattened: bool
    targets: frozenset[str]
    fused: Fused
    assumptions: tuple[str, ...]
    trainer: Trainer
    calibration: Calibration

    @property
    def own_forward(self) -> bool:
        """Whether Unsloth's own forward of llama.py runs, compiled or not."""
        return self.path in OWN_FORWARD

    @property
    def quantised(self) -> bool:
        """Whether the linears are stored in fewer than 16 bits, and dequantised to be multiplied."""
        return self.storage not in ("bf16", "fp32")


def resolve(
    job: Job,
    architecture: Architecture,
    device: Device,
    *,
    trainer: Trainer | None = None,
    calibration: Calibration = STRUCTURAL,
) -> Run:
    """Fill in what the stack would choose.

    Args:
        trainer: None for ``SFTTrainer`` with Unsloth, and for a bare loop with plain transformers.

    Raises:
        JobError: contradictory or impossible settings; the error names the key.
    """
    assumptions: list[str] = []
    if job.num_hidden_layers is not None:
        architecture = with_layers(architecture, job.num_hidden_layers)
    stack = read_stack(job.versions)
    _check_length(job)
    chosen = _weight_format(job, architecture, assumptions)
    storage = _float32_without_bf16(job, chosen, device, assumptions) or _storage(chosen, architecture)
    targets = () if chosen == "full_finetuning" else _targets(job, architecture, assumptions)
    assumptions += _without_effect(job, chosen)
    padding_free = _padding_free(job, architecture, device, assumptions)
    flattened = padding_free or job.packing
    path = _execution_path(job, architecture, chosen, flattened=flattened)
    own_forward = path in OWN_FORWARD
    attention = _attention(job, architecture, device, stack, assumptions, own_forward=own_forward, flattened=flattened)
    saved = tuple(dict.fromkeys((*job.modules_to_save, *(t for t in targets if t in EMBEDDINGS))))
    _check_modules_to_save(saved, chosen)
    names = frozenset(targets).difference(EMBEDDINGS)
    job = replace(
        job,
        load_in_4bit=chosen == "load_in_4bit",
        load_in_8bit=chosen == "load_in_8bit",
        load_in_16bit=chosen == "load_in_16bit",
        load_in_fp8=chosen == "load_in_fp8",
        full_finetuning=chosen == "full_finetuning",
        sequence_length=job.sequence_length or job.max_seq_length,
        num_hidden_layers=architecture.num_hidden_layers,
        target_modules=tuple(t for t in targets if t in names),
        modules_to_save=saved,
        padding_free=padding_free,
        attn_implementation=attention,
        pin_host_memory=True if job.pin_host_memory is None else job.pin_host_memory,
        per_device_eval_batch_size=job.per_device_eval_batch_size or 0,
        block_compile=path == "block_compiled" if own_forward else bool(job.block_compile),
        versions={**MEASURED_STACK, **job.versions},
    )
    return Run(
        job=job,
        architecture=architecture,
        device=device,
        stack=stack,
        path=path,
        storage=storage,
        attention=attention,
        kernel=choose_kernel(attention, architecture, device, unsloth_forward=own_forward),
        flattened=flattened,
        targets=names,
        fused=fused_kernels(names),
        assumptions=tuple(assumptions),
        trainer=trainer or ("loop" if job.framework == "transformers" else "sft"),
        calibration=calibration,
    )


def _check_length(job: Job) -> None:
    length = job.sequence_length
    if length is not None and length > job.max_seq_length:
        raise JobError(
            f"{length} tokens are longer than max_seq_length, to which Unsloth cuts them",
            key="sequence_length",
            allowed=f"at most max_seq_length, {job.max_seq_length}",
        )


def _weight_format(job: Job, architecture: Architecture, assumptions: list[str]) -> str:
    """Which one of `FORMATS` is on; empty where the checkpoint's own format stays."""
    asked = [name for name in FORMATS if getattr(job, name)]
    if len(asked) > 1:
        first, second = asked[0], asked[1]
        raise JobError(
            f"contradicts {second}: both are true", key=first, allowed="one weight format, or full_finetuning"
        )
    chosen = asked[0] if asked else _default_format(job, architecture, assumptions)
    if asked and job.load_in_4bit is None and chosen != "load_in_4bit":
        assumptions.append(f"load_in_4bit is off because {chosen} is asked for")
    return chosen


def _default_format(job: Job, architecture: Architecture, assumptions: list[str]) -> str:
    if job.load_in_4bit is not False:
        return "load_in_4bit"
    quantization = architecture.quantization
    if quantization is None:
        return "load_in_16bit"
    if not quantization.method.startswith("bitsandbytes"):
        assumptions.append(f"weights stay as the checkpoint has them ({quantization.method})")
        return ""
    raise JobError(
        "is false, but the checkpoint is stored in 4 bit or another quantised format",
        key="load_in_4bit",
        allowed="true, or another weight format with a 16-bit checkpoint",
    )


def _storage(chosen: str, architecture: Architecture) -> Storage:
    quantization = architecture.quantization
    stored = checkpoint_storage(quantization) if quantization else "bf16"
    if chosen in ("", "load_in_4bit"):
        # Unsloth serves an MXFP4 or fp8 checkpoint's 4-bit load from NF4; what bitsandbytes wrote stays as it is.
        written = quantization is not None and quantization.method.startswith("bitsandbytes")
        return stored if written or not chosen else "nf4_double_quant"
    if quantization is not None and quantization.method.startswith("bitsandbytes") and stored != FORMAT_STORAGE[chosen]:
        raise JobError(f"needs a 16-bit checkpoint, this one is {stored}", key=chosen, allowed="a 16-bit model id")
    return FORMAT_STORAGE[chosen]


def _float32_without_bf16(job: Job, chosen: str, device: Device, assumptions: list[str]) -> Storage | None:
    if (
        chosen != "full_finetuning"
        or device.compute_capability[0] >= BF16_CAPABILITY
        or job.framework == "transformers"
    ):
        return None
    assumptions.append("the card has no bfloat16: Unsloth trains full weights in float32")
    return "fp32"


def _targets(job: Job, architecture: Architecture, assumptions: list[str]) -> tuple[str, ...]:
    if job.target_modules == "all-linear":
        return known_targets(architecture)
    targets = tuple(job.target_modules)
    if targets != ALL_LINEAR and targets:
        check_targets(architecture, targets)
        return targets
    known = known_targets(architecture)
    if not targets and not job.modules_to_save:
        raise JobError("is empty: LoRA would train nothing", key="target_modules", allowed=", ".join(known))
    if targets == ALL_LINEAR and not set(ALL_LINEAR) <= set(known):
        # PEFT adapts what it finds: on fused projections (phi3) the default list reaches the others only.
        found = tuple(t for t in targets if t in known)
        missing = ", ".join(t for t in targets if t not in known)
        assumptions.append(f"{architecture.model_type} has no {missing}: only {', '.join(found)} are adapted")
        return found
    return targets


def _attention(
    job: Job,
    architecture: Architecture,
    device: Device,
    stack: Stack,
    assumptions: list[str],
    *,
    own_forward: bool,
    flattened: bool,
) -> str:
    asked = job.attn_implementation
    if asked == "flash_attention_2" and architecture.attention_sinks:
        raise JobError(
            "attention sinks have no FlashAttention 2 kernel",
            key="attn_implementation",
            allowed="flex_attention, eager",
        )
    flash = device.compute_capability[0] >= FLASH_CAPABILITY
    if asked == "flash_attention_2" and not flash:
        raise JobError(f"the {device.name} is too old for FlashAttention 2", key="attn_implementation", allowed="sdpa")
    if asked in ("eager", "flex_attention") and own_forward:
        raise JobError(
            "Unsloth's own forward takes what is installed and drops this setting",
            key="attn_implementation",
            allowed="null, sdpa, flash_attention_2, xformers",
        )
    if asked is not None:
        return asked
    if architecture.attention_sinks:
        return "flex_attention" if job.framework == "unsloth" and job.mode == "train" else "eager"
    if job.framework == "transformers":
        return "sdpa"
    if stack.has_flash_attention and flash:
        return "flash_attention_2"
    if stack.has_xformers and not (flattened and stack.varlen and flash):
        return "xformers"
    assumptions.append("attention is PyTorch SDPA: flash-attn and xformers are taken as not installed")
    return "sdpa"


def _padding_free(job: Job, architecture: Architecture, device: Device, assumptions: list[str]) -> bool:
    """Whether batches are padding-free; null is SFTTrainer's own choice."""
    trains = job.mode == "train" and job.framework == "unsloth"
    blocked = architecture.model_type in NO_PADDING_FREE
    if trains and job.packing and job.padding_free is False:
        raise JobError("packed rows are always flattened", key="padding_free", allowed="true or null with packing")
    if (job.padding_free or job.packing) and blocked:
        key = "packing" if job.packing else "padding_free"
        raise JobError(f"Unsloth does not flatten batches of {architecture.model_type}", key=key, allowed="false")
    if job.padding_free and job.framework == "transformers":
        raise JobError("the transformers path runs dense batches", key="padding_free", allowed="false or null")
    if job.padding_free is not None:
        return job.padding_free
    if not trains or blocked or (job.block_compile is True and not job.packing):
        return False
    if job.block_compile is False and not job.packing:
        assumptions.append("padding_free is null: SFTTrainer's choice, padding-free batches")
    if device.compute_capability[0] not in ALWAYS_PADDING_FREE:
        assumptions.append(
            "SFTTrainer may choose padded batches on this card where a micro-batch is short (under 0.1 s of GPU time); "
            "set padding_free to plan for either"
        )
    return True


def _execution_path(job: Job, architecture: Architecture, chosen: str, *, flattened: bool) -> ExecutionPath:
    if job.framework == "transformers":
        return "transformers"
    if chosen in ("full_finetuning", "load_in_8bit") or architecture.model_type not in EAGER_FAMILIES:
        return "generated"
    if job.mode == "generate" or flattened or job.block_compile is False:
        return "eager"
    if job.unsloth_tiled_mlp:
        raise JobError(
            "fails with block compile on dense batches in this stack (a view made in no_grad mode)",
            key="unsloth_tiled_mlp",
            allowed="true together with block_compile: false or padding_free: true",
        )
    return "block_compiled"


def _without_effect(job: Job, chosen: str) -> list[str]:
    """Settings that were given and mean nothing in this run."""
    ignored: list[str] = []
    if chosen == "full_finetuning":
        ignored += [key for key, default in (("r", 16), ("lora_dropout", 0)) if getattr(job, key) != default]
    if job.framework == "transformers":
        ignored += [key for key in ("unsloth_tiled_mlp", "packing", "block_compile") if getattr(job, key)]
        if job.use_gradient_checkpointing == "unsloth":
            ignored.append('use_gradient_checkpointing "unsloth" (planned as true)')
    if job.mode == "generate" and job.per_device_eval_batch_size:
        ignored.append("per_device_eval_batch_size")
    if job.mode == "train" and job.max_new_tokens:
        ignored.append("max_new_tokens")
    return [f"without effect here: {', '.join(ignored)}"] if ignored else []


def _check_modules_to_save(saved: tuple[str, ...], chosen: str) -> None:
    if saved and chosen == "full_finetuning":
        raise JobError(
            "has no meaning in full fine-tuning, where everything trains", key="modules_to_save", allowed="[]"
        )
    for name in saved:
        if name not in EMBEDDINGS:
            raise JobError(f'"{name}" is not modelled', key="modules_to_save", allowed=", ".join(EMBEDDINGS))
