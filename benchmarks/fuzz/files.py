"""Feeds files to whatever reads them, and sees that each is read or refused by name, soon."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pyarrow
from hypothesis import given, seed

from benchmarks.fuzz.drawing import drawing
from benchmarks.fuzz.record import Record, where
from benchmarks.fuzz.targets import Target, targets
from benchmarks.memory import resident_bytes
from estimator.errors import CtxplanError

SECONDS = 10.0
"""What one file may take. One that hangs in a library's own code ends the run a while later, with its stack."""


class Hang(BaseException):
    """A file has taken too long; no reader may catch it."""


def fuzz_files(count: int, *, start: int, keep: Path | None = None) -> list[Record]:
    """Feed so many files in all, shared out by the targets' weights.

    Args:
        start: the seed. keep: a folder for inputs that showed a fault.
    """
    with tempfile.TemporaryDirectory(prefix="ctxplan-fuzz-") as folder:
        each = targets(Path(folder))
        weights = sum(target.weight for target in each)
        return [_feed(target, -(-count * target.weight // weights), start, keep) for target in each]


def _feed(target: Target, count: int, start: int, keep: Path | None) -> Record:
    record = Record(what=target.name)
    _warm(target, record)

    @seed(start)
    @drawing(count)
    @given(target.inputs)
    def one(body: bytes) -> None:
        _read(target, body, record, keep)
        if record.count == count // 5:
            record.first_rss_bytes = _settled_rss_bytes()

    # Hypothesis ends where it has drawn everything that a small strategy can give: then again, from another seed.
    while record.count < count:
        before = record.count
        one()
        one = seed(start + record.count)(one)
        if record.count == before:
            raise RuntimeError(f"{target.name}: nothing more can be drawn")
    record.last_rss_bytes = _settled_rss_bytes()
    record.first_rss_bytes = record.first_rss_bytes or record.last_rss_bytes
    return record


def _settled_rss_bytes() -> int:
    """Resident memory, less what is only kept for the next time."""
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return resident_bytes()


def _warm(target: Target, record: Record) -> None:
    """What is good is read: a reader that refuses everything would pass every fuzzer."""
    for body in target.good:
        try:
            target.read(body)
        except Exception as error:
            record.fault(f"refuses what is good: {where(error)}", traceback.format_exc(), body, None)


def _read(target: Target, body: bytes, record: Record, keep: Path | None) -> None:
    began = perf_counter()
    try:
        with _time_limit():
            outcome = target.read(body)
    except CtxplanError as error:
        outcome = "refused" if str(error) else "refused without a word"
    except Hang:
        outcome = "hung"
        record.fault("hung", traceback.format_exc(), body, keep)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = "failed"
        record.fault(where(error), traceback.format_exc(), body, keep)
    record.slowest_seconds = max(record.slowest_seconds, perf_counter() - began)
    record.outcomes[outcome] += 1


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
