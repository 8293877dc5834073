"""Who else is on the card, decided from plain data; and the driver's side where there is no driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from probes.document import Result, Setting
from probes.following import Following, Hooks
from probes.measurement import Measurement
from probes.neighbours import IDLE_BYTES, NeighbourWatch, Sample, busy, descends_from, exists
from probes.protocol import Failed, Measured
from probes.supervise import utc_now
from tests.probes.common import points

GIB = 2**30
CHILD, BALLAST, STRANGER, HOST = 100, 101, 900, 5000
"""PIDs. The last is one of the host's, which this machine does not have."""
STEP = {
    **dict.fromkeys(("forward", "backward", "optimizer")),
    **dict.fromkeys(("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")),
    "loss": 2.5,
    "seconds": 0.1,
}


def sample(*pids: int, used_bytes: int = 5 * GIB) -> Sample:
    return Sample(used_bytes=used_bytes, processes=dict.fromkeys(pids, GIB))


def watch(*samples: Sample | None, holders: int = 1) -> NeighbourWatch:
    found = NeighbourWatch({CHILD, BALLAST}.__contains__, lambda pid: pid < HOST, holders=holders)
    for seen in samples:
        found.note(seen)
    return found


class TestBefore:
    def test_an_idle_card_is_free(self) -> None:
        assert busy(Sample(used_bytes=0)) is None
        assert busy(Sample(used_bytes=IDLE_BYTES)) is None

    def test_a_process_on_the_card_is_named_with_its_bytes(self) -> None:
        said = busy(Sample(used_bytes=0, processes={STRANGER: 7 * GIB, 901: None}))
        assert said == f"the card is in use by PID {STRANGER} ({7 * GIB} bytes), PID 901"

    def test_bytes_in_use_by_nobody_that_is_listed_are_said(self) -> None:
        assert f"{IDLE_BYTES + 1} bytes" in str(busy(Sample(used_bytes=IDLE_BYTES + 1)))


class TestDuring:
    def test_our_own_processes_are_no_neighbours(self) -> None:
        found = watch(sample(), sample(CHILD), sample(CHILD, BALLAST), None, holders=2)
        assert found.neighbour() is None
        assert found.checked

    def test_a_stranger_is_one_although_it_left(self) -> None:
        found = watch(sample(CHILD), sample(CHILD, STRANGER), sample(CHILD))
        assert f"PID {STRANGER}" in str(found.neighbour())

    def test_a_stranger_from_before_our_first_byte_is_one(self) -> None:
        assert f"PID {STRANGER}" in str(watch(sample(STRANGER), sample(CHILD)).neighbour())

    def test_a_pid_that_is_gone_when_it_is_looked_up_must_be_seen_twice(self) -> None:
        assert watch(sample(CHILD, HOST), sample(CHILD)).neighbour() is None
        assert watch(sample(CHILD, HOST), sample(CHILD, HOST)).neighbour() is not None

    def test_pids_of_another_numbering_are_counted(self) -> None:
        alone = watch(sample(HOST), sample(HOST))
        assert alone.neighbour() is None
        assert not alone.checked
        assert "2 processes" in str(watch(sample(HOST), sample(HOST, HOST + 1)).neighbour())
        assert watch(sample(HOST, HOST + 1), holders=2).neighbour() is None

    def test_a_driver_that_lists_nobody_checks_nothing(self) -> None:
        found = watch(sample(), sample())
        assert found.neighbour() is None
        assert not found.checked


class TestVoid:
    """What a neighbour makes of a point's result."""

    FACTS: Mapping[str, object] = {
        "execution_path": "eager",
        "peak_allocated_bytes": 5,
        "stack": {"torch": "2"},
        "gpu": "G",
        "steps": [STEP],
        "steps_run": 1,
    }

    def follow(self, found: NeighbourWatch) -> Following:
        hooks = Hooks(on_progress=lambda _: None, on_measurement=lambda _: None, now=utc_now)
        return Following(points=points(16, 32), setting=Setting(gpu="G"), ballast=None, hooks=hooks, neighbours=found)

    def measured(self, found: NeighbourWatch) -> Measurement:
        following = self.follow(found)
        following.take(Measured(index=0, facts=self.FACTS))
        return following.measurements[0]

    def test_a_point_beside_a_neighbour_is_void_and_says_who_it_was(self) -> None:
        measured = self.measured(watch(sample(CHILD, STRANGER)))
        assert measured.outcome == "neighbour"
        assert f"PID {STRANGER}" in str(measured.detail)

    def test_so_is_an_out_of_memory_and_a_crash(self) -> None:
        following = self.follow(watch(sample(CHILD, STRANGER)))
        following.take(Failed(index=0, kind="out_of_memory", message="full"))
        following.running = 1
        following.end(lambda: Result(outcome="crashed", detail="killed"))
        assert [m.outcome for m in following.measurements] == ["neighbour", "neighbour"]
        assert "full" in str(following.measurements[0].detail)

    def test_what_could_not_be_checked_is_said(self) -> None:
        measured = self.measured(watch(sample()))
        assert measured.outcome == "ok"
        assert "not checked" in str(measured.detail)

    def test_a_point_alone_on_its_card_says_nothing(self) -> None:
        assert self.measured(watch(sample(CHILD))).detail is None


class TestDescent:
    def test_a_process_of_the_group_or_from_the_leash_is_ours(self) -> None:
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        with subprocess.Popen(sleeper, start_new_session=True) as process:
            try:
                assert descends_from(process.pid, ancestor=0, session=process.pid)
                assert descends_from(process.pid, ancestor=process.pid, session=None)
                assert descends_from(process.pid, ancestor=os.getpid(), session=None)
                assert not descends_from(process.pid, ancestor=0, session=process.pid + 1)
                assert exists(process.pid)
            finally:
                process.kill()
        assert not exists(process.pid)
        assert not descends_from(process.pid, ancestor=os.getpid(), session=process.pid)

    def test_init_is_not_ours(self) -> None:
        assert not descends_from(1, ancestor=os.getpid(), session=os.getpid())
