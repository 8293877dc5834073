"""The fit of a campaign in a process of its own: the same as here, and gone where nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from app.jobs.background import LONGEST_SECONDS, Tries
from app.jobs.fitting import NOTHING, fit_campaign
from app.jobs.fitting_process import FitBroken, fit_apart
from ctxplan.calibrations import shipped
from estimator.calibration.document import calibration_to_json
from probes.errors import FitError
from tests.probes.common import alive, read_number
from tests.probes.documents import committed


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    good = [row for row in committed() if row.outcome == "ok" and row.gpu and row.execution_path == "eager"]
    return [row.model_dump(mode="json") for row in good[start:stop]]


async def test_what_is_fitted_elsewhere_is_what_would_be_fitted_here() -> None:
    own, known, active = rows(0, 3), rows(3, 12), shipped()
    here = fit_campaign(own, known, active, is_shipped=False)
    there = await fit_apart(own, known, active, is_shipped=False)
    assert calibration_to_json(there.calibration) == calibration_to_json(here.calibration)
    assert (there.better, there.why, dict(there.errors)) == (here.better, here.why, dict(here.errors))
    assert list(there.documents) == list(here.documents)


async def test_what_cannot_be_fitted_is_refused_in_the_same_words() -> None:
    with pytest.raises(FitError, match=NOTHING[:40]):
        await fit_apart([], rows(0, 3), shipped(), is_shipped=False)


def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in the place of Python."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(file))


async def test_a_process_that_ends_without_an_answer_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "echo no memory >&2; exit 7")
    with pytest.raises(FitBroken, match="exit code 7: no memory"):
        await fit_apart(rows(0, 1), [], shipped(), is_shipped=False)


async def test_a_fit_that_nobody_waits_for_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 100")
    fit = asyncio.create_task(fit_apart(rows(0, 1), [], shipped(), is_shipped=False))
    pid = await asyncio.to_thread(read_number, tmp_path / "pid")
    assert alive(pid)
    fit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fit
    for _ in range(1000):
        if not alive(pid):
            break
        await asyncio.to_thread(os.sched_yield)
        await asyncio.sleep(0.01)
    assert not alive(pid)


def test_what_cannot_be_settled_is_tried_less_and_less_often() -> None:
    tries, waits = Tries(), []
    for _ in range(12):
        tries = tries.after(100.0, 5.0)
        waits.append(tries.not_before - 100.0)
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == LONGEST_SECONDS
