"""Random documents of exact length, as texts for a trainer that tokenises, or as ids."""

from __future__ import annotations

import random
from math import ceil
from string import ascii_lowercase
from typing import Any

from probes.child.checkpoint import SPECIAL
from probes.errors import PointError
from probes.points import Point

WORD = 6
"""Letters of a word and the space after it: a tokenizer that splits at spaces makes a token of each word, at least."""
TRIES, LETTERS_A_TOKEN = 6, 64
"""A tokenizer that makes fewer tokens of random words, in so many tries, is none that a text can be written for."""


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
    """Words of random letters: each letter is a token of the synthetic tokenizer, a real one makes fewer of them.

    Raises:
        PointError: the tokenizer makes too few tokens of any text, as one does that knows no letters.
    """
    letters, found = tokens, 0
    for _ in range(TRIES):
        text = _words(letters, dice)
        found = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if found >= tokens:
            return text
        # A little more than in proportion, and never more than a tokenizer can be expected to need.
        wanted = max(2 * letters, ceil(letters * tokens * 1.1 / max(found, 1)))
        letters = min(wanted, LETTERS_A_TOKEN * tokens)
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    raise PointError(
        f"the tokenizer {name} makes {found} tokens of {letters} letters, and {tokens} are needed",
        key="job.model",
        allowed="a model whose tokenizer splits words",
    )


def _words(letters: int, dice: random.Random) -> str:
    text = dice.choices(ascii_lowercase, k=letters)
    text[WORD - 1 : letters - 1 : WORD] = " " * len(range(WORD - 1, letters - 1, WORD))
    return "".join(text)


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
