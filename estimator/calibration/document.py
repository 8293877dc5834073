"""A calibration: what measurements of named versions and GPUs say beyond the structure, as one immutable value.

Its JSON is content-addressed: `content_id` is the SHA-256 of everything but the id itself, so that two calibrations
with one id are the same. `probes.fitting` makes it; nothing here reads a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from estimator.errors import CalibrationError

SCHEMA_VERSION = 2
READ_VERSIONS = (1, 2)
"""Of the first one, what it says of reserved bytes is left to the structure: it was a share of another part."""

MEMORY_MODEL = 1
"""Which structure coefficients and residuals are relative to; one more whenever a term of a training step changes."""

WIDTHS = ("hidden", "mlp", "attention", "key_value", "routed", "expert", "logits", "weight")
"""What a coefficient is a multiple of: one 16-bit tensor of all tokens of a micro-batch, as wide as a hidden state, the
MLP, the queries, the keys; of all routed rows, as wide as a hidden state or an expert's gate and up; all logits; or the
largest quantised weight of a layer in 16 bit."""

MAX_RESIDUALS = 100_000


class Fragmentation(NamedTuple):
    """Reserved beyond allocated where the card has room.

    The weights lie packed, loaded once. What comes and goes with the steps leaves holes, in proportion to its size.

    Attributes:
        share: of the allocated peak beyond what rests between steps. constant_bytes: beside that.
        residuals: measured over expected reserved less one, ascending.
    """

    share: float
    constant_bytes: int
    residuals: tuple[float, ...]


class Modules(NamedTuple):
    """What the driver counts beside the context and what torch reserved, bytes; in the median, and each, ascending."""

    expected: int
    measured: tuple[int, ...]


class Range(NamedTuple):
    """The least and the most that was measured, both included."""

    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the rows of one path covered: families by ``model_type``, tokens of a micro-batch, width and depth."""

    families: frozenset[str]
    tokens: Range
    hidden_size: Range
    num_hidden_layers: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Coefficients and residuals; the default has neither, and leaves every estimate to the structure.

    Attributes:
        id: `content_id`, or ``structural``. memory_model: `MEMORY_MODEL` when it was fitted.
        points: measured points it was made from. digests: theirs, ascending.
        versions: package -> the versions that were measured. gpus: catalogue names of the cards.
        corrections: ``PATH/GROUP/KIND`` -> width -> multiples of it beyond the structure's
            (`estimator.calibration.corrections`).
        residuals: stratum -> measured over expected allocated peak less one, ascending
            (`estimator.calibration.bound`).
        reserved: ``PATH``, ``PATH/KIND`` or ``PATH/tiled`` -> what is reserved beyond allocated.
        modules: catalogue name of a GPU, or "" for all -> bytes.
        process: trainer -> host RAM of the process itself, bytes. measured: path -> what its rows covered.
    """

    id: str = "structural"
    memory_model: int = MEMORY_MODEL
    points: int = 0
    digests: tuple[str, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    corrections: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    residuals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    reserved: Mapping[str, Fragmentation] = field(default_factory=dict)
    modules: Mapping[str, Modules] = field(default_factory=dict)
    process: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)

    @property
    def fitted(self) -> bool:
        return self.points > 0

    def named(self) -> dict[str, Any]:
        """How an answer names it."""
        return {"id": self.id, "points": self.points}


STRUCTURAL = Calibration()


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """The document, its id included."""
    body: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memory_model": calibration.memory_model,
        "points": calibration.points,
        "digests": list(calibration.digests),
        "versions": {name: list(found) for name, found in sorted(calibration.versions.items())},
        "gpus": list(calibration.gpus),
        "corrections": {key: dict(sorted(d.items())) for key, d in sorted(calibration.corrections.items())},
        "residuals": {key: list(values) for key, values in sorted(calibration.residuals.items())},
        "reserved": {
            k: {"share": f.share, "constant_bytes": f.constant_bytes, "residuals": list(f.residuals)}
            for k, f in calibration.reserved.items()
        },
        "modules": {k: {"expected": m.expected, "measured": list(m.measured)} for k, m in calibration.modules.items()},
        "process": dict(sorted(calibration.process.items())),
        "measured": {path: _measured_to_json(one) for path, one in sorted(calibration.measured.items())},
    }
    return {"id": content_id(body), **body}


def content_id(document: Mapping[str, Any]) -> str:
    """``sha256-`` and 64 hexadecimal digits of the canonical JSON, the id left out."""
    body = {key: value for key, value in document.items() if key != "id"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256-{hashlib.sha256(canonical.encode()).hexdigest()}"


def read_calibration(document: Any) -> Calibration:
    """A calibration from its JSON.

    Raises:
        CalibrationError: it is no calibration, of another schema, or its id is not that of its content.
    """
    if not isinstance(document, Mapping) or document.get("schema_version") not in READ_VERSIONS:
        allowed = " or ".join(map(str, READ_VERSIONS))
        raise CalibrationError("is no calibration", key="schema_version", allowed=allowed)
    if document.get("id") != content_id(document):
        raise CalibrationError("is not the id of this content: the document was changed", key="id")
    try:
        return _read(document)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"is no calibration: {type(error).__name__} {error}", key="document") from None


def _read(document: Mapping[str, Any]) -> Calibration:
    return Calibration(
        id=document["id"],
        memory_model=int(document["memory_model"]),
        points=int(document["points"]),
        digests=tuple(map(str, document["digests"])),
        versions={str(name): tuple(map(str, found)) for name, found in document["versions"].items()},
        gpus=tuple(map(str, document["gpus"])),
        corrections={key: _correction(widths) for key, widths in document["corrections"].items()},
        residuals={key: _ascending(values) for key, values in document["residuals"].items()},
        reserved={
            key: Fragmentation(float(one["share"]), int(one["constant_bytes"]), _ascending(one["residuals"]))
            for key, one in document["reserved"].items()
            if document["schema_version"] != 1
        },
        modules={
            key: Modules(int(one["expected"]), tuple(int(v) for v in _ascending(one["measured"])))
            for key, one in document["modules"].items()
        },
        process={str(trainer): int(size) for trainer, size in document["process"].items()},
        measured={path: _measured(one) for path, one in document["measured"].items()},
    )


def _correction(widths: Mapping[str, Any]) -> dict[str, float]:
    unknown = widths.keys() - set(WIDTHS)
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]} is no width")
    return {width: float(multiple) for width, multiple in widths.items()}


def _ascending(values: Any) -> tuple[float, ...]:
    read = tuple(float(value) for value in values)
    if len(read) > MAX_RESIDUALS or any(a > b for a, b in pairwise(read)):
        raise ValueError("residuals are not ascending, or too many")
    return read


def _measured(one: Mapping[str, Any]) -> Measured:
    return Measured(
        families=frozenset(map(str, one["families"])),
        tokens=Range(*map(int, one["tokens"])),
        hidden_size=Range(*map(int, one["hidden_size"])),
        num_hidden_layers=Range(*map(int, one["num_hidden_layers"])),
    )


def _measured_to_json(one: Measured) -> dict[str, Any]:
    return {
        "families": sorted(one.families),
        "tokens": list(one.tokens),
        "hidden_size": list(one.hidden_size),
        "num_hidden_layers": list(one.num_hidden_layers),
    }
