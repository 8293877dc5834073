"""One worker's life for one job, on a node of a Ray cluster: what a task runs.

It is what ``ctxplan worker --once`` is, told as it goes on: events, each a dict, of which the last is ``ended`` or
``unable``. Everything else is the worker's own (`probes.worker`): one at a time for a card, results on the node's disk
until the service has them, leases renewed, and a probe that dies with it.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from estimator.errors import CtxplanError
from probes.worker.claim import claimed, lock_of
from probes.worker.client import Lease, Server
from probes.worker.errors import CardTaken
from probes.worker.facts import Facts, find_facts
from probes.worker.loop import Until, Worker
from probes.worker.runner import Setup
from probes.worker.spool import Spool
from probes.worker.start import default_spool
from probes.worker.stopping import Stopping

Event = dict[str, Any]
MOST_CPU_WORKERS = 1024
TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeOrder:
    """What a life is told. The key travels as an argument: Ray writes runtime environments into its logs.

    Attributes:
        state: as ``XDG_STATE_HOME``, on the node; None: the user's own. child: as `probes.worker.runner.Setup`.
    """

    server: str
    api_key: str | None = field(default=None, repr=False)
    cpu: bool = False
    cache: str | None = None
    state: str | None = None
    child: tuple[str, ...] = ()


def live(order: LifeOrder, *, watch: Callable[[Stopping], None] = lambda _: None) -> Iterator[Event]:
    """Live once, and tell it. KeyboardInterrupt, by which Ray cancels a task, makes it give back its point and end.

    Args:
        watch: runs in a thread of its own, and asks the stopping when the fleet drains.
    """
    told: SimpleQueue[Event] = SimpleQueue()
    stopping = Stopping()
    threading.Thread(target=watch, args=(stopping,), name="watch", daemon=True).start()
    thread = threading.Thread(target=_live, args=(order, stopping, told.put), name="worker", daemon=True)
    thread.start()
    while True:
        try:
            event = told.get(timeout=TICK_SECONDS)
        except Empty:
            if not thread.is_alive() and told.empty():
                yield {"event": "unable", "code": "worker-error", "message": "the worker ended without a word"}
                return
            continue
        except KeyboardInterrupt:
            stopping.ask()
            stopping.ask()
            continue
        yield event
        if event["event"] in ("ended", "unable"):
            return


def _live(order: LifeOrder, stopping: Stopping, tell: Callable[[Event], None]) -> None:
    def say(line: str) -> None:
        tell({"event": "said", "line": line})

    worker: Worker | None = None
    try:
        with ExitStack() as stack:
            facts, spool = _claimed(order, stack)
            server = stack.enter_context(closing(_Telling(order.server, order.api_key, tell)))
            tell({"event": "began", "worker": facts.id, "gpu": facts.gpu})
            worker = Worker(
                server=server,
                facts=facts,
                spool=Spool(spool, server.url),
                setup=Setup(cpu=order.cpu, cache_folder=Path(order.cache) if order.cache else None, child=order.child),
                until=Until(max_jobs=1, idle_exit_seconds=0.0),
                stopping=stopping,
                say=say,
            )
            summary = worker.run()
        tell({"event": "ended", "summary": summary.to_json()})
    except CtxplanError as error:
        tell({"event": "unable", "code": error.code, "message": str(error), "waiting": _waiting(worker)})
    except Exception as error:  # a fault of ours: the driver says so, and this node is not asked again for a while
        message = f"{type(error).__name__}: {error}"
        tell({"event": "unable", "code": "internal", "message": message, "waiting": _waiting(worker)})


def _waiting(worker: Worker | None) -> int | None:
    """Results in the spool of a life that could not go on; None where it never came to one."""
    return None if worker is None else worker.summary.waiting


def _claimed(order: LifeOrder, stack: ExitStack) -> tuple[Facts, Path]:
    """What the machine is, and the spool's folder, both this life's alone."""
    around: Mapping[str, str] | None = {"XDG_STATE_HOME": order.state} if order.state else None
    if not order.cpu:
        facts = find_facts()
        if facts.card is not None:
            stack.enter_context(claimed(lock_of(facts.card), f"GPU {facts.card.uuid}"))
        spool = _made(default_spool(facts.id, around))
        stack.enter_context(claimed(spool / "lock", f"the spool {spool}"))
        return facts, spool
    # Without a card to tell them apart, by the first spool that is free: who comes next finds what the last one left.
    host = re.sub(r"[^\w.-]", "-", socket.gethostname() or "host")
    for number in range(MOST_CPU_WORKERS):
        facts = find_facts(cpu=True, id=f"{host}-cpu-{number}")
        spool = _made(default_spool(facts.id, around))
        try:
            stack.enter_context(claimed(spool / "lock", f"the spool {spool}"))
        except CardTaken:
            continue
        return facts, spool
    raise CardTaken(f"{MOST_CPU_WORKERS} workers without a GPU are on this node")


def _made(folder: Path) -> Path:
    # As `Spool` makes it, before it: the lock lies in it. What cannot be made is the lock's to say.
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return folder
    return folder


class _Telling(Server):
    """Tells of the lease that it gets."""

    def __init__(self, url: str, api_key: str | None, tell: Callable[[Event], None]) -> None:
        super().__init__(url, api_key)
        self._tell = tell

    def lease(self, facts: Facts) -> Lease | float | None:
        answer = super().lease(facts)
        if isinstance(answer, Lease):
            self._tell({"event": "leased", "job": answer.job})
        return answer
