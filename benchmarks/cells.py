"""Rows of evidence as cells of Markdown tables: what ran, in which words, and numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from estimator import Job
from estimator.job import ALL_LINEAR
from probes.comparison import PLANNER, Row
from probes.measurement import Measurement

GIB, MIB = 2**30, 2**20

Cell = str | int
Table = list[str]


def section(title: str, found: Table, before: str = "", *, after: str = "") -> list[str]:
    """A heading, a table and a note on either side; nothing where there is nothing to show."""
    return [part for part in (f"## {title}", before, "\n".join(found), after) if part] if found else []


def table(columns: str, rows: Iterable[Sequence[Cell]], *, numbers: str = "") -> Table:
    """A Markdown table, empty without rows; columns are split at commas, those in ``numbers`` are set to the right."""
    names = [name.strip() for name in columns.split(",")]
    right = [name.strip() for name in numbers.split(",")]
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    rule = "|" + "|".join("---:" if name in right else "---" for name in names) + "|"
    return ["| " + " | ".join(names) + " |", rule, *body] if body else []


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By model, layers, batch and length: lengths of one model stand together."""

    def order(row: Row) -> tuple[Any, ...]:
        m, job = row.measured, row.job
        name, layers = model_name(job), m.num_hidden_layers or 0
        return (name, layers, job.per_device_train_batch_size, m.sequence_length, gpu_name(m), m.point)

    return sorted(rows, key=order)


def shape(row: Row) -> list[str]:
    """Cells for GPU, model, layers and tokens."""
    whole = PLANNER.facts(row.job.model).architecture.num_hidden_layers
    ran = row.measured.num_hidden_layers or row.job.num_hidden_layers or whole
    layers = f"{ran}" if ran == whole else f"{ran} of {whole}"
    return [gpu_name(row.measured), model_name(row.job), layers, tokens(row.job)]


def gpu_name(measured: Measurement) -> str:
    name = str(measured.gpu).removeprefix("NVIDIA ")
    return f"{name} held to {gib(measured.cap.total_bytes)} GiB" if measured.cap else name


def model_name(job: Job) -> str:
    """The repository's name without its owner; of a config object, its model_type."""
    return job.model.rpartition("/")[2] if isinstance(job.model, str) else str(job.model["model_type"])


def tokens(job: Job) -> str:
    length = f"{job.sequence_length or job.max_seq_length:,}"
    batch = job.per_device_train_batch_size
    return length if batch == 1 else f"{batch} x {length}"


SHOWN: dict[str, Callable[[Any], str]] = {
    "gradient_accumulation_steps": lambda n: f"accumulation {n}",
    "load_in_8bit": lambda on: "8-bit" if on else "",
    "load_in_16bit": lambda on: "16-bit" if on else "",
    "load_in_fp8": lambda on: "fp8" if on else "",
    "full_finetuning": lambda on: "full fine-tuning" if on else "",
    "r": lambda r: f"r {r}",
    "target_modules": lambda names: target_names(names),
    "lora_dropout": lambda p: f"dropout {p:g}",
    "modules_to_save": lambda names: f"saves {' '.join(names)}",
    "optim": str,
    "packing": lambda on: "packing",
    "padding_free": lambda on: "padding-free" if on else "dense",
    "unsloth_tiled_mlp": lambda on: "tiled MLP",
    "offload_embedding": lambda on: "embedding on the host" if on else "embedding on the GPU",
    "pin_host_memory": lambda on: "pinned" if on else "not pinned",
    "block_compile": lambda on: "" if on else "block compile off",
    "attn_implementation": str,
    "max_new_tokens": lambda n: f"{n} new tokens",
}
"""How a value that is not the default is told, by the job's key; what has a column of its own is not here."""
ADAPTERS = ("r", "target_modules", "lora_dropout", "modules_to_save")


def differs(row: Row) -> str:
    """What the job says otherwise than by default, and the variables that were set."""
    default = Job(model="")
    keys = [key for key in SHOWN if getattr(row.job, key) != getattr(default, key)]
    if row.job.full_finetuning:
        keys = [key for key in keys if key not in ADAPTERS]
    told = [SHOWN[key](getattr(row.job, key)) for key in keys]
    longest = row.job.max_seq_length
    longer = "" if longest == row.measured.sequence_length else f"max_seq_length {longest:,}"
    documents = "+".join(str(length) for length in row.measured.sample_lengths)
    variables_set = [f"`{name}={value}`" for name, value in sorted(row.measured.environment_asked.items())]
    return ", ".join(filter(None, [*told, longer, f"documents of {documents}" if documents else "", *variables_set]))


def target_names(names: Sequence[str] | str) -> str:
    if names in ("all-linear", ALL_LINEAR):
        return ""
    return " ".join(name.removesuffix("_proj") for name in names) + " only"


def percent(error: float) -> str:
    text = f"{100 * error:+.2f}"
    return "0.00" if float(text) == 0 else text


def gib(count: int | None) -> str:
    return "" if count is None else f"{count / GIB:.2f}"


def mib(count: int) -> str:
    return f"{count / MIB:,.0f}"


def one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "/")[:160]
