"""``ctxplan`` on a machine that says it has an H100, with what `replay` answers for the probe:

python tests/probes/pretended.py UUID worker --server URL ...
"""

from __future__ import annotations

import os
import shlex
import sys

from app.cli import main
from probes.nvml import Card
from probes.worker import facts
from tests.probes import replay


def pretend(uuid: str) -> None:
    """Let the worker of this process find the card; what it starts finds none."""
    card = Card(uuid=uuid, name=replay.H100, total_bytes=85_017_493_504, free_bytes=85_000_000_000, driver="580.1")
    vars(facts)["find_card"] = lambda *_: card
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


if __name__ == "__main__":
    pretend(sys.argv.pop(1))
    if sys.argv[1:2] == ["worker"]:
        sys.argv += ["--probe-command", shlex.join([sys.executable, replay.__file__])]
    main()
