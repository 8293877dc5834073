"""A worker's life: real processes, against a small service on loopback that can be away or lose what it answers."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probes.common import alive, point, points, read_number, wait_for
from tests.probes.worker.processes import worker
from tests.probes.worker.service import JobState, Service, listening

WELL = 'tell("begun", "yes")\nmeasured()\nevents.write({"event": "done"})\n'
SLOW = 'tell("probe", str(os.getpid()))\ntell("begun", "yes")\n' + (
    'while not os.path.exists(os.path.join(TOLD, "go")):\n    time.sleep(0.02)\n' + WELL
)
HANGS = 'tell("probe", str(os.getpid()))\ntell("begun", "yes")\nhang()\n'
SPAWNS = (
    'helper = subprocess.Popen(["sleep", "600"])\ntell("helper", str(helper.pid))\n'
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANGS
)
ONE = ("--max-jobs", "1")


@pytest.fixture
def service() -> Iterator[Service]:
    with listening(Service()) as one:
        yield one


def is_over(job: JobState) -> bool:
    return job.state in ("succeeded", "failed")


class TestMeasuring:
    def test_a_point_is_leased_measured_sent_and_gone_from_the_disk(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            code, summary, told = one.finish()
        assert (code, summary["leased"], summary["accepted"], summary["waiting"]) == (0, 1, 1, 0)
        assert job.result is not None
        assert (job.result["point"], job.result["outcome"]) == (job.point.digest, "ok")
        assert one.files("running") == one.files("results") == one.files("refused") == []
        assert job.token not in told

    def test_it_says_what_it_is(self, service: Service, tmp_path: Path) -> None:
        service.add(point())
        with worker(tmp_path, service.url, WELL, *ONE, "--id", "here", "--name", "the one here") as one:
            one.finish()
        (facts,) = service.workers
        assert (facts["id"], facts["name"], facts["gpu"], facts["driver"]) == ("here", "the one here", "cpu", None)
        assert facts["total_bytes"] > 2**30
        assert facts["versions"]["torch"]

    def test_it_leaves_when_there_was_nothing_for_so_long(self, service: Service, tmp_path: Path) -> None:
        jobs = service.add(*points(16, 32))
        with worker(tmp_path, service.url, WELL, "--idle-exit", "0.5") as one:
            code, summary, _ = one.finish()
        assert (code, summary["accepted"]) == (0, 2)
        assert all(is_over(job) for job in jobs)

    def test_once_is_one_job_or_none(self, service: Service, tmp_path: Path) -> None:
        with worker(tmp_path, service.url, WELL, "--once") as one:
            code, summary, _ = one.finish()
        assert (code, summary["leased"]) == (0, 0)

    def test_an_out_of_memory_is_a_result(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, 'failed("out_of_memory", message="tried 5")', *ONE) as one:
            assert one.finish()[1]["accepted"] == 1
        assert job.result is not None
        assert job.result["outcome"] == "out_of_memory"

    def test_a_point_that_does_not_suit_it_is_a_failure_with_the_reason(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point(cap_bytes=2**34))
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            assert one.finish()[1]["failed"] == 1
        assert job.failures[0]["why"] == "unsuitable"
        assert "this worker has none" in job.failures[0]["detail"]["message"]
        assert not (tmp_path / "begun").exists()


class TestEnds:
    def test_asked_once_it_finishes_its_point_and_takes_no_other(self, service: Service, tmp_path: Path) -> None:
        first, second = service.add(*points(16, 32))
        with worker(tmp_path, service.url, SLOW) as one:
            one.wait_until_measuring(tmp_path)
            one.send(signal.SIGTERM)
            wait_for(lambda: first.renewals, "the lease is renewed while it drains")
            (tmp_path / "go").touch()
            code, summary, _ = one.finish()
        assert (code, summary["accepted"], summary["leased"]) == (0, 1, 1)
        assert (first.state, second.state) == ("succeeded", "queued")

    def test_asked_twice_it_gives_the_point_back_and_the_probe_is_gone(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, HANGS) as one:
            one.wait_until_measuring(tmp_path)
            probe = read_number(tmp_path / "probe")
            one.send(signal.SIGTERM)
            one.send(signal.SIGINT)
            code, summary, _ = one.finish()
        assert (code, summary["given_back"]) == (0, 1)
        assert (job.state, job.returned, job.failures) == ("queued", 1, [])
        assert not alive(probe)

    def test_when_the_time_to_drain_is_over_it_leaves(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, HANGS, "--drain-timeout", "0.2") as one:
            one.wait_until_measuring(tmp_path)
            one.send(signal.SIGTERM)
            assert one.finish()[1]["given_back"] == 1
        assert job.returned == 1

    def test_a_cancelled_job_ends_the_probe_with_all_that_it_started(self, service: Service, tmp_path: Path) -> None:
        first, second = service.add(*points(16, 32))
        with worker(tmp_path, service.url, SPAWNS) as one:
            one.wait_until_measuring(tmp_path)
            pids = [read_number(tmp_path / name) for name in ("probe", "helper")]
            first.state = "cancelled"
            wait_for(lambda: not any(alive(pid) for pid in pids), "the probe's process group is gone")
            wait_for(lambda: second.state == "leased", "it goes on with the next")
            one.send(signal.SIGKILL)
        assert (first.failures, first.result) == ([], None)

    def test_a_probe_that_is_killed_is_a_failed_attempt_with_its_last_words(
        self, service: Service, tmp_path: Path
    ) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, 'print("still here", flush=True)\n' + HANGS, *ONE) as one:
            os.kill(read_number(tmp_path / "probe"), signal.SIGKILL)
            code, summary, _ = one.finish()
        assert (code, summary["failed"], summary["accepted"]) == (0, 1, 0)
        (failure,) = job.failures
        assert failure["why"] == "probe-killed"
        assert "still here" in failure["detail"]["message"]
        assert (job.state, job.result) == ("queued", None)

    def test_killed_it_takes_the_probe_with_it_and_its_next_life_says_so(
        self, service: Service, tmp_path: Path
    ) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, HANGS) as one:
            one.wait_until_measuring(tmp_path)
            probe = read_number(tmp_path / "probe")
            one.send(signal.SIGKILL)
            wait_for(lambda: not alive(probe), "the probe is gone with its worker")
            assert len(one.files("running")) == 1
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            assert one.finish()[1]["accepted"] == 1
        assert [failure["why"] for failure in job.failures] == ["worker-died"]
        assert job.state == "succeeded"


class TestTheServiceIsAway:
    def test_a_result_waits_on_the_disk_over_a_worker_that_is_killed(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, SLOW, *ONE) as one:
            one.wait_until_measuring(tmp_path)
            service.down = True
            (tmp_path / "go").touch()
            (file,) = wait_for(lambda: one.files("results"), "the result is on the disk")
            assert job.point.digest in file.read_text()
            one.send(signal.SIGKILL)
        service.down = False
        with worker(tmp_path, service.url, WELL, "--once") as one:
            _, summary, _ = one.finish()
        assert (job.state, summary["accepted"], summary["leased"]) == ("succeeded", 1, 0)
        assert one.files("results") == []

    @pytest.mark.parametrize("ends", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGINT]], ids=["killed", "told twice"])
    def test_a_failure_waits_on_the_disk_over_a_worker_that_ends(
        self, service: Service, tmp_path: Path, ends: list[signal.Signals]
    ) -> None:
        (job,) = service.add(point())
        body = SLOW.replace(WELL, "os.kill(os.getpid(), signal.SIGKILL)\n")
        with worker(tmp_path, service.url, body) as one:
            one.wait_until_measuring(tmp_path)
            service.down = True
            (tmp_path / "go").touch()
            wait_for(lambda: "probe-killed" in one.files("running")[0].read_text(), "the failure is on the disk")
            for number in ends:
                one.send(number)
            one.process.wait(30)
        service.down = False
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            _, summary, _ = one.finish()
        assert [failure["why"] for failure in job.failures] == ["probe-killed"]
        assert (job.state, summary["accepted"]) == ("succeeded", 1)
        assert one.files("running") == []

    def test_a_result_whose_answer_was_lost_is_sent_again_and_counts_once(
        self, service: Service, tmp_path: Path
    ) -> None:
        (job,) = service.add(point())
        service.lose_result = True
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            _, summary, _ = one.finish()
        assert (summary["accepted"], summary["duplicate"], service.results_sent) == (0, 1, 2)
        assert job.state == "succeeded"

    def test_a_lease_is_asked_for_until_the_service_is_back(self, service: Service, tmp_path: Path) -> None:
        service.down = True
        (job,) = service.add(point())
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            wait_for(lambda: service.heartbeats or service.refused, "it has asked")
            service.down = False
            assert one.finish()[1]["accepted"] == 1
        assert job.state == "succeeded"

    def test_one_that_never_reached_it_says_so(self, service: Service, tmp_path: Path) -> None:
        service.down = True
        with worker(tmp_path, service.url, WELL, "--once") as one:
            code, summary, told = one.finish()
        assert (code, summary["unreachable"]) == (4, True)
        assert "answers 503" in told


class TestLeasesThatAreOver:
    def test_a_late_result_is_kept_aside_and_the_worker_goes_on(self, service: Service, tmp_path: Path) -> None:
        service.lease_seconds, service.renew_seconds = 0.5, 60
        (job,) = service.add(point())
        service.hold_result = threading.Event()
        with worker(tmp_path, service.url, WELL, "--idle-exit", "2", "--max-jobs", "1") as one:
            wait_for(lambda: service.results_sent, "the result comes")
            wait_for(lambda: not job.holds(job.epoch, job.token), "the lease runs out")
            service.hold_result.set()
            _, summary, _ = one.finish()
        assert (summary["late"], summary["accepted"]) == (1, 0)
        (kept,) = one.files("refused")
        assert job.token not in kept.read_text()
        assert len(job.late) == 1

    def test_a_frozen_worker_finds_its_lease_lost_and_ends_the_probe(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, HANGS, *ONE) as one:
            one.wait_until_measuring(tmp_path)
            probe = read_number(tmp_path / "probe")
            one.send(signal.SIGSTOP)
            job.expires_at = 0.0
            assert not job.holds(job.epoch, job.token)
            one.send(signal.SIGCONT)
            _, summary, _ = one.finish()
        assert (summary["lost"], summary["failed"]) == (1, 0)
        assert not alive(probe)

    def test_a_refused_result_is_a_failure_and_is_kept(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        service.refuse_result = (422, {"code": "wrong-point", "detail": "another job"})
        with worker(tmp_path, service.url, WELL, *ONE) as one:
            assert one.finish()[1]["refused"] == 1
        assert [failure["why"] for failure in job.failures] == ["wrong-point"]
        assert len(one.files("refused")) == 1


class TestFaults:
    def test_a_second_worker_on_one_spool_is_refused(self, service: Service, tmp_path: Path) -> None:
        service.add(point())
        with worker(tmp_path, service.url, HANGS) as one:
            one.wait_until_measuring(tmp_path)
            with worker(tmp_path, service.url, HANGS) as other:
                code, _, told = other.finish()
        assert code == 2
        assert f"is taken by another worker, process {one.process.pid}" in told

    def test_a_full_disk_sends_the_result_at_once_and_ends_the_worker(self, service: Service, tmp_path: Path) -> None:
        (job,) = service.add(point())
        with worker(tmp_path, service.url, SLOW, *ONE) as one:
            one.wait_until_measuring(tmp_path)
            resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (64, 64))
            (tmp_path / "go").touch()
            code, _, told = one.finish()
        assert code == 2
        assert "the spool is not written" in told
        assert job.state == "succeeded"

    def test_a_wrong_key_ends_it_with_what_it_needs(self, tmp_path: Path) -> None:
        with listening(Service(key="right")) as service, worker(tmp_path, service.url, WELL, key="another-key") as one:
            code, _, told = one.finish()
        assert code == 2
        assert "an API key with the scope work" in told
        assert "another-key" not in told

    def test_the_key_does_not_reach_what_is_measured(self, tmp_path: Path) -> None:
        body = 'tell("seen", repr("CTXPLAN_API_KEY" in os.environ))\n' + WELL
        with listening(Service(key="right")) as service:
            service.add(point())
            with worker(tmp_path, service.url, body, *ONE, key="right") as one:
                assert one.finish()[1]["accepted"] == 1
        assert (tmp_path / "seen").read_text() == "False"

    def test_what_is_no_service_is_said_to_be_none(self, service: Service, tmp_path: Path) -> None:
        with worker(tmp_path, "http://127.0.0.1:1", WELL, "--once") as one:
            code, summary, _ = one.finish()
        assert (code, summary["unreachable"]) == (4, True)
