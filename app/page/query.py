"""A job as the query of an address, and back: a link reproduces the page, with or without JavaScript.

The names are the job's own. Two more make a plain form possible: ``weights`` (which of the weight formats is asked
for, and ``!name`` for one that is refused) and ``host_ram_gib``. A field that is left empty takes its default. A query
that names no model changes the first visitor's job.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from app.jsontext import UnreadableJson, read_json
from app.page.words import GIB
from estimator import Job, job_to_json, parse_job
from estimator.errors import JobError
from estimator.job import RULES
from estimator.rules import Choice, Integer, Names, Number, Optional, Rule, shorten

FIRST_JOB: Mapping[str, Any] = {
    "model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit",
    "gpu": "H100-80GB",
    "max_seq_length": 89_389,
    "r": 32,
}
"""What a first visitor sees answered."""

WEIGHTS = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "load_in_fp8", "full_finetuning")
NOTHING = "[]"
"""A list without names: an empty field would mean the default."""

OURS = frozenset({"weights", "host_ram_gib"})
_DEFAULTS = job_to_json(Job(model=""))
_SHORT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([kKmM])")
_LITERALS = {"true": True, "false": False, "null": None}


def job_of_query(pairs: Iterable[tuple[str, str]]) -> Job:
    """Read a job from the pairs of a query. Where no model is named, what is not given is the first visitor's.

    Raises:
        JobError: an unknown key, one that is given twice, a value that is not allowed; the error names the key.
    """
    values: dict[str, str] = {}
    others: Mapping[str, Any] = FIRST_JOB
    for key, text in pairs:
        if key == "model":
            others = {}
        if not text.strip():
            continue
        if key in values:
            raise JobError("is given twice", key=shorten(key), allowed="each key once")
        values[key] = text.strip()
    return parse_job({**others, **_job_values(values)})


def unknown_keys(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The keys of a query that no job has, each once."""
    return tuple(dict.fromkeys(key for key, text in pairs if text.strip() and key not in RULES and key not in OURS))


def query_of_job(job: Job, **changes: Any) -> str:
    """The shortest query that means the job, with some keys changed: only what differs from the defaults.

    Raises:
        JobError: the model is a config object, which no address can hold.
    """
    values = {**job_to_json(job), **changes}
    if not isinstance(values["model"], str):
        raise JobError("a config object has no address", key="model", allowed="a Hub id")
    pairs = [(key, text_of(value)) for key, value in values.items() if key == "model" or value != _DEFAULTS[key]]
    return urlencode(pairs, quote_via=quote, safe="/,")


def plain_values(job: Job) -> dict[str, Any]:
    """The job as JSON values, as short as it can be read: model, card and length, and what differs from the
    defaults."""
    always = ("model", "gpu", "max_seq_length")
    return {key: value for key, value in job_to_json(job).items() if key in always or value != _DEFAULTS[key]}


def weights_of(job: Job) -> str:
    """The weight formats that a job asks for, as ``weights`` writes them; empty where it leaves them to the stack."""
    asked = ((name, getattr(job, name)) for name in WEIGHTS)
    return ",".join(name if value else f"!{name}" for name, value in asked if value is not None)


def text_of(value: Any) -> str:
    """A value of a job as a query writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return ",".join(value) or NOTHING
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _job_values(texts: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {key: _value(key, text) for key, text in texts.items() if key not in OURS}
    for name in filter(None, texts.get("weights", "").split(",")):
        key = name.removeprefix("!")
        if key not in WEIGHTS:
            raise JobError(f'"{shorten(key)}" is not accepted', key="weights", allowed=", ".join(WEIGHTS))
        values.setdefault(key, key == name)
    if "host_ram_gib" in texts:
        values.setdefault("host_ram_bytes", _bytes_of_gib(texts["host_ram_gib"]))
    return values


def _value(key: str, text: str) -> Any:
    """The text as the key's rule expects it; where it cannot be read so it stays text, which the rule then refuses."""
    rule: Rule | None = RULES.get(key)
    if key == "versions" or (key == "gpu" and text.startswith("{")):
        try:
            return read_json(text.encode("utf-8", "surrogatepass"))
        except UnreadableJson as error:
            raise JobError(str(error), key=key, allowed="a JSON object") from None
    if isinstance(rule, Optional):
        if text == "null":
            return None
        rule = rule.rule
    if isinstance(rule, Choice):
        return _LITERALS.get(text, text) if _LITERALS.get(text, text) in rule.values else text
    if isinstance(rule, Names):
        return _names(text, rule)
    return _number(text, rule, key) if isinstance(rule, Integer | Number) else text


def _names(text: str, rule: Names) -> Any:
    if text in rule.shorthands:
        return text
    if text == NOTHING:
        return []
    return [name.strip() for name in text.split(",") if name.strip()]


def _number(text: str, rule: Integer | Number, key: str) -> Any:
    """A number, with the separators that people write: 89,389 and 89 389 and 89_389.

    Raises:
        JobError: thousands are written K, which some read as 1,000 and others as 1,024.
    """
    plain = "".join(character for character in text if character not in ",_ \u202f\u00a0")
    try:
        return int(plain) if isinstance(rule, Integer) else float(plain)
    except ValueError:
        if isinstance(rule, Integer) and (short := _SHORT.fullmatch(plain)):
            raise _in_thousands(text, key, short) from None
        return text


def _in_thousands(text: str, key: str, short: re.Match[str]) -> JobError:
    power = "km".index(short[2].lower()) + 1
    sizes = [f"{round(float(short[1]) * thousand**power):,}" for thousand in (1000, 1024)]
    allowed = f"the whole number in digits: {sizes[0]} or {sizes[1]}"
    return JobError(f'"{shorten(text)}" may mean either of two numbers', key=key, allowed=allowed)


def _bytes_of_gib(text: str) -> int:
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not math.isfinite(size):
        raise JobError(f'"{shorten(text)}" is not accepted', key="host_ram_gib", allowed="a number of GiB")
    return int(size * GIB)
