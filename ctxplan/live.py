"""What the live objects of a run say: its card, its job, what it trains, how long its samples and batches are.

Nothing is imported that the run has not imported itself.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from ctxplan.job_from import NotModelled, job_from, length_of
from ctxplan.watching import Seen
from estimator import Job
from estimator.allocator import block

MOST_SAMPLES = 10_000_000
"""Beyond it the longest row is not looked for: a table without lengths of its own would be read row by row."""


LENGTHS = frozenset({"max_seq_length", "sequence_length"})


def cuda_peaks() -> Seen | None:
    """Torch's peaks of this process's CUDA device; None where there is none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return Seen(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())


def card() -> dict[str, Any] | None:
    """This process's GPU, as a job names one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {"name": properties.name, "total_bytes": properties.total_memory}


def job_of(args: Any, model: Any, dataset: Any = None, **keys: Any) -> Job:
    """The job of a trainer's arguments and model, on the card that is there; ``keys`` win.

    Args:
        dataset: what it trains on, asked for its longest sample where nothing cuts the samples.

    Raises:
        JobError: the objects make no job that can be planned.
    """
    here = card()
    if not keys.keys() & LENGTHS and length_of(*(part for part in (args, model) if part is not None)) is None:
        longest = longest_sample(dataset)
        keys |= {"max_seq_length": longest} if longest else {}
    with warnings.catch_warnings():
        warnings.simplefilter("once", NotModelled)
        return job_from(*(part for part in (args, model) if part is not None), **({"gpu": here} if here else {}) | keys)


def trained_bytes(model: Any) -> int | None:
    """Bytes of the parameters that a live model trains, each in the allocator's block; None where none are at hand
    (no model, or parameters that a sharded optimizer has taken away)."""
    parameters = getattr(model, "parameters", None)
    if not callable(parameters):
        return None
    return sum(block(one.numel() * one.element_size()) for one in parameters() if one.requires_grad) or None


def longest_sample(dataset: Any) -> int | None:
    """Tokens of the longest row of a tokenised dataset; None where its rows are not known without reading them one
    by one."""
    names = getattr(dataset, "column_names", None) or ()
    if "input_ids" not in names or len(dataset) > MOST_SAMPLES:
        return None
    arrow = getattr(dataset, "data", None)
    if arrow is None or getattr(dataset, "_indices", None) is not None:
        return max((len(row) for row in dataset["input_ids"]), default=None)
    import pyarrow.compute

    longest = pyarrow.compute.max(pyarrow.compute.list_value_length(arrow.column("input_ids")))
    return longest.as_py()  # type: ignore[no-any-return]


class Batches:
    """The longest micro-batch that a model was given, while it is watched.

    Attributes:
        length: tokens of a row, as a plan has it: of a batch that was flattened, a row's share.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self.length: int | None = None
        self._rows = rows
        hook = getattr(model, "register_forward_pre_hook", None)
        self._handle = hook(self._note, with_kwargs=True) if callable(hook) else None

    def stop(self) -> None:
        """Watch no longer: what comes later costs nothing."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _note(self, module: Any, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        tokens = named.get("input_ids", positional[0] if positional else None)
        shape = tuple(getattr(tokens, "shape", ()))
        if not getattr(module, "training", False) or len(shape) != 2:
            return
        flattened = shape[0] == 1 < self._rows
        length = -(-int(shape[1]) // self._rows) if flattened else int(shape[1])
        self.length = max(length, self.length or 0)
