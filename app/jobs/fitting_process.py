"""A fit in a process of its own: seconds of arithmetic, during which the service answers as quickly as ever.

``python -m app.jobs.fitting_process`` reads the order from standard input and writes the answer to standard output,
both JSON. It ends by itself where nobody waits for its answer any more.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from anyio import fail_after, to_thread

from app.children import start_child
from app.jobs.fitting import Fitted, FittedRows, fit_campaign, fit_rows
from estimator.calibration.document import Calibration, calibration_to_json, read_calibration
from estimator.errors import CtxplanError

NICE = 10
"""Requests that come meanwhile go first, where both want the same core."""
LONGEST_SECONDS = 600.0
"""What no fit takes: one that does is ended, with its process."""
MOST_SAID = 4000
Answer = TypeVar("Answer", Fitted, FittedRows)


class FitBroken(OSError):
    """The process ended without an answer: killed, out of memory, or too slow. Another try may do better.

    Attributes:
        said: the end of what it wrote on standard error, for the log.
    """

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message)
        self.said = said[-MOST_SAID:]


async def fit_apart(
    own: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], active: Calibration, *, is_shipped: bool
) -> Fitted:
    """`fit_campaign`, elsewhere.

    Raises:
        FitError: nothing of the campaign can be fitted. FitBroken: the process ended without an answer.
    """
    order = {"own": list(own), "known": list(known), "is_shipped": is_shipped}
    answer = await _answered("campaign", active, order)
    return _read(Fitted, answer)


async def fit_rows_apart(
    rows: Sequence[Mapping[str, Any]], active: Calibration, *, leave_out: Collection[str]
) -> FittedRows:
    """`fit_rows`, elsewhere.

    Raises:
        EvidenceError, FitError: as it does. FitBroken: the process ended without an answer.
    """
    answer = await _answered("rows", active, {"rows": list(rows), "leave_out": sorted(leave_out)})
    return _read(FittedRows, answer)


async def _answered(what: str, active: Calibration, order: Mapping[str, Any]) -> dict[str, Any]:
    """What the process answers; it is ended however this ends."""
    text = json.dumps({"what": what, "active": calibration_to_json(active), **order}).encode()
    try:
        with fail_after(LONGEST_SECONDS):
            out, said, code = await _run(text)
    except TimeoutError:
        raise FitBroken(f"the fit took longer than {LONGEST_SECONDS:g} s") from None
    if code != 0:
        last = said.strip().splitlines()[-1:]
        raise FitBroken(": ".join([f"the fit ended with exit code {code}", *last]), said=said)
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        raise FitBroken("the fit gave an answer that is none", said=said) from None
    if "error" in answer:
        raise _error(**answer["error"])
    return answer


async def _run(order: bytes) -> tuple[bytes, str, int]:
    """Standard output, standard error and exit code of a process that is given an order. Raises FitBroken."""
    try:
        process = start_child("app.jobs.fitting_process")
    except OSError as error:
        raise FitBroken(f"the fit's process cannot be started: {error.strerror}") from None
    begun = False

    def talk() -> tuple[bytes, bytes]:
        nonlocal begun
        begun = True
        return process.communicate(order)

    try:
        out, said = await to_thread.run_sync(talk, abandon_on_cancel=True)
    finally:
        process.kill()
        process.wait()
        if not begun:  # cancelled before the thread was: nobody else closes them
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
    return out, said.decode(errors="replace"), process.returncode


def main() -> None:
    """Fit what standard input orders, and answer."""
    with suppress(OSError):
        os.nice(NICE)
    order = json.load(sys.stdin)
    fit = FITS[order.pop("what")]
    try:
        answer = fit(active=read_calibration(order.pop("active")), **order)
    except CtxplanError as error:
        told = {"code": error.code, "message": error.message, "key": error.key, "allowed": error.allowed}
        answer = {"error": told}
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer))


def _campaign(own: Any, known: Any, active: Calibration, is_shipped: bool) -> dict[str, Any]:
    fitted = fit_campaign(own, known, active, is_shipped=is_shipped)
    return {
        "calibration": calibration_to_json(fitted.calibration),
        "documents": fitted.documents,
        "better": fitted.better,
        "why": fitted.why,
        "errors": dict(fitted.errors),
    }


def _rows(rows: Any, active: Calibration, leave_out: Any) -> dict[str, Any]:
    fitted = fit_rows(rows, active, leave_out=leave_out)
    return {
        "calibration": calibration_to_json(fitted.calibration),
        "documents": fitted.documents,
        "errors": fitted.errors,
    }


FITS: Mapping[str, Callable[..., dict[str, Any]]] = {"campaign": _campaign, "rows": _rows}


def _read(kind: type[Answer], answer: Mapping[str, Any]) -> Answer:
    documents, calibration = tuple(answer["documents"]), read_calibration(answer["calibration"])
    return kind(**{**answer, "documents": documents, "calibration": calibration})


def _error(code: str, **what: Any) -> CtxplanError:
    """The error that was raised there, of the kind that it was."""
    from probes.fitting.asking import EvidenceError, FitError

    kinds: Mapping[str, type[CtxplanError]] = {one.code: one for one in (EvidenceError, FitError)}
    error = kinds.get(code, CtxplanError)(**what)
    error.code = code
    return error


if __name__ == "__main__":
    main()
