"""Which of Unsloth's losses is called, and what it says about the rows of its chunks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def listen_to_losses(seen: dict[str, Any]) -> None:
    """Note in ``seen``, whenever a loss of unsloth_zoo runs, ``loss``, ``loss_rows`` and ``loss_chunk_bytes``.

    Sources: unsloth_zoo/fused_losses/fused_linear.py ``_tiled_layout`` and ``_Buffers``; cross_entropy_loss.py
    ``UnslothFusedLoss``, which asks ``get_chunk_size`` or is told how many chunks, and then ``chunk_row_bounds``.
    """
    from unsloth_zoo.fused_losses import cross_entropy_loss, fused_linear

    listen_to_the_chunked(seen, fused_linear)
    listen_to_the_fused(seen, cross_entropy_loss)


def listen_to_the_chunked(seen: dict[str, Any], module: Any) -> None:
    """Of fused_linear.py: a chunk is the logits buffer that the loss uses again and again."""
    layout, buffers = module._tiled_layout, module._Buffers.__init__

    def tiled(*arguments: Any, **options: Any) -> Any:
        rows, tile = layout(*arguments, **options)
        seen.update(loss="chunked_cross_entropy_tiled", loss_rows=int(rows), loss_chunk_bytes=int(rows * tile * 4))
        return rows, tile

    def chunked(self: Any, rows: int, *arguments: Any, **options: Any) -> None:
        buffers(self, rows, *arguments, **options)
        if seen.get("loss") != "chunked_cross_entropy_tiled":
            seen.update(loss="chunked_cross_entropy", loss_rows=int(rows), loss_chunk_bytes=int(self.buf.nbytes))

    module._tiled_layout = tiled
    module._Buffers.__init__ = chunked


def listen_to_the_fused(seen: dict[str, Any], module: Any) -> None:
    """Of cross_entropy_loss.py: the largest of its chunks. Their logits live inside a compiled graph, so that no bytes
    of one can be seen."""
    row_bounds = module.chunk_row_bounds

    def fused(n_rows: int, chunks: int, *arguments: Any, **options: Any) -> Any:
        bounds = row_bounds(n_rows, chunks, *arguments, **options)
        # Without bounds torch.chunk cuts: parts of ceil(rows / chunks), the last one shorter.
        rows = -(-n_rows // chunks) if bounds is None else max(b - a for a, b in pairwise(bounds))
        seen.update(loss="fused_cross_entropy", loss_rows=int(rows), loss_chunk_bytes=None)
        return bounds

    module.chunk_row_bounds = fused
