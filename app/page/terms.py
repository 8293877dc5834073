"""The terms of a peak for a person: in groups that share a colour, and with what the formulas' symbols stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from estimator import Architecture, Job
from estimator.estimate import Term

NO_NAME = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Group:
    """Terms of one kind. ``key``: its class in the style sheet. ``pattern``: matches the names of its terms."""

    key: str
    title: str
    note: str
    pattern: re.Pattern[str] = NO_NAME


class GroupedTerms(NamedTuple):
    """A group with its terms, the largest first, and their sum."""

    group: Group
    terms: tuple[Term, ...]
    bytes: int


class Symbol(NamedTuple):
    """A symbol of the formulas: what it means, and its value in this job."""

    name: str
    meaning: str
    value: int


def _group(key: str, title: str, note: str, pattern: str) -> Group:
    return Group(key, title, note, re.compile(pattern))


GROUPS: tuple[Group, ...] = (
    _group(
        "weights",
        "Model weights",
        "the frozen model as it is loaded",
        r"(base_weights|lm_head|embedding|fp32_modules|trained_.*|weights.*)$",
    ),
    _group(
        "training",
        "Adapters and optimizer",
        "LoRA, its gradients, the optimizer's state",
        r"(lora_parameters|gradients|optimizer_state|autocast_adapters|lora_factors|lora_activations"
        r"|expert_lora_factors|embedding_gradient|head_gradient|optimizer_.*|full_.*)$",
    ),
    _group(
        "mlp",
        "MLP",
        "the feed-forward block of the layer that is being computed",
        r"(mlp_.*|down_input|dropout_masks|dropped_mlp_input|expert_.*|routed_.*|calibrated_(mlp|expert|routed))$",
    ),
    _group(
        "attention",
        "Attention",
        "queries, keys, values and what attention makes of them",
        r"(attention_.*|query_.*|key_.*|kv_cache.*|rope_cache|rotary_tables|projection_inputs|score_gradients"
        r"|calibrated_(attention|key_value))$",
    ),
    _group(
        "hidden-states",
        "Hidden states",
        "what runs from layer to layer, and its copies on the way to the host",
        r"(layer_inputs?|layers_kept|residual.*|offload_staging.*|recomputed_output|output_gradient|embedding_output"
        r"|final_.*|last_layer_input|calibrated_hidden|token_ids|norm_statistics)$",
    ),
    _group(
        "loss",
        "Logits and loss",
        "the vocabulary's scores and the loss over them",
        r"(logits.*|log_softmax|loss_.*|hidden_gradient|scaled_hidden_gradient|lm_head_cast|token_logits"
        r"|calibrated_logits)$",
    ),
    _group("buffers", "Working buffers", "weights that are unpacked for a moment, and kernels' workspaces", r".*"),
)
"""In the order of the bar. The first whose pattern matches has the term; the last has what is left."""


def group_of(name: str) -> Group:
    """The group of a term."""
    return next(group for group in GROUPS if group.pattern.match(name))


def grouped(terms: Iterable[Term]) -> tuple[GroupedTerms, ...]:
    """The terms by group, in the order of `GROUPS`; groups without bytes are left out."""
    found: dict[str, list[Term]] = {group.key: [] for group in GROUPS}
    for term in terms:
        found[group_of(term.name).key].append(term)
    return tuple(
        GroupedTerms(group, tuple(sorted(listed, key=lambda term: -term.bytes)), sum(term.bytes for term in listed))
        for group in GROUPS
        if (listed := found[group.key])
    )


def symbols_of(architecture: Architecture, job: Job) -> tuple[Symbol, ...]:
    """What the formulas' symbols (`estimator.architecture`) are in a resolved job; units: tokens, elements, bytes."""
    sequences = job.per_device_train_batch_size
    length = job.sequence_length or job.max_seq_length
    tokens = sequences * length
    return (
        Symbol("B", "sequences in a micro-batch", sequences),
        Symbol("S", "tokens in a sequence", length),
        Symbol("T", "tokens in a micro-batch, B × S (T' where a kernel pads them)", tokens),
        Symbol("H", "hidden size", architecture.hidden_size),
        Symbol("I", "MLP width", architecture.intermediate_size),
        Symbol("V", "vocabulary", architecture.vocab_size),
        Symbol("L", "layers", job.num_hidden_layers or architecture.num_hidden_layers),
        Symbol("nh", "query heads", architecture.num_attention_heads),
        Symbol("nkv", "key and value heads", architecture.num_key_value_heads),
        Symbol("hd", "width of a head", architecture.head_dim),
        Symbol("r", "LoRA rank", job.r),
        Symbol("u", "bytes of a 16-bit hidden state, 2 T H", 2 * tokens * architecture.hidden_size),
    )
