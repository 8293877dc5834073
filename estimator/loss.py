"""Cross entropy: Unsloth's fused head and loss, which never holds all logits, and the full logits of everybody else.

Source: unsloth_zoo/fused_losses/fused_linear.py ``_ce_impl``, ``_tiled_layout``, ``fused_linear_rows``,
``_budget_bytes``; unsloth/models/llama.py ``CausalLM_fast_forward`` (when logits are returned in full).

    n   labelled rows, B * (S - 1)      C   rows of a chunk      V   vocab_size
"""

from __future__ import annotations

from typing import NamedTuple

from estimator.allocator import GIB, MIB, block

CE = "unsloth_zoo/fused_losses/fused_linear.py _ce_impl"
CHUNK_BUDGET_BYTES = 2 * GIB
TILE_BUDGET_BYTES = 256 * MIB
TILE_COLUMNS = 16384
TILE_ROWS = 4096
MIN_CHUNK_LOGITS = 512 * 151936
MIN_CHUNK_ROWS, MAX_CHUNK_ROWS = 512, 4096
SMALL_CARD_BYTES = int(24.5 * GIB)
FLASH_MIN_ROWS = 4096


FULL_LOGITS = frozenset({"granite", "cohere", "gemma3_text"})
"""Families whose generated module returns all logits to the loss (measured for granite and gemma3_text)."""


class LossPlan(NamedTuple):
    """How the fused loss cuts its work.

    Attributes:
        kind: ``tiled`` (vocabulary tiles, frozen head) or ``row_chunks``. rows: C. buffer_bytes: everything the
        chunk loop holds beside the hidden states and their gradient. budget_bytes: what the free memory allowed at
        the first call.
    """

    kind: str
    rows: int
    buffer_bytes: int
    budget_bytes: int


def plan_loss(
    *,
    rows: int,
    hidden_size: int,
    vocab_size: int,
    head_trains: bool,
    free_bytes: int,
    total_bytes: int,
    capability: int,
) -> LossPlan:
    """The chunking that ``_ce_impl`` chooses.

    Args:
        rows: labelled rows. free_bytes: driver-free memory at the first loss call of the process.
        total_bytes: the card's total. capability: compute capability's major number.
    """
    budget = max(1, min(CHUNK_BUDGET_BYTES, free_bytes // 2))
    small_card = total_bytes <= SMALL_CARD_BYTES
    flash_from = 0 if small_card else FLASH_MIN_ROWS
    tiled = not head_trains and rows >= flash_from and -(-vocab_size // TILE_COLUMNS) > 2 and capability >= 8
    if tiled:
        return _tiled(rows, hidden_size, vocab_size, budget, narrow=small_card)
    return _row_chunks(rows, hidden_size, vocab_size, budget)


def _tiled(rows: int, hidden_size: int, vocab_size: int, budget: int, *, narrow: bool) -> LossPlan:
    allowed = min(TILE_BUDGET_BYTES, budget)
    chunk = max(min(TILE_ROWS, rows, allowed // (TILE_COLUMNS * 4)), 1)
    tile = max(allowed // (chunk * 4), TILE_COLUMNS)
    if narrow:
        tile = min(tile, TILE_COLUMNS)
    splits = -(-vocab_size // TILE_COLUMNS)
    tile = min(tile - tile % TILE_COLUMNS, splits * TILE_COLUMNS)
    size = block(chunk * tile * 4)  # fp32 logits of one tile
    size += block(chunk * hidden_size * 4) + block(
        chunk * 4
    )  # fp32 accumulator of the hidden gradient, running maximum
    gathered = 2 if rows > chunk else 1  # this chunk's rows, and the last one's until they are replaced
    size += gathered * block(chunk * hidden_size * 2)
    size += block(8 * splits * chunk * 4) + _row_statistics(rows)
    return LossPlan("tiled", chunk, size, budget)


def _row_chunks(rows: int, hidden_size: int, vocab_size: int, budget: int) -> LossPlan:
    least = min(max(_power_of_two_below(MIN_CHUNK_LOGITS / vocab_size), MIN_CHUNK_ROWS), MAX_CHUNK_ROWS)
    wanted = _power_of_two_below(rows * hidden_size / vocab_size)
    chunk = min(max(wanted, least), MAX_CHUNK_ROWS, max(budget // (vocab_size * 4), 2), max(rows, 1))
    chunk = max(chunk, 1)
    size = block(chunk * (-(-vocab_size // 8) * 8) * 4)  # fp32 logits; their 16-bit gradient aliases them
    again = 2 if rows > chunk else 1  # this chunk's fp32 gradient, and the last one's until it is replaced
    size += block(chunk * hidden_size * 2) + again * block(chunk * hidden_size * 4)
    return LossPlan("row_chunks", chunk, size + _row_statistics(rows), budget)


def _row_statistics(rows: int) -> int:
    """logp and lse (fp32), the index of the labelled rows and the shifted labels (int64)."""
    return 2 * block(4 * rows) + 2 * block(8 * rows)


def _power_of_two_below(value: float) -> int:
    return 1 << max(int(value).bit_length() - 1, 0)
