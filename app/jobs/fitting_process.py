"""A campaign's fit in a process of its own: seconds of arithmetic, during which the service answers as quickly as ever.

``python -m app.jobs.fitting_process`` reads the order from standard input and writes the answer to standard output,
both JSON. It ends by itself where nobody waits for its answer any more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyio import to_thread

from app.jobs.fitting import Fitted, fit_campaign
from estimator.calibration.document import Calibration, calibration_to_json, read_calibration
from estimator.errors import CtxplanError

NICE = 10
"""Requests that come meanwhile go first, where both want the same core."""


class FitBroken(OSError):
    """The process ended without an answer: killed, or out of memory. Another try may do better."""


async def fit_apart(
    own: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], active: Calibration, *, is_shipped: bool
) -> Fitted:
    """`fit_campaign`, elsewhere.

    Raises:
        FitError: nothing of the campaign can be fitted. FitBroken: the process ended without an answer.
    """
    order = {
        "own": list(own),
        "known": list(known),
        "active": calibration_to_json(active),
        "is_shipped": is_shipped,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "app.jobs.fitting_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": _python_path()},
    )
    begun = False

    def talk() -> tuple[bytes, bytes]:
        nonlocal begun
        begun = True
        return process.communicate(json.dumps(order).encode())

    try:
        out, said = await to_thread.run_sync(talk, abandon_on_cancel=True)
    finally:
        process.kill()
        process.wait()
        if not begun:  # cancelled before the thread was: nobody else closes them
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
    if process.returncode != 0:
        raise FitBroken(f"the fit ended with exit code {process.returncode}: {said.decode(errors='replace')[-1000:]}")
    return _read(json.loads(out))


def main() -> None:
    """Fit what standard input orders, and answer."""
    with suppress(OSError):
        os.nice(NICE)
    order = json.load(sys.stdin)
    try:
        fitted = fit_campaign(
            order["own"], order["known"], read_calibration(order["active"]), is_shipped=order["is_shipped"]
        )
    except CtxplanError as error:
        answer: dict[str, Any] = {"error": {"message": error.message, "key": error.key, "allowed": error.allowed}}
    else:
        answer = {
            "calibration": calibration_to_json(fitted.calibration),
            "documents": fitted.documents,
            "better": fitted.better,
            "why": fitted.why,
            "errors": dict(fitted.errors),
        }
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer))


def _read(answer: Mapping[str, Any]) -> Fitted:
    from probes.fitting.asking import FitError

    if "error" in answer:
        raise FitError(**answer["error"])
    return Fitted(
        calibration=read_calibration(answer["calibration"]),
        documents=tuple(answer["documents"]),
        better=answer["better"],
        why=answer["why"],
        errors=answer["errors"],
    )


def _python_path() -> str:
    """With which the process finds the packages that this one has, wherever it is started."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])


if __name__ == "__main__":
    main()
