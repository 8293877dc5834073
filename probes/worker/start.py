"""Starts a worker: finds out what the machine is, and claims its GPU and its spool."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from probes.worker.claim import claimed, lock_of
from probes.worker.client import Server
from probes.worker.facts import find_facts
from probes.worker.loop import Summary, Until, Worker
from probes.worker.runner import Setup
from probes.worker.spool import Spool
from probes.worker.stopping import Stopping, on_signals


def lend(
    url: str,
    api_key: str | None,
    *,
    setup: Setup,
    until: Until,
    drain_timeout_seconds: float | None = None,
    stopping: Stopping | None = None,
    spool_folder: Path | None = None,
    id: str | None = None,
    name: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Work for a service until it is time to leave.

    Args:
        stopping: what ends the worker; None: SIGTERM and SIGINT, and this is the main thread then.
        spool_folder: None for this worker's own among the user's files.

    Raises:
        CtxplanError: an address or a key that is none, no GPU, a GPU or a spool that another worker has, and what
            `Worker.run` raises.
    """
    with ExitStack() as stack:
        server = stack.enter_context(closing(Server(url, api_key)))
        facts = find_facts(cpu=setup.cpu, device_index=setup.device_index, id=id, name=name)
        if facts.card is not None:
            stack.enter_context(claimed(lock_of(facts.card), f"GPU {facts.card.uuid}"))
        spool = Spool(spool_folder or default_spool(facts.id), server.url)
        stack.enter_context(claimed(spool.folder / "lock", f"the spool {spool.folder}"))
        if stopping is None:
            stopping = Stopping(drain_timeout_seconds)
            stack.enter_context(on_signals(stopping, say))
        say(f"{facts.id} works for {server.url} with {facts.gpu}; results are kept in {spool.folder}")
        worker = Worker(server=server, facts=facts, spool=spool, setup=setup, until=until, stopping=stopping, say=say)
        return worker.run()


def default_spool(worker: str, environment: Mapping[str, str] | None = None) -> Path:
    """The folder of a worker's results among the user's files (``XDG_STATE_HOME``)."""
    environment = os.environ if environment is None else environment
    state = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    # Two ids that read alike as file names are two workers.
    mark = hashlib.sha256(worker.encode()).hexdigest()[:6]
    return Path(state) / "ctxplan" / "spool" / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', worker)[:80]}-{mark}"
