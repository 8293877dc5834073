"""Rotary embedding of a config, in the old form (``rope_theta``, ``rope_scaling``) and in transformers 5's.

Source: transformers 5.17.0, ``modeling_rope_utils.py`` ``convert_rope_params_to_dict`` and
``standardize_rope_params``.
"""

from __future__ import annotations

from estimator.architecture import Rope
from estimator.families.fields import MAX_POSITIONS, Config

SCALINGS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "su")
_FROM_A_LENGTH = ("yarn", "llama3", "longrope")


def read_rope(config: Config, *, native_length: int, theta: float = 10_000.0, local_theta: float | None = None) -> Rope:
    """Read the RoPE of a config.

    Args:
        native_length: the class's default ``max_position_embeddings``.
        theta: its default base.
        local_theta: its default base of sliding-window layers, where the family has one (gemma3).
    """
    native = config.integer("max_position_embeddings", native_length, MAX_POSITIONS)
    given, local = _parameters(config)
    top = config.number("rope_theta", theta)
    scaling = _scaling(given)
    return Rope(
        theta=given.number("rope_theta", top),
        native_length=native,
        scaling=scaling,
        factor=_factor(given, scaling),
        original_length=_original_length(config, given, native) if scaling in _FROM_A_LENGTH else None,
        local_theta=_local_theta(config, local, local_theta),
    )


def _parameters(config: Config) -> tuple[Config, Config | None]:
    """The parameters of the full-attention layers, and those of the sliding ones where they are given
    apart."""
    given = config.inside("rope_scaling") or config.inside("rope_parameters") or Config({})
    if given.names("full_attention") or given.names("sliding_attention"):
        return given.inside("full_attention") or Config({}), given.inside("sliding_attention")
    return given, None


def _scaling(given: Config) -> str:
    scaling = given.text("rope_type", given.text("type", "default", SCALINGS), SCALINGS)
    return "longrope" if scaling == "su" else scaling


def _factor(given: Config, scaling: str) -> float:
    return 1.0 if scaling == "default" else given.number("factor", 1.0)


def _original_length(config: Config, given: Config, native: int) -> int:
    # A length beside the RoPE parameters goes first: phi3 writes it there.
    key = "original_max_position_embeddings"
    return config.integer(key, given.integer(key, native, MAX_POSITIONS), MAX_POSITIONS)


def _local_theta(config: Config, local: Config | None, default: float | None) -> float | None:
    if default is None:
        return None
    top = config.number("rope_local_base_freq", default)
    return local.number("rope_theta", top) if local else top
