"""What the formats that sit on transformers and PEFT have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.readers.section import Section, Unmodelled
from ctxplan.hf import OPTIMIZERS, planned_optimizer
from estimator.rules import Text, hint, shorten

ATTENTION: Mapping[str, str] = {
    "sdpa": "sdpa",
    "eager": "eager",
    "flash_attention_2": "flash_attention_2",
    "flex_attention": "flex_attention",
    "xformers": "xformers",
}
"""Attention that a job can name. Other kernels of the flash kind hold what FlashAttention 2 holds."""
LIKE_FLASH = ("flash_attention_3", "flash_attention_4", "kernels-community/", "sage", "flash_attention_torch")

DISTRIBUTED: Mapping[str, Unmodelled] = {
    "deepspeed": Unmodelled("either", "DeepSpeed divides a training between GPUs, and one GPU by itself is planned"),
    "fsdp": Unmodelled(
        "either", "FSDP divides a training between GPUs, and one GPU by itself is planned", (None, False, "", [])
    ),
    "fsdp_config": Unmodelled(
        "either", "FSDP divides a training between GPUs, and one GPU by itself is planned", (None, {})
    ),
}


def optimizer(section: Section, key: str, default: str, others: Mapping[str, Unmodelled] | None = None) -> None:
    """Take an optimizer.

    Args:
        others: optimizers that the tool has beside those of transformers; planned with two moments each.

    Raises:
        ConfigError: there is none of that name.
    """
    name = section.take(key, Text(64), default)
    other = (others or {}).get(name)
    planned = planned_optimizer(name)
    if other is not None:
        section.set("optim", "adamw_torch_fused", key)
        section.doubt(key, other.effect, f"{name} {other.message}: planned as adamw_torch_fused")
        return
    if planned is None:
        known = (*OPTIMIZERS, *(others or ()))
        raise section.error(key, f'"{shorten(name)}" is no optimizer{hint(name, known)}', ", ".join(known))
    section.set("optim", planned.optim, key)
    if planned.effect:
        section.doubt(key, planned.effect, f"{name} {planned.why}: planned as {planned.optim}")


def attention(section: Section, key: str, default: str | None = None) -> None:
    """Take an attention implementation by transformers' names; unset, the stack chooses."""
    name = section.take(key, Text(128), default)
    if name is None:
        return
    if name in ATTENTION:
        section.set("attn_implementation", ATTENTION[name], key)
    elif name.startswith(LIKE_FLASH):
        section.set("attn_implementation", "flash_attention_2", key)
        section.notebook.flash_with_sinks = True
        section.note(f"{section.dotted(key)} {shorten(name)} is planned as flash_attention_2, which holds the same")
    else:
        allowed = ", ".join((*ATTENTION, "flash_attention_3", "kernels-community/..."))
        raise section.error(key, f'"{shorten(name)}" is not known{hint(name, tuple(ATTENTION))}', allowed)


def weights(section: Section, *, four: str | None, eight: str | None, full: bool) -> None:
    """Set the weight format from two flags of the section (None where it has none of them that is on)."""
    if four and eight:
        section.contradiction(eight, four, "one of the two")
    if full and (four or eight):
        section.contradiction(four or eight or "", "full fine-tuning", "quantised weights with LoRA only")
    job_key = "full_finetuning" if full else "load_in_4bit" if four else "load_in_8bit" if eight else "load_in_16bit"
    if job_key != "load_in_4bit":
        section.notebook.job["load_in_4bit"] = False
    section.set(job_key, True, four or eight or "")


def on(value: Any) -> bool:
    """Whether a setting that may be a flag, a word or a mapping is switched on."""
    return value not in (None, False, "", "no", "none", "false", 0) and value != [] and value != {}
