"""Gives a script or a manifest to the tool that starts it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from ctxplan.variables import API_KEY
from probes.fleet.errors import SubmitFailed, ToolMissing

TIMEOUT_SECONDS = 120.0
SBATCH = ("sbatch", "--parsable")
KUBECTL = ("kubectl", "apply", "--filename", "-")
MOST_SHOWN = 2000


def submit(
    command: Sequence[str],
    text: str,
    *,
    keep_key: bool,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str:
    """Run the tool with the text as its standard input; what it answers on standard output.

    Args:
        keep_key: whether the tool's environment keeps the API key: sbatch hands its environment to the job.

    Raises:
        ToolMissing: there is no such program. SubmitFailed: it refused, or gave no answer in time.
    """
    around = dict(os.environ if environment is None else environment)
    if not keep_key:
        around.pop(API_KEY, None)
    tool = command[0]
    try:
        done = subprocess.run(
            list(command),
            input=text,
            env=around,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError:
        allowed = f"a machine that has it; without --submit, what {tool} would get is printed"
        raise ToolMissing(f"{tool} is not installed here", allowed=allowed) from None
    except OSError as error:
        raise ToolMissing(f"{tool} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SubmitFailed(f"{tool} gave no answer in {timeout_seconds:g} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing")[-MOST_SHOWN:]
        raise SubmitFailed(f"{tool} ended with exit code {done.returncode}: {said}")
    return done.stdout.strip()
