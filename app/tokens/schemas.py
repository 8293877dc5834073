"""The answer of ``POST /v1/tokens``, as the OpenAPI document states it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.tokens.question import question_schema

Count = Annotated[int, Field(ge=0)]
Length = Annotated[int, Field(ge=1)]

TOKENS_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": question_schema()}}}
}


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Percentiles(_Answer):
    """Tokens that so many percent of the documents do not exceed; each is a document's own length."""

    p50: Count
    p90: Count
    p95: Count
    p99: Count
    max: Count


class HistogramBucket(_Answer):
    """Documents with ``first_tokens`` to ``last_tokens`` tokens, both included."""

    first_tokens: Count
    last_tokens: Count
    documents: Count
    tokens: Count


class DenseBatches(_Answer):
    """An epoch in batches that are padded to their longest document; padding is the expectation over random orders."""

    batches: Count
    padding_tokens: Count


class PackedRows(_Answer):
    """An epoch of a packed dataset (best fit decreasing): rows of ``max_seq_length``, and the room left in them."""

    rows: Count
    batches: Count
    unused_tokens: Count


class LengthCut(_Answer):
    """What a ``max_seq_length`` does to the documents."""

    max_seq_length: Length
    documents_cut: Count
    tokens_lost: Count
    tokens_kept: Count
    dense: DenseBatches
    packed: PackedRows


class LengthToAsk(_Answer):
    """``recommended``: the shortest of the lengths that cuts at most ``max_cut_percent``; null where none does.
    ``nothing_cut``: the longest document's own length."""

    recommended: Length | None
    nothing_cut: Count


class TokensAnswer(_Answer):
    """Token lengths of documents, and which ``max_seq_length`` they ask for."""

    documents: Length
    tokens: Count
    percentiles: Percentiles
    histogram: list[HistogramBucket]
    cuts: list[LengthCut]
    max_seq_length: LengthToAsk
    max_cut_percent: float
    per_device_train_batch_size: Length
    tokenizer: str | None
