"""The sizes of one micro-batch, in bytes, in the symbols of `estimator.architecture`."""

from __future__ import annotations

from typing import NamedTuple

from estimator.architecture import Architecture


class Sizes(NamedTuple):
    """One micro-batch of ``sequences`` rows of ``length`` tokens, 16-bit activations.

    Attributes:
        max_seq_length: what the model was loaded with; ``length`` is what a step runs.
        tokens: T = B * S. u: one hidden state. m: one MLP width. q: the queries (and the attention output).
        kv: the keys (or the values).
    """

    max_seq_length: int
    sequences: int
    length: int
    tokens: int
    u: int
    m: int
    q: int
    kv: int


def sizes_of(architecture: Architecture, *, max_seq_length: int, sequences: int, length: int) -> Sizes:
    """Sizes for B sequences of S tokens."""
    two_t = 2 * sequences * length
    return Sizes(
        max_seq_length=max_seq_length,
        sequences=sequences,
        length=length,
        tokens=sequences * length,
        u=two_t * architecture.hidden_size,
        m=two_t * architecture.intermediate_size,
        q=two_t * architecture.query_width,
        kv=two_t * architecture.key_value_width,
    )
