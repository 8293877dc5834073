"""Random documents of exact length, as texts for a trainer that tokenises, or as ids."""

from __future__ import annotations

import random
from string import ascii_lowercase
from typing import Any

from estimator import Job
from probes.child.checkpoint import SPECIAL
from probes.points import Point


def document_lengths(point: Point) -> tuple[int, ...]:
    """Tokens of each document of one micro-batch."""
    return point.sample_lengths or (point.sequence_length,) * point.job.per_device_train_batch_size


def random_ids(lengths: tuple[int, ...], vocabulary: int, *, seed: int) -> list[list[int]]:
    """One list of ids a document, drawn from the model's whole vocabulary."""
    dice = random.Random(seed)  # noqa: S311 - any tokens will do
    ids = range(len(SPECIAL), vocabulary)
    return [dice.choices(ids, k=length) for length in lengths]


def random_texts(lengths: tuple[int, ...], tokenizer: Any, *, seed: int) -> list[str]:
    """One text a document, of so many tokens of the synthetic tokenizer; of a real one's at least so many, which the
    trainer cuts to its row."""
    dice = random.Random(seed)  # noqa: S311 - any tokens will do
    return [_text(length, tokenizer, dice) for length in lengths]


def _text(tokens: int, tokenizer: Any, dice: random.Random) -> str:
    """Letters: each is a token of the synthetic tokenizer, a real one makes fewer of them."""
    letters = tokens
    while True:
        text = "".join(dice.choices(ascii_lowercase, k=letters))
        if len(tokenizer(text)["input_ids"]) >= tokens:
            return text
        letters *= 2


def row_length(point: Point, job: Job) -> int:
    """``max_length`` of the trainer: a packed row holds all the documents, any other row one."""
    if job.packing and point.sample_lengths:
        return sum(point.sample_lengths)
    return max(document_lengths(point))


def flattened_batch(lengths: tuple[int, ...], ids: list[list[int]], device: Any) -> dict[str, Any]:
    """Documents as one row, the way that Unsloth's padding-free collator hands them to a model."""
    import torch

    flat = torch.tensor([[token for document in ids for token in document]], device=device)
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0).to(device)
    labels = flat.clone()
    start = 0
    for length in lengths:
        labels[0, start] = -100
        start += length
    packed = torch.tensor(lengths, dtype=torch.int32, device=device)
    return {"input_ids": flat, "position_ids": positions, "labels": labels, "packed_seq_lengths": packed}


def dense_batch(ids: list[list[int]], device: Any) -> dict[str, Any]:
    """Documents of one length as rows, without a mask."""
    import torch

    rows = torch.tensor(ids, device=device)
    return {"input_ids": rows, "labels": rows.clone()}
