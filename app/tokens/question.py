"""The body of ``POST /v1/tokens``: one set of rules reads it and states it in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ctxplan.token_lengths import BATCH_SIZE, MAX_CUT_PERCENT, MOST_LENGTHS, DocumentsError, Question
from estimator.errors import JobError
from estimator.job import MAX_TOKENS
from estimator.rules import Choice, Integer, Number, Optional, Rule, Schema, Text, parse_object, shown

MOST_BATCH = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensQuestion:
    """Lengths, or texts and what they are to be counted by.

    Attributes:
        lengths: tokens of each document; empty where ``texts`` are given.
        add_special_tokens: None for a trainer's own rule.
    """

    lengths: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    tokenizer: str = ""
    add_special_tokens: bool | None = None
    question: Question


class _Lengths(NamedTuple):
    """A list of whole numbers, at least one."""

    minimum: int
    most: int | None = None

    def parse(self, key: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not value or (self.most is not None and len(value) > self.most):
            most = f" of at most {self.most}" if self.most is not None else ""
            raise JobError(f"{shown(value)} is not accepted", key=key, allowed=f"a non-empty list{most}")
        each = Integer(self.minimum, MAX_TOKENS)
        for index, length in enumerate(value):
            if type(length) is not int or not self.minimum <= length <= MAX_TOKENS:
                each.parse(f"{key}[{index}]", length)
        return tuple(value)

    def schema(self) -> Schema:
        listed: Schema = {"type": "array", "items": Integer(self.minimum, MAX_TOKENS).schema(), "minItems": 1}
        return listed if self.most is None else {**listed, "maxItems": self.most}


class _Texts(NamedTuple):
    """A list of strings that UTF-8 can write, at least one."""

    def parse(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise JobError(f"{shown(value)} is not accepted", key=key, allowed="a non-empty list")
        for index, text in enumerate(value):
            if not isinstance(text, str) or not _is_encodable(text):
                raise JobError(f"{shown(text)} is not accepted", key=f"{key}[{index}]", allowed="a string")
        return tuple(value)

    def schema(self) -> Schema:
        return {"type": "array", "items": {"type": "string"}, "minItems": 1}


_COMMON: Mapping[str, Rule] = {
    "max_seq_lengths": Optional(_Lengths(1, MOST_LENGTHS)),
    "max_cut_percent": Number(0, 100),
    "per_device_train_batch_size": Integer(1, MOST_BATCH),
}
_OF_LENGTHS: Mapping[str, Rule] = {"lengths": _Lengths(0), **_COMMON}
_OF_TEXTS: Mapping[str, Rule] = {
    "texts": _Texts(),
    "tokenizer": Text(),
    "add_special_tokens": Optional(Choice((True, False))),
    **_COMMON,
}


def parse_question(data: Any) -> TokensQuestion:
    """Read a body. Raises DocumentsError, which names the key and what is allowed."""
    try:
        return _parse(data)
    except JobError as error:
        raise DocumentsError(error.message, key=error.key, allowed=error.allowed) from None


def question_schema() -> Schema:
    """The body as JSON Schema: either kind, never both."""
    kinds = ((_OF_LENGTHS, ["lengths"]), (_OF_TEXTS, ["texts", "tokenizer"]))
    objects = [
        {
            "type": "object",
            "properties": {key: rule.schema() for key, rule in rules.items()},
            "required": required,
            "additionalProperties": False,
        }
        for rules, required in kinds
    ]
    return {"title": "TokensQuestion", "oneOf": objects}


def _parse(data: Any) -> TokensQuestion:
    has = [key for key in ("lengths", "texts") if isinstance(data, Mapping) and key in data]
    if isinstance(data, Mapping) and len(has) != 1:
        message = "cannot be given beside lengths" if has else "is required"
        raise JobError(message, key="texts", allowed="either lengths, or texts with a tokenizer")
    rules, required = (_OF_TEXTS, {"texts", "tokenizer"}) if has == ["texts"] else (_OF_LENGTHS, {"lengths"})
    values = parse_object(rules, data, what="a question about tokens", required=frozenset(required))
    question = Question(
        max_seq_lengths=values.pop("max_seq_lengths", None) or (),
        max_cut_percent=values.pop("max_cut_percent", MAX_CUT_PERCENT),
        per_device_train_batch_size=values.pop("per_device_train_batch_size", BATCH_SIZE),
    )
    return TokensQuestion(question=question, **values)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
