"""What is asked of a preflight: a config that was read, the card and the host that it is to run on, and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.preflight.token_report import TokenReport
from app.readers import ConfigError, Reading
from ctxplan.hf import DEFAULT_TARGETS
from ctxplan.models import ModelFacts
from estimator import Job, parse_job
from estimator.errors import CtxplanError, JobError

FailOn = Literal["uncertain", "does_not_fit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A preflight.

    Attributes:
        model: in place of the config's own.
        gpu: the card; None for the job's own, or the default one, of which note is taken.
        tokens: how long the samples are, where that is known.
        strict: whether a finding of level ``error`` fails a run that fits.
        fail_on: the least verdict that fails: with ``does_not_fit``, an uncertain one passes.
    """

    reading: Reading
    gpu: str | Mapping[str, Any] | None = None
    model: str | Mapping[str, Any] | None = None
    host_ram_bytes: int | None = None
    confidence: float | None = None
    tokens: TokenReport | None = None
    strict: bool = False
    fail_on: FailOn = "uncertain"


def model_of(question: Question) -> str | Mapping[str, Any]:
    """The model that is asked for, or else the config's. Raises ConfigError where neither names one."""
    model: str | Mapping[str, Any] | None = question.model or question.reading.job.get("model")
    if model is None:
        allowed = "a Hub id or a directory, there or beside it (--model)"
        raise ConfigError("is not given", place=question.reading.place(None), key="model", allowed=allowed)
    return model


def job_of(question: Question, facts: ModelFacts) -> tuple[Job, tuple[str, ...]]:
    """The job that is planned, and what was assumed to make it one.

    Raises:
        ConfigError: the config's own key is at fault. CtxplanError: the card or the host that was asked for is.
    """
    reading, notes = question.reading, []
    values = {key: value for key, value in reading.job.items() if value is not None}
    values["model"] = model_of(question)
    if question.gpu is not None:
        values["gpu"] = question.gpu
    elif "gpu" not in values:
        notes.append(f"no GPU is named: planned for {Job(model='').gpu}")
    for key, value in (("host_ram_bytes", question.host_ram_bytes), ("confidence", question.confidence)):
        if value is not None:
            values[key] = value
    if "target_modules" in reading.job and reading.job["target_modules"] is None:
        values["target_modules"] = list(_default_targets(reading, facts))
    if facts.architecture.attention_sinks and reading.flash_with_sinks:
        values["attn_implementation"] = "flex_attention"
        notes.append(
            "a flash kernel that takes attention sinks is planned as Flex Attention, which holds no scores either"
        )
    notes += _lengths(question, values)
    try:
        return parse_job(values), tuple(notes)
    except JobError as error:
        raise at_config(error, reading) from None


def at_config(error: CtxplanError, reading: Reading) -> CtxplanError:
    """The error with the config's own key and its line, where the config is what sets the key at fault."""
    source = reading.sources.get((error.key or "").partition(".")[0].partition("[")[0])
    if source is None:
        return error
    key = source.key if source.key.rpartition(".")[2] != error.key else error.key
    moved = ConfigError(error.message, place=source.place, key=key, allowed=error.allowed)
    moved.code = error.code
    return moved


def _default_targets(reading: Reading, facts: ModelFacts) -> tuple[str, ...]:
    family = facts.architecture.model_type
    if family not in DEFAULT_TARGETS:
        raise ConfigError(
            f"is not given, and PEFT has no default for {family}",
            place=reading.place(None),
            key="lora_target_modules",
            allowed="a list of modules, or all-linear",
        )
    return DEFAULT_TARGETS[family]


def _lengths(question: Question, values: dict[str, Any]) -> list[str]:
    """Set the lengths that the data decides: nothing is longer than the longest sample, unless rows are packed."""
    reading, tokens = question.reading, question.tokens
    if reading.length_from_data:
        if tokens is None:
            raise ConfigError(
                "is null: nothing cuts the samples, and nobody said how long they are",
                place=reading.place(None),
                key="max_length",
                allowed="a length, or --tokens-report with what ctxplan tokens says of the data",
            )
        values["max_seq_length"] = tokens.longest
        return [f"the longest sample has {tokens.longest:,} tokens, and nothing cuts it"]
    longest = values.get("max_seq_length", Job(model="").max_seq_length)
    if tokens is None or reading.packs or values.get("sequence_length") is not None or tokens.longest >= longest:
        return []
    values["sequence_length"] = tokens.longest
    return [f"planned for the longest sample, {tokens.longest:,} tokens, below the {longest:,} of max_seq_length"]
