"""What may be asked beside the config of a preflight, the documents of a token count, and what is to be measured; each
may be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from ctxplan.client.queue_answers import Activate


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


class SubmitOptions(TypedDict, total=False):
    """Beside points.

    Of jobs with a higher ``priority`` (-1000 to 1000) the workers take first. ``requires`` (``gpu``,
    ``min_memory_bytes``, ``versions``) stands in place of what a point is assumed to need. ``max_attempts`` are leases
    before a job fails; one that is still queued after ``expires_in_seconds`` expires. ``idempotency_key``: by default
    each call makes one, so that a request that is sent again is taken once; give one of your own, and so is a call
    that your program makes again.
    """

    priority: int
    requires: Mapping[str, Any]
    max_attempts: int
    expires_in_seconds: float
    idempotency_key: str


class CampaignOptions(SubmitOptions, total=False):
    """Beside a model: which points are planned (as the options of ``ctxplan calibrate plan``), and whether what is
    fitted to them answers from then on."""

    checkpointing: Sequence[str]
    batches: Sequence[str]
    time_limit_seconds: float
    activate: Activate
