"""What can be changed in a job: knobs, each with its options, cheapest first.

An option is keys of the job with their new values. Two options of one knob exclude each other, options of different
knobs can be combined. Only what changes something in this run is listed, and nothing that the stack is known to break
on; what it refuses in some combination is found when that is resolved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Any, NamedTuple

from estimator.advise import prices
from estimator.advise.prices import Paid, Price
from estimator.device import DEVICES
from estimator.job import Job
from estimator.resolve import FORMATS, NO_PADDING_FREE, Run, Trainer

Changes = Mapping[str, Any]
MOST_ACCUMULATION = 65_536
LEAST_RANK = 8
MOST_HALVINGS = 3
MOST_BATCHES = 4
ATTENTION_TARGETS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"})
QUERY_AND_VALUE = ("q_proj", "v_proj")
EIGHT_BIT_OF = {
    "adamw_torch": "adamw_8bit",
    "adamw_torch_fused": "adamw_8bit",
    "paged_adamw_32bit": "paged_adamw_8bit",
}
"""The same algorithm with 8-bit moments; a paged one stays paged (its bytes are planned on the device all the same)."""


class Option(NamedTuple):
    """One change of a job, with what it costs and why."""

    changes: Changes
    price: Price
    words: str


class Knob(NamedTuple):
    """Options that exclude each other, cheapest first."""

    name: str
    options: tuple[Option, ...]


def knobs_of(asked: Job, run: Run, trainer: Trainer) -> tuple[Knob, ...]:
    """Every knob of a job that has an option, dearest kind first: a search decides on those before the others.

    Args:
        asked: the job as written. run: the same, resolved. trainer: what runs the steps, for the price of a change.
    """
    found = {
        "weights": _weights(asked, run),
        "trained": _trained(run),
        "rank": _rank(run),
        "optimizer": _optimizer(run),
        "checkpointing": _checkpointing(run),
        "layer": _layer(run, trainer),
        "batch": _batch(run),
        "embedding": _embedding(run),
        "host": _host(run),
        "evaluation": _evaluation(run),
    }
    ordered = {name: sorted(options, key=lambda option: option.price.order) for name, options in found.items()}
    return tuple(
        Knob(name, tuple(_only_what_differs(option, asked) for option in options))
        for name, options in ordered.items()
        if options
    )


def _only_what_differs(option: Option, asked: Job) -> Option:
    """Some options name every key that they rest on; what the job has already is no change."""
    return option._replace(
        changes={key: value for key, value in option.changes.items() if getattr(asked, key) != value}
    )


def larger_cards(run: Run) -> Knob:
    """Cards of the catalogue with more memory than the job's, smallest first."""
    more = sorted((d for d in DEVICES if d.usable_bytes > run.device.usable_bytes), key=lambda d: d.usable_bytes)
    cards = (
        _option({"gpu": d.name}, prices.larger_card(place, d.name, d.total_bytes)) for place, d in enumerate(more, 1)
    )
    return Knob("gpu", tuple(cards))


def _option(changes: Changes, paid: Paid) -> Option:
    return Option(changes, *paid)


def _both(first: Option, second: Option) -> Option:
    changes = {**first.changes, **second.changes}
    return Option(changes, first.price.plus(second.price), f"{first.words}; {second.words}")


def _trains(run: Run) -> bool:
    return run.job.mode == "train"


def _adapts(run: Run) -> bool:
    return _trains(run) and not run.job.full_finetuning


def _layer(run: Run, trainer: Trainer) -> list[Option]:
    """How a decoder layer runs: the compiled region of dense batches, Unsloth's own kernels, the MLP in tiles.

    Tiles inside a compiled layer fail in this stack (`estimator.resolve`), so they come with what turns it off.
    """
    if not _trains(run):
        return []
    if run.path == "transformers":
        return [_option({"framework": "unsloth"}, prices.SWITCH_TO_UNSLOTH)]
    if not run.own_forward:
        return []
    tiled = _option({"unsloth_tiled_mlp": True}, prices.TILED_MLP)
    if run.path == "eager":
        return [] if run.job.unsloth_tiled_mlp else [tiled]
    eager = list(_out_of_the_compiled_layer(run, trainer))
    return [*eager, *(_both(way, tiled) for way in eager)]


def _out_of_the_compiled_layer(run: Run, trainer: Trainer) -> Iterator[Option]:
    yield _option({"block_compile": False, "padding_free": False}, prices.BLOCK_COMPILE_OFF)
    if run.architecture.model_type in NO_PADDING_FREE:
        return
    loop = trainer == "loop"
    yield _option({"padding_free": True}, prices.PADDING_FREE_IN_A_LOOP if loop else prices.PADDING_FREE)
    packed = prices.PACKING_IN_A_LOOP if loop else prices.PACKING
    yield _option({"packing": True, "padding_free": None}, packed)


def _checkpointing(run: Run) -> list[Option]:
    now = run.job.use_gradient_checkpointing
    key = "use_gradient_checkpointing"
    if not _trains(run):
        return []
    if now == "unsloth":
        return [_option({key: True}, prices.KEEP_INPUTS)] if run.job.host_ram_bytes is not None else []
    if now is True:
        return [_option({key: "unsloth"}, prices.OFFLOAD_INPUTS)]
    return [_option({key: True}, prices.RECOMPUTE), _option({key: "unsloth"}, prices.RECOMPUTE_AND_OFFLOAD)]


def _weights(asked: Job, run: Run) -> list[Option]:
    off = {name: False for name in FORMATS if getattr(asked, name)}
    four_bit = {**off, "load_in_4bit": True}
    if run.job.full_finetuning and _trains(run):
        sixteen_bit = {**off, "load_in_4bit": False, "load_in_16bit": True}
        return [
            _option(sixteen_bit, prices.ADAPTERS_ALONE),
            _option(four_bit, prices.FOUR_BIT_ADAPTERS_ALONE),
        ]
    paid = {
        "bf16": prices.FOUR_BIT,
        "fp32": prices.FOUR_BIT,
        "int8": prices.EIGHT_TO_FOUR_BIT,
        "fp8": prices.FP8_TO_FOUR_BIT,
    }.get(run.storage)
    return [_option(four_bit, paid)] if paid else []


def _trained(run: Run) -> list[Option]:
    """Fewer target modules, and embeddings that do not train. Both keys are set, since the targets may have held the
    embeddings."""
    if not _adapts(run):
        return []
    targets, saved = tuple(run.job.target_modules), run.job.modules_to_save
    attention = tuple(t for t in targets if t.rpartition(".")[2] in ATTENTION_TARGETS)
    fewer = []
    if attention and attention != targets:
        fewer.append((attention, prices.ATTENTION_ALONE))
    if set(QUERY_AND_VALUE) < set(targets):
        fewer.append((QUERY_AND_VALUE, prices.QUERY_AND_VALUE_ALONE))
    options = [_option({"target_modules": names, "modules_to_save": saved}, paid) for names, paid in fewer]
    if saved and targets:
        frozen = _option({"target_modules": targets, "modules_to_save": ()}, prices.EMBEDDINGS_FROZEN)
        options += [
            frozen,
            *(_both(option, frozen)._replace(changes={**option.changes, "modules_to_save": ()}) for option in options),
        ]
    return options


def _rank(run: Run) -> list[Option]:
    if not _adapts(run):
        return []
    ranks = ((run.job.r >> halvings, halvings) for halvings in range(1, MOST_HALVINGS + 1))
    return [_option({"r": r}, prices.smaller_rank(halvings)) for r, halvings in ranks if r >= LEAST_RANK]


def _optimizer(run: Run) -> list[Option]:
    """The same algorithm in 8 bit, and two that keep less. Paging is no help to a plan, which counts managed memory on
    the device."""
    if not _trains(run):
        return []
    options = []
    eight_bit = EIGHT_BIT_OF.get(run.job.optim)
    if eight_bit:
        options.append(_option({"optim": eight_bit}, prices.EIGHT_BIT_STATES))
    if run.job.optim not in ("lion_8bit", "paged_lion_8bit", "sgd", "adafactor"):
        options.append(_option({"optim": "lion_8bit"}, prices.ONE_MOMENT))
        options.append(_option({"optim": "adafactor"}, prices.FACTORED))
    return options


def _batch(run: Run) -> list[Option]:
    """Smaller micro-batches: their gradients are accumulated, so that a step sees as many sequences as before."""
    batch, steps = run.job.per_device_train_batch_size, run.job.gradient_accumulation_steps
    if not _trains(run):
        parts = (
            ({"per_device_train_batch_size": batch // f}, prices.generated_in_parts(f)) for f in _some_factors(batch)
        )
    else:
        parts = (
            (
                {"per_device_train_batch_size": batch // f, "gradient_accumulation_steps": steps * f},
                prices.accumulated(f, effective=batch * steps),
            )
            for f in _some_factors(batch)
            if steps * f <= MOST_ACCUMULATION
        )
    return [_option(changes, paid) for changes, paid in parts]


def _some_factors(batch: int) -> list[int]:
    """Factors of a batch over 1, at most a few of them: the whole batch, and others spread between 1 and it."""
    factors = [f for f in divisors(batch) if f > 1]
    if len(factors) <= MOST_BATCHES:
        return factors
    last = len(factors) - 1
    return [factors[round(i * last / (MOST_BATCHES - 1))] for i in range(MOST_BATCHES)]


def divisors(number: int) -> list[int]:
    """Every divisor, ascending."""
    small = [f for f in range(1, isqrt(number) + 1) if number % f == 0]
    return sorted({*small, *(number // f for f in small)})


def _embedding(run: Run) -> list[Option]:
    if run.job.framework != "unsloth" or run.job.offload_embedding is True:
        return []
    return [_option({"offload_embedding": True}, prices.EMBEDDING_ON_HOST)]


def _host(run: Run) -> list[Option]:
    if not _trains(run) or run.job.framework != "unsloth" or run.job.pin_host_memory is False:
        return []
    return [_option({"pin_host_memory": False}, prices.UNPINNED)]


def _evaluation(run: Run) -> list[Option]:
    if not _trains(run) or (run.job.per_device_eval_batch_size or 0) <= 1:
        return []
    return [_option({"per_device_eval_batch_size": 1}, prices.EVALUATE_ONE_BY_ONE)]
