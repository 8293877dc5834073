"""The micro-batches that reach the model: what was in each, and whether that is what the point asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any, NamedTuple

from probes.child.data import document_lengths
from probes.errors import WrongBatch
from probes.points import Point

SHOWN = 8
"""Documents that an error names."""


class Batch(NamedTuple):
    """One micro-batch.

    Attributes:
        shape: of its ids. documents: tokens of each, without padding. flattened: whether one row holds them all, with
            their lengths beside it.
    """

    shape: tuple[int, ...]
    documents: tuple[int, ...]
    flattened: bool

    @property
    def padding_tokens(self) -> int:
        return prod(self.shape) - sum(self.documents)


class Batches:
    """Every kind of micro-batch that reached a decoder, and the last one."""

    def __init__(self) -> None:
        self.seen: set[Batch] = set()
        self.last: Batch | None = None

    def note(self, ids: Any, options: Mapping[str, Any], *, training: bool) -> None:
        """Keep what a decoder is given: its ids, and the keyword arguments that say how documents lie in them."""
        if not training and self.last is not None:
            return  # a generation's prompt is its batch, not the tokens that follow one by one
        self.last = batch_of(ids, options)
        self.seen.add(self.last)

    def clear(self) -> None:
        self.seen, self.last = set(), None

    def facts(self) -> dict[str, Any]:
        """The fields of `probes.measurement.Ran` that describe the last micro-batch."""
        if self.last is None:
            return {}
        return {
            "input_shape": self.last.shape,
            "packed_lengths": self.last.documents if self.last.flattened else None,
        }


def batch_of(ids: Any, options: Mapping[str, Any]) -> Batch:
    """Documents by ``packed_seq_lengths``, which Unsloth's collators give, else by the positions that start again in a
    flattened row, as TRL's gives them, else one a row, as long as its mask says."""
    shape = tuple(ids.shape)
    packed = options.get("packed_seq_lengths")
    if packed is not None:
        return Batch(shape, tuple(int(length) for length in packed.tolist()), flattened=True)
    positions = options.get("position_ids")
    rows, width = shape
    if rows == 1 and positions is not None and tuple(positions.shape) == shape:
        return Batch(shape, _between_starts(positions[0].tolist()), flattened=True)
    mask = options.get("attention_mask")
    if mask is not None and tuple(mask.shape) == shape:
        return Batch(shape, tuple(mask.cpu().sum(dim=1).tolist()), flattened=False)
    return Batch(shape, (width,) * rows, flattened=False)


def check_batches(point: Point, seen: Collection[Batch], *, cuda: bool) -> None:
    """Hold every micro-batch that reached the model to the one that was asked for; the order of documents is free.

    Args:
        cuda: whether bytes of a GPU are measured, which padding would be part of. Unsloth's CPU backend pads documents
            that it flattens elsewhere.

    Raises:
        WrongBatch: the trainer cut, padded, dropped or mixed something, so that another job was measured.
    """
    asked = sorted(document_lengths(point), reverse=True)
    if not seen:
        raise WrongBatch("no micro-batch was seen to reach the model")
    for batch in seen:
        given = sorted(batch.documents, reverse=True)
        if given != asked:
            raise WrongBatch(f"a micro-batch had {_described(given)}, asked for were {_described(asked)}")
        if cuda and batch.padding_tokens:
            raise WrongBatch(f"a micro-batch had {batch.padding_tokens} tokens of padding beside {_described(asked)}")


def _between_starts(positions: list[int]) -> tuple[int, ...]:
    starts = [i for i, position in enumerate(positions) if position == 0 or i == 0]
    return tuple(end - start for start, end in zip(starts, [*starts[1:], len(positions)], strict=True))


def _described(lengths: list[int]) -> str:
    first = ", ".join(map(str, lengths[:SHOWN]))
    more = ", ..." if len(lengths) > SHOWN else ""
    return f"{sum(lengths)} tokens ({len(lengths)} documents of {first}{more})"
