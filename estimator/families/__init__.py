"""From a Hugging Face ``config.json`` to an `Architecture`, one reader for each ``model_type``.

A dimension is read or derived as the family's own class derives it, never guessed: a missing ``hidden_size``
is an error. What is no dimension (a flag, a window, a RoPE base) has the class's default when its key is
absent, because that is what the model would be built with. Source throughout: transformers 5.17.0,
``models/*/configuration_*.py`` and ``modeling_*.py``, held true by building every family on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from estimator.architecture import Architecture
from estimator.errors import ArchitectureError, UnsupportedArchitecture
from estimator.families.dense import DENSE
from estimator.families.fields import Config
from estimator.families.moe import MOE
from estimator.rules import shorten, shown

FAMILIES: Mapping[str, Callable[[Config], Architecture]] = {**DENSE, **MOE}
"""Reader of each ``model_type`` that is modelled."""

_VISION = "its vision tower, whose weights and activations are not modelled"
_LATENT = "latent attention (MLA) and its expert layers"
_RECURRENT = "its state-space or linear-attention layers"
_NEEDS: Mapping[str, str] = {
    "gemma3": _VISION + " (a text-only Gemma 3 has model_type gemma3_text)",
    "llama4": "chunked attention, interleaved experts and " + _VISION,
    "mllama": "cross-attention layers and " + _VISION,
    "mistral3": _VISION,
    "gemma3n": "per-layer embeddings, AltUp layers and " + _VISION,
    "gemma4": "per-layer embeddings and " + _VISION,
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "kimi_k2": _LATENT,
    "qwen2_vl": _VISION,
    "qwen2_5_vl": _VISION,
    "qwen3_vl": _VISION,
    "qwen3_next": _RECURRENT,
    "qwen3_5": _RECURRENT,
    "mamba": _RECURRENT,
    "mamba2": _RECURRENT,
    "falcon_h1": _RECURRENT,
    "granitemoehybrid": _RECURRENT,
    "lfm2": _RECURRENT,
    "jamba": _RECURRENT,
}


def read_config(config: Mapping[str, Any]) -> Architecture:
    """Read a model's shape from its parsed ``config.json``.

    Raises:
        ArchitectureError: a dimension is missing or is one that no model has; the error names the key.
        UnsupportedArchitecture: a ``model_type`` or a quantization that is not modelled, and what support
        would need.
    """
    if not isinstance(config, Mapping):
        raise ArchitectureError(f"a config must be a JSON object, got {shown(config)}", allowed="an object")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        problem = "is required" if "model_type" not in config else f"{shown(model_type)} is not accepted"
        raise ArchitectureError(problem, key="model_type", allowed=", ".join(FAMILIES))
    reader = FAMILIES.get(model_type)
    if reader is None:
        raise _unsupported(model_type)
    for tower in ("vision_config", "audio_config"):
        if config.get(tower) is not None:
            message = f"{model_type} with a {tower} is not modelled; support would need the shapes of that tower"
            raise UnsupportedArchitecture(message, key=tower, allowed="a text-only config")
    return reader(Config(config))


def _unsupported(model_type: str) -> UnsupportedArchitecture:
    needs = _NEEDS.get(model_type, "the shapes of its decoder layer and a measured run")
    message = f"{shorten(model_type)} is not modelled; support would need {needs}"
    return UnsupportedArchitecture(message, key="model_type", allowed=", ".join(FAMILIES))
