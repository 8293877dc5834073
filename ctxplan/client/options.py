"""What may be asked beside the config of a preflight and the documents of a token count; each may be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class PreflightOptions(TypedDict, total=False):
    """Beside a config.

    ``file`` is its name, for the findings; ``tool`` the launcher, where the keys do not tell; ``model`` and ``gpu``
    stand in place of the config's own; ``tokens`` is an answer about the data's token lengths; ``confidence`` is that
    of the upper bound, a probability.
    """

    file: str
    tool: str | None
    model: str | Mapping[str, Any] | None
    gpu: str | Mapping[str, Any] | None
    host_ram_bytes: int | None
    confidence: float | None
    tokens: Mapping[str, Any] | None
    strict: bool
    fail_on: Literal["uncertain", "does_not_fit"]


class TokensOptions(TypedDict, total=False):
    """``lengths`` in tokens, or ``texts`` and the ``tokenizer`` (a model) to count them by; never both."""

    lengths: Sequence[int]
    texts: Sequence[str]
    tokenizer: str
    add_special_tokens: bool | None
    max_seq_lengths: Sequence[int] | None
    max_cut_percent: float
    per_device_train_batch_size: int
