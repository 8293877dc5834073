"""Numbers and names as a person reads them. GiB are 2^30 bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ctxplan import naming
from estimator import Job

GIB = 2**30
MIB = 2**20

VERDICTS = {"fits": "Fits", "does_not_fit": "Does not fit", "uncertain": "Uncertain"}
STATE_CLASSES = {"succeeded": "fits", "done": "fits", "failed": "short", "leased": "busy", "measuring": "busy"}
VERDICT_CLASSES = {"fits": "fits", "does_not_fit": "short", "uncertain": "unsure"}

_SPELLED = {
    "Mlp": "MLP",
    "Lora": "LoRA",
    "Lm": "LM",
    "Rope": "RoPE",
    "Kv": "KV",
    "Cublas": "cuBLAS",
    "Fp32": "FP32",
    "Peft": "PEFT",
    "mlp": "MLP",
    "lora": "LoRA",
}


def gib(size_bytes: int) -> str:
    """GiB with the digits that matter: 0.06, 4.77, 69.5, 164."""
    size = size_bytes / GIB
    if 0 < abs(size) < 0.005:
        return "<0.01"
    return f"{size:,.2f}" if abs(size) < 10 else f"{size:,.1f}" if abs(size) < 1000 else f"{size:,.0f}"


def tokens(count: int) -> str:
    """A number of tokens, or any other whole number."""
    return f"{count:,}"


def thousands(count: int) -> str:
    """A round number of tokens, short enough for an axis: 0, 500, 24K, 1.5M."""
    if count >= 1_000_000:
        return f"{count / 1e6:g}M"
    return f"{count / 1000:g}K" if count >= 1000 else str(count)


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{share:.{digits}%}"


def signed(share: float) -> str:
    """A relative error as a percentage with its sign; tiny ones keep a digit that says so."""
    written = f"{share:+.3%}" if abs(share) < 0.001 else f"{share:+.2%}"
    return written.replace("-", "−")


def human(name: str) -> str:
    """A term's or a phase's name as words: ``mlp_gate_up`` is "MLP gate up"."""
    words = name.replace("_", " ").capitalize().split(" ")
    return " ".join(_SPELLED.get(word, word) for word in words)


def sentence(text: str) -> str:
    """The text with a capital letter in front; the rest as it is, unlike `str.capitalize`."""
    return text[:1].upper() + text[1:]


def billions(parameters: int) -> str:
    """Parameters of a model: 70.6 B, 596 M."""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


def short_id(id: str) -> str:
    """A calibration's id as it is shown: its first twelve digits, which may be typed back."""
    return id.removeprefix("sha256-")[:12]


def gpu_name(job: Job) -> str:
    """The card's name, whether it is of the catalogue or described in the job."""
    return naming.gpu_name(job.gpu)


def model_name(job: Job) -> str:
    """The model's name without its owner."""
    return job.model.rpartition("/")[2] if isinstance(job.model, str) else "the given config"


def verdict(value: str) -> str:
    """A verdict in words."""
    return VERDICTS[value]


def verdict_class(value: str) -> str:
    """A verdict as the style sheet names it."""
    return VERDICT_CLASSES[value]


_AGES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ago(at: str, now: datetime) -> str:
    """How long ago a moment was, or in how long it will be, in the largest unit that it fills.

    Args:
        at: ISO 8601, with its zone.
    """
    seconds = (now - datetime.fromisoformat(at)).total_seconds()
    size, unit = next(((size, unit) for size, unit in _AGES if abs(seconds) >= size), (1, ""))
    if not unit:
        return "now"
    words = f"{int(abs(seconds) // size)} {unit}"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def moment(at: str) -> str:
    """A moment to the second, in UTC."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def state_class(state: str) -> str:
    """A state of a job or a campaign as the style sheet names it."""
    return {"succeeded": "fits", "done": "fits", "failed": "short", "leased": "busy", "measuring": "busy"}.get(
        state, "idle"
    )


FILTERS: Mapping[str, Callable[..., Any]] = {
    "gib": gib,
    "tokens": tokens,
    "thousands": thousands,
    "percent": percent,
    "signed": signed,
    "human": human,
    "billions": billions,
    "sentence": sentence,
    "short_id": short_id,
    "gpu_name": gpu_name,
    "model_name": model_name,
    "verdict": verdict,
    "verdict_class": verdict_class,
    "ago": ago,
    "moment": moment,
    "state_class": state_class,
}
"""What the templates may use."""
