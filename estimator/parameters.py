"""Counting parameters, and cutting a model to its first layers.

Symbols: H hidden_size, V vocab_size, E experts; see `estimator.architecture`. Both functions cost as much as
there are kinds of layer, whatever the depth.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from estimator.architecture import Architecture, LayerGroup
from estimator.errors import JobError


def parameter_count(architecture: Architecture) -> int:
    """Parameters of the model, tied embeddings counted once.

    V*H for the embedding, again for a head that is not tied, the last norm, and each group of layers as often
    as it has layers. Source: ``sum(p.numel() for p in model.parameters())`` of the model that transformers
    5.17.0 builds.
    """
    embedding = architecture.vocab_size * architecture.hidden_size
    heads = 0 if architecture.tie_word_embeddings else embedding
    layers = sum(len(group.indices) * layer_parameter_count(group) for group in architecture.layers)
    return embedding + heads + architecture.final_norm_elements + layers


def layer_parameter_count(group: LayerGroup) -> int:
    """Parameters of one decoder layer of a group: linears with their biases, norms and other vectors,
    experts, router."""
    linears = sum(x.copies * (x.weights + (x.out_features if x.bias else 0)) for x in group.linears)
    experts = group.experts
    if experts is None:
        return linears + group.norm_elements
    routed = experts.count * (experts.gate_up + experts.down) + experts.biases + experts.router
    return linears + group.norm_elements + routed


def with_layers(architecture: Architecture, num_hidden_layers: int) -> Architecture:
    """The twin that has only the first ``num_hidden_layers`` layers, everything else as it is.

    Raises:
        JobError: fewer than one layer, or more than the model has.
    """
    depth = architecture.num_hidden_layers
    if not 1 <= num_hidden_layers <= depth:
        raise JobError(
            f"{num_hidden_layers} layers cannot be kept of a model that has {depth}",
            key="num_hidden_layers",
            allowed=f"a whole number from 1 to {depth}",
        )
    if num_hidden_layers == depth:
        return architecture
    stored = architecture.stored
    kept = ((group, group.indices[: bisect_left(group.indices, num_hidden_layers)]) for group in architecture.layers)
    return replace(
        architecture,
        num_hidden_layers=num_hidden_layers,
        layers=tuple(replace(group, indices=indices) for group, indices in kept if indices),
        stored=stored._replace(layers=stored.layers[:num_hidden_layers]) if stored else None,
    )
