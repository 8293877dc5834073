"""Every tensor that an estimate can name: what the ledger holds at any instant of jobs of every kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from app.page.terms import GROUPS, group_of
from ctxplan.models import models, resolve_model
from estimator import Architecture, parse_job
from estimator import eager as eager_path
from estimator.answer import prepare
from estimator.calibration.corrections import CORRECTED_PATHS
from estimator.calibration.corrections import GROUPS as CORRECTED
from estimator.calibration.document import WIDTHS
from estimator.errors import JobError
from estimator.evaluation import instants as evaluation_instants
from estimator.kv_cache import instants as generation_instants
from estimator.ledger import Instant, Row
from estimator.phases import PATHS, Simulation, simulate
from estimator.resolve import Run
from estimator.sizes import Sizes, sizes_of
from estimator.statics import Statics
from scripts.manual.markdown import code, codes, document, table

PHASES = ("load", "peft", "forward", "loss", "backward", "optimizer", "evaluation", "prefill", "decode")
CALIBRATION = "the calibration that the answer names"
STEP = ("forward", "loss", "backward", "optimizer")
FORMATS: tuple[dict[str, Any], ...] = (
    {},
    {"load_in_16bit": True},
    {"load_in_8bit": True},
    {"load_in_fp8": True},
    {"full_finetuning": True},
)
RUNS: tuple[dict[str, Any], ...] = (
    {},
    {"padding_free": False},
    {"padding_free": False, "block_compile": False},
    {"packing": True},
    {"framework": "transformers"},
)
GENERATING: tuple[dict[str, Any], ...] = (
    {},
    {"lora_dropout": 0.1},
    {"unsloth_tiled_mlp": True},
    {"modules_to_save": ["lm_head"]},
    {"gpu": "A100-80GB", "per_device_train_batch_size": 2},
)
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"use_gradient_checkpointing": False},
    {"use_gradient_checkpointing": True, "gradient_accumulation_steps": 4},
    {"use_gradient_checkpointing": False, "gradient_accumulation_steps": 4, "lora_dropout": 0.1},
    {"lora_dropout": 0.1},
    {"unsloth_tiled_mlp": True},
    {"unsloth_tiled_mlp": True, "target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["q_proj", "v_proj"]},
    # Few tokens: a weight is wider than what the MLP makes of them.
    {"target_modules": ["q_proj", "v_proj"], "max_seq_length": 300},
    {"lora_dropout": 0.1, "max_seq_length": 300},
    {"target_modules": ["gate_proj", "up_proj", "down_proj"]},
    {"modules_to_save": ["lm_head", "embed_tokens"]},
    {"offload_embedding": True},
    *({"mode": "generate", "max_new_tokens": 600, **more} for more in GENERATING),
    {"attn_implementation": "eager"},
    {"attn_implementation": "eager", "use_gradient_checkpointing": False},
    {"attn_implementation": "flash_attention_2", "versions": {"flash_attn": "2.8.3"}},
    {"attn_implementation": "xformers", "versions": {"xformers": "0.0.35"}},
    {"gpu": "T4-16GB"},
    {"gpu": "A100-80GB"},
    *({"optim": name} for name in ("adamw_torch", "sgd", "adafactor", "lion_8bit", "paged_adamw_32bit")),
)

SYMBOLS = (
    ("B, S, T", "sequences of a micro-batch, tokens in each, T = B S"),
    ("H, I, V", "hidden size, MLP width, vocabulary"),
    ("L", "layers"),
    ("nh, nkv, hd", "query heads, key and value heads, width of a head"),
    ("r, n", "LoRA rank; elements of one trained tensor"),
    ("u", "2 T H, one 16-bit hidden state"),
    ("q, kv", "2 T nh hd, the queries; 2 T nkv hd, the keys or the values"),
    ("T'", "T where a kernel pads each sequence to the next multiple of 128 tokens"),
    (
        "E, Ie, R",
        "experts, width of one, routed rows (T by the experts that a token goes to)",
    ),
    ("C", "rows of a chunk of the loss"),
    ("c", "a calibrated coefficient: how many tensors of a width live beyond what the structure counts"),
)


class Use(NamedTuple):
    """One way in which a term comes about, in the words of `Term`."""

    name: str
    formula: str
    source: str


class Where(NamedTuple):
    """On which execution paths, and in which phases."""

    paths: set[str]
    phases: set[str]


def page() -> str:
    """The reference of terms."""
    uses = observed()
    names = sorted({use.name for use in uses})
    parts = [
        f"The {len(names)} tensors that an estimate can name: what `terms` and `phases` are sums of. Each has the "
        "formula of its bytes, the release's file and function that it was read from, the execution paths on which it "
        "exists, and the phases in which it is alive. [The memory model](../model.md) says how they become a peak.",
        "## Symbols",
        table(("symbol", "what it is"), [(code(symbol), meaning) for symbol, meaning in SYMBOLS]),
    ]
    for group in GROUPS:
        members = [name for name in names if group_of(name) is group]
        if members:
            parts.append(f"## {group.title}")
            parts.append(f"{group.note[:1].upper()}{group.note[1:]}.")
            parts += [_entry(name, uses) for name in members]
    return document("Terms", *parts)


def _entry(name: str, uses: dict[Use, Where]) -> str:
    found = sorted((use, where) for use, where in uses.items() if use.name == name)
    lines = [f"- {code(use.formula)} ({_where(where)}). Source: {_source(use.source)}." for use, where in found]
    return "\n".join([f"### {name}", "", *lines])


def _source(source: str) -> str:
    return code(source) if "/" in source or "torch." in source else source


def _where(where: Where) -> str:
    paths = [path for path in PATHS if path in where.paths]
    on = "every path" if len(paths) == len(PATHS) else codes(paths)
    return f"{on}; {_phases(where)}"


def _phases(where: Where) -> str:
    phases = where.phases
    # On the transformers path, nothing in a layer's own forward reaches the loss: it is not looked at.
    step = set(STEP) - ({"forward"} if where.paths == {"transformers"} else set())
    if step <= phases:
        return "always" if "load" in phases else "from the adapters on" if "peft" in phases else "in all of a step"
    return "in " + ", ".join(phase for phase in PHASES if phase in phases)


@cache
def observed() -> dict[Use, Where]:
    """Every use of every term in `jobs`, with where it was seen; and what any calibration may add to them."""
    found = {
        Use(f"calibrated_{width}", f"c of a tensor as wide as {width}", CALIBRATION): Where(
            set(CORRECTED_PATHS), set(CORRECTED)
        )
        for width in WIDTHS
    }
    for data, architecture in jobs():
        for path, phase, row in rows_of(data, architecture):
            where = found.setdefault(use_of(row), Where(set(), set()))
            where.paths.add(path)
            where.phases.add(phase)
    return found


def use_of(row: Row) -> Use:
    """A row's words, with what depends on one job's numbers left open."""
    name, _, formula, source = row
    formula = re.sub(r"^[+-][\d.]+ of a tensor", "c of a tensor", formula)
    formula = re.sub(r"\b\d+ rows$", "C rows", formula)
    return Use(name, formula, re.sub(r"^calibration \S+$", CALIBRATION, source))


def jobs() -> Iterator[tuple[dict[str, Any], Architecture]]:
    """Jobs of every kind, as JSON: each architecture and form of its weights, each path, each setting."""
    for model in _representatives():
        architecture = resolve_model(model, offline=True).architecture
        for weights, run, changes in product(FORMATS, RUNS, CHANGES):
            data = {"model": model, "max_seq_length": 8192, "per_device_eval_batch_size": 1}
            yield {**data, **weights, **run, **changes}, architecture


def _representatives() -> Iterable[str]:
    """The first model of the catalogue of each architecture and form of weights."""
    first: dict[tuple[str, str, bool], str] = {}
    for listing in models():
        architecture = resolve_model(listing.id, offline=True).architecture
        kind = (architecture.model_type, str(architecture.quantization), architecture.tie_word_embeddings)
        first.setdefault(kind, listing.id)
    return first.values()


def rows_of(data: dict[str, Any], architecture: Architecture) -> Iterator[tuple[str, str, Row]]:
    """(path, phase, row) of everything that a job holds at any instant; nothing of a job that contradicts itself."""
    try:
        run, statics = prepare(parse_job(data), architecture)
    except JobError:
        return
    job = run.job
    length = job.sequence_length or job.max_seq_length
    z = sizes_of(
        architecture, max_seq_length=job.max_seq_length, sequences=job.per_device_train_batch_size, length=length
    )
    simulation = simulate(run, statics, z)
    peaks = [(peak.phase, row) for peak in simulation.peaks for row in peak.rows]
    moments = [(moment.phase, row) for moment in instants(run, statics, z, simulation) for row in moment.rows]
    yield from ((run.path, phase, row) for phase, row in (*peaks, *moments) if row[1])


def instants(run: Run, statics: Statics, z: Sizes, simulation: Simulation) -> list[Instant]:
    """Every instant that the simulation compared, not only the widest of each phase."""
    if simulation.loss_plan is None:
        return generation_instants(run, statics, z)
    path, regime, plan = PATHS[run.path], simulation.regime, simulation.loss_plan
    layers = [
        *path.forward(run, statics, z, regime),
        *path.loss_instants(run, statics, z, regime, plan),
        *path.backward(run, statics, z, regime),
    ]
    step = eager_path.optimizer(run, statics, z, regime)
    return [*layers, *step, *evaluation_instants(run, statics, z, plan)]
