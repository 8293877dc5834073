"""Words of transformers and PEFT as a job's own: optimizers, and the modules that LoRA adapts where nobody says.

Plain values: nothing of those libraries is imported.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Effect = Literal["more", "less", "either"]


class Planned(NamedTuple):
    """The optimizer of a plan that stands for another one.

    Attributes:
        optim: a job's ``optim``. effect: what the real one takes beside it; None where the same. why: in words.
    """

    optim: str
    effect: Effect | None = None
    why: str = ""


TWO_MOMENTS = "adamw_torch_fused"

OPTIMIZERS: dict[str, Planned] = {
    "adamw_torch": Planned("adamw_torch"),
    "adamw_torch_fused": Planned(TWO_MOMENTS),
    "adamw_torch_xla": Planned(TWO_MOMENTS, "either", "runs on a TPU"),
    "adamw_torch_npu_fused": Planned(TWO_MOMENTS, "either", "runs on an NPU"),
    "adafactor": Planned("adafactor"),
    "adamw_anyprecision": Planned(TWO_MOMENTS, "either", "keeps its moments in a dtype of its own"),
    "adamw_torch_4bit": Planned("adamw_8bit", "less", "keeps its moments in 4 bit"),
    "adamw_torch_8bit": Planned("adamw_8bit"),
    "ademamix": Planned(TWO_MOMENTS, "more", "keeps three moments"),
    "sgd": Planned("sgd", "more", "keeps a moment where momentum is asked for"),
    "adagrad": Planned(TWO_MOMENTS, "less", "keeps one moment"),
    "adamw_bnb_8bit": Planned("adamw_bnb_8bit"),
    "adamw_8bit": Planned("adamw_8bit"),
    "ademamix_8bit": Planned("adamw_8bit", "more", "keeps three moments"),
    "lion_8bit": Planned("lion_8bit"),
    "lion_32bit": Planned(TWO_MOMENTS, "less", "keeps one moment"),
    "paged_adamw_32bit": Planned("paged_adamw_32bit"),
    "paged_adamw_8bit": Planned("paged_adamw_8bit"),
    "paged_ademamix_32bit": Planned("paged_adamw_32bit", "more", "keeps three moments"),
    "paged_ademamix_8bit": Planned("paged_adamw_8bit", "more", "keeps three moments"),
    "paged_lion_32bit": Planned("paged_adamw_32bit", "less", "keeps one moment"),
    "paged_lion_8bit": Planned("paged_lion_8bit"),
    "rmsprop": Planned(TWO_MOMENTS, "less", "keeps one moment"),
    "rmsprop_bnb": Planned(TWO_MOMENTS, "less", "keeps one moment"),
    "rmsprop_bnb_8bit": Planned("lion_8bit"),
    "rmsprop_bnb_32bit": Planned(TWO_MOMENTS, "less", "keeps one moment"),
    "galore_adamw": Planned(TWO_MOMENTS, "less", "keeps its moments in a low rank"),
    "galore_adamw_8bit": Planned("adamw_8bit", "less", "keeps its moments in a low rank"),
    "galore_adafactor": Planned("adafactor", "either", "keeps its state in a low rank"),
    "galore_adamw_layerwise": Planned(TWO_MOMENTS, "less", "steps layer by layer in a low rank"),
    "galore_adamw_8bit_layerwise": Planned("adamw_8bit", "less", "steps layer by layer in a low rank"),
    "galore_adafactor_layerwise": Planned("adafactor", "less", "steps layer by layer in a low rank"),
    "lomo": Planned("sgd", "less", "steps in the backward and keeps no gradients"),
    "adalomo": Planned("adafactor", "less", "steps in the backward and keeps no gradients"),
    "grokadamw": Planned(TWO_MOMENTS, "more", "keeps a slow gradient beside two moments"),
    "schedule_free_radam": Planned(TWO_MOMENTS, "either", "keeps a second set of weights and one moment"),
    "schedule_free_adamw": Planned(TWO_MOMENTS, "either", "keeps a second set of weights and one moment"),
    "schedule_free_sgd": Planned(TWO_MOMENTS, "less", "keeps a second set of weights"),
    "apollo_adamw": Planned(TWO_MOMENTS, "less", "keeps its moments in a low rank"),
    "apollo_adamw_layerwise": Planned(TWO_MOMENTS, "less", "steps layer by layer in a low rank"),
    "stable_adamw": Planned(TWO_MOMENTS),
}
"""Every optimizer of transformers 5.17.0 (``OptimizerNames``), as it is planned."""

BEFORE: dict[str, str] = {"adamw_hf": "adamw_torch", "paged_adamw": "paged_adamw_32bit"}
"""Names of older releases."""

DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "mixtral": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
    "gemma": ("q_proj", "v_proj"),
    "gemma2": ("q_proj", "v_proj"),
    "gemma3_text": ("q_proj", "v_proj"),
}
"""What PEFT adapts where ``target_modules`` is not given, of the families that are modelled. Source: peft 0.21.2,
peft/utils/constants.py ``TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING``."""


def planned_optimizer(name: str) -> Planned | None:
    """How an optimizer of transformers is planned; None where it has none of that name."""
    return OPTIMIZERS.get(BEFORE.get(name, name))
