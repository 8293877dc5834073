"""RoPE: what a ``max_seq_length`` beyond the native length does, and when to look at the base instead.

One decision, in the order of its questions: is the length beyond what the model was made for? does the data have
samples that need it? who reaches the positions, and how?
"""

from __future__ import annotations

from collections.abc import Iterator

from app.preflight.findings import Case, Finding, Level

LINEAR_LIMIT = 4.0
"""Linear scaling squeezes all positions by its factor, near ones as well. Up to 4 a short training makes up for it;
above, a larger base is the usual way (NTK-aware scaling), which leaves near positions as they were. Sources: Chen et
al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation"; Peng et al. 2023, "YaRN"."""


def beyond_the_native_length(case: Case) -> Iterator[Finding]:
    """``rope-needless``, ``rope-base``, ``rope-linear``, ``rope-llama3`` or ``rope-unscaled``; nothing within it."""
    rope = case.estimate.rope
    native, asked = rope["native_length"], rope["max_seq_length"]
    if asked <= native:
        return
    if case.tokens is not None and min(case.tokens.longest, asked) <= native:
        message = (
            f"max_seq_length {asked:,} is beyond the native {native:,} tokens, and no sample is: ask for {native:,} at "
            "most, and RoPE stays as it was trained"
        )
        yield case.finding("rope-needless", "warning", message, "max_seq_length")
    elif rope["scaling"] == "linear" and rope["factor"] > LINEAR_LIMIT:
        message = (
            f"{asked:,} tokens are {rope['factor']:.3g} times the native {native:,}: Unsloth scales RoPE linearly, too "
            f"far for near positions; look at the RoPE base: rope_theta about {_larger_base(case):,.0f} in the config"
        )
        yield case.finding("rope-base", "warning", message, "max_seq_length")
    elif rope["scaling"] == "linear" and rope["factor"] > 1:
        message = (
            f"{asked:,} tokens are beyond the native {native:,}: Unsloth scales RoPE linearly by {rope['factor']:.3g}. "
            "If quality is lost, look at the long samples in the data first, and then at the RoPE base"
        )
        yield case.finding("rope-linear", "warning", message, "max_seq_length")
    else:
        yield case.finding(*_kept(case, native, asked), "max_seq_length")


def _kept(case: Case, native: int, asked: int) -> tuple[str, Level, str]:
    if case.estimate.rope["scaling"] == "llama3":
        return (
            "rope-llama3",
            "note",
            f"{asked:,} tokens are beyond the native {native:,}: the llama3 scaling stays and the cache grows; "
            f"positions past {native:,} are new to the model, and only the data's long samples teach them",
        )
    return (
        "rope-unscaled",
        "warning",
        f"{asked:,} tokens are beyond the native {native:,}, and nothing scales RoPE here: expect lost quality past it",
    )


def _larger_base(case: Case) -> float:
    """The base at which the slowest frequency covers the asked length: theta * factor^(d / (d - 2)), d = head_dim."""
    rope, width = case.estimate.rope, case.facts.architecture.head_dim
    base: float = rope["theta"] * rope["factor"] ** (width / (width - 2))
    return base


RULES = (beyond_the_native_length,)
