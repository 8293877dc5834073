"""Optimizer state: what appears on the GPU after the first ``optimizer.step``.

n is the number of trained elements of one tensor. Sources: bitsandbytes/optim/optimizer.py (block-wise 8-bit, block
256, ``min_8bit_size`` 4096), torch/optim/adamw.py, torch/optim/sgd.py, transformers/optimization.py ``Adafactor``.
"""

from __future__ import annotations

from typing import NamedTuple

from estimator.allocator import block

EIGHT_BIT_BLOCK = 256
MIN_EIGHT_BIT_SIZE = 4096
PAGED_FROM_ELEMENTS = 100_000


class Tensors(NamedTuple):
    """``copies`` trained tensors of the same shape (rows, columns); columns is 1 for a vector."""

    rows: int
    columns: int
    copies: int
    itemsize: int
    is_embedding: bool = False

    @property
    def elements(self) -> int:
        return self.rows * self.columns


class Optimizer(NamedTuple):
    """How an ``optim`` keeps its state.

    Attributes:
        moments: full-size moments. bits: 8 or 32; 0 where the moments have the parameter's own dtype.
        paged: state in managed memory, which the driver counts and torch does not.
        foreach_copies: full-size temporaries of the step, in multiples of the parameters.
        factored: Adafactor's row and column sums in place of a full second moment.
    """

    moments: int
    bits: int
    paged: bool = False
    foreach_copies: int = 0
    factored: bool = False

    def state_bytes(self, tensor: Tensors) -> int:
        """State of all ``copies``, bytes."""
        n = tensor.elements
        if self.factored:
            one = block(4 * tensor.rows) + block(4 * tensor.columns) if tensor.columns > 1 else block(4 * n)
        elif self.bits == 8 and n >= MIN_EIGHT_BIT_SIZE and not tensor.is_embedding:
            one = self.moments * (block(n) + block(4 * -(-n // EIGHT_BIT_BLOCK)))
        else:
            one = self.moments * block(n * (4 if self.bits else tensor.itemsize))
        return one * tensor.copies

    def pages(self, tensor: Tensors) -> bool:
        """Whether the state of a tensor lives in managed memory: bitsandbytes pages from 100,000 elements on."""
        return self.paged and tensor.elements >= PAGED_FROM_ELEMENTS

    @property
    def formula(self) -> str:
        """State of one tensor of n elements."""
        if self.factored:
            return "4 rows + 4 columns"
        if self.bits == 8:
            return f"{self.moments} (n + 4 n / 256)"
        return f"{self.moments} * {'4' if self.bits else 'itemsize'} n"

    def step_bytes(self, parameter_bytes: int, largest_bytes: int) -> int:
        """Temporaries of one step: the foreach lists, or one tensor's fp32 update for Adafactor."""
        return largest_bytes * 2 if self.factored else self.foreach_copies * parameter_bytes


OPTIMIZER_KINDS: dict[str, Optimizer] = {
    "adamw_8bit": Optimizer(moments=2, bits=8),
    "adamw_bnb_8bit": Optimizer(moments=2, bits=8),
    "paged_adamw_8bit": Optimizer(moments=2, bits=8, paged=True),
    "paged_adamw_32bit": Optimizer(moments=2, bits=32, paged=True),
    "adamw_torch": Optimizer(moments=2, bits=0, foreach_copies=1),
    "adamw_torch_fused": Optimizer(moments=2, bits=0),
    "sgd": Optimizer(moments=0, bits=0),
    "adafactor": Optimizer(moments=0, bits=32, factored=True),
    "lion_8bit": Optimizer(moments=1, bits=8),
    "paged_lion_8bit": Optimizer(moments=1, bits=8, paged=True),
}
