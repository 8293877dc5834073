"""One worker's life as it is told to the driver, without Ray around it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from probes.fleet.life import Event, LifeOrder, live
from probes.worker.claim import claimed
from probes.worker.start import default_spool
from probes.worker.stopping import Stopping
from tests.probes.children import child
from tests.probes.common import alive, point, points, read_number
from tests.probes.worker.service import Service, listening

WELL = 'measured()\nevents.write({"event": "done"})\n'
HANGS = 'tell("probe", str(os.getpid()))\nhang()\n'
KEY = "ctxp_the_key_of_the_fleet"


@pytest.fixture
def service() -> Iterator[Service]:
    with listening(Service(key=KEY)) as one:
        yield one


def order(service: Service, tmp_path: Path, body: str, key: str | None = KEY, *, cpu: bool = True) -> LifeOrder:
    return LifeOrder(server=service.url, api_key=key, cpu=cpu, state=str(tmp_path), child=child(tmp_path, body))


def kinds(told: list[Event]) -> list[str]:
    return [event["event"] for event in told if event["event"] != "said"]


def test_a_life_is_one_job_told_as_it_goes_on_and_the_key_is_in_no_word_of_it(service: Service, tmp_path: Path) -> None:
    jobs = service.add(*points(16, 32))
    one = order(service, tmp_path, WELL)
    told = list(live(one))
    assert kinds(told) == ["began", "leased", "ended"]
    assert (told[-1]["summary"]["accepted"], [job.state for job in jobs]) == (1, ["succeeded", "queued"])
    assert any(event.get("line", "").endswith("accepted") for event in told)
    assert KEY not in repr(told) + repr(one)


def test_a_life_without_a_job_ends_at_once(service: Service, tmp_path: Path) -> None:
    told = list(live(order(service, tmp_path, WELL)))
    assert kinds(told) == ["began", "ended"]
    assert told[-1]["summary"]["leased"] == 0


def test_what_a_node_cannot_do_is_told_with_its_code(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list(live(order(service, tmp_path, WELL, cpu=False)))[-1]["code"] == "worker-error"
    assert list(live(order(service, tmp_path, WELL, key="wrong")))[-1]["code"] == "not-let-in"
    (tmp_path / "ctxplan").rename(tmp_path / "away")
    (tmp_path / "ctxplan").touch()
    assert list(live(order(service, tmp_path, WELL)))[-1]["event"] == "unable"


@pytest.mark.parametrize(
    ("answer", "event"), [((401, {"code": "unauthenticated", "detail": "no"}), "unable"), (None, "ended")]
)
def test_a_life_tells_how_many_results_it_leaves_on_the_disk(
    service: Service, tmp_path: Path, answer: tuple[int, dict[str, Any]] | None, event: str
) -> None:
    service.add(point())
    service.refuse_result = answer
    last = list(live(order(service, tmp_path, WELL)))[-1]
    told = last["waiting"] if event == "unable" else last["summary"]["waiting"]
    assert (last["event"], told) == (event, 1 if answer else 0)


def test_lives_without_gpus_on_one_node_are_several_workers(service: Service, tmp_path: Path) -> None:
    first = f"{socket.gethostname()}-cpu-0"
    spool = default_spool(first, {"XDG_STATE_HOME": str(tmp_path)})
    began, _ = live(order(service, tmp_path, WELL))
    assert began["worker"] == first
    with claimed(spool / "lock", "the first"):
        began, _ = live(order(service, tmp_path, WELL))
    assert began["worker"] == f"{socket.gethostname()}-cpu-1"


def test_asked_twice_it_gives_its_point_back_and_its_probe_is_gone(service: Service, tmp_path: Path) -> None:
    (job,) = service.add(point())
    measures = threading.Event()

    def watch(stopping: Stopping) -> None:
        measures.wait(20)
        stopping.ask()
        stopping.ask()

    told = []
    for event in live(order(service, tmp_path, HANGS), watch=watch):
        told.append(event)
        if event["event"] == "leased":
            read_number(tmp_path / "probe")
            measures.set()
    assert told[-1]["summary"]["given_back"] == 1
    assert (job.state, job.returned) == ("queued", 1)
    assert not alive(read_number(tmp_path / "probe"))
