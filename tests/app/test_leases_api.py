"""Leases over HTTP: taken, renewed, ended once, lost, and what is believed of a result."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.job_schemas import AcceptedAnswer, HeartbeatAnswer, LeaseAnswer, MeasurementListing, Workers
from probes.points import parse_point
from tests.app.measuring import (
    JOBS,
    LEASES,
    MEASUREMENTS,
    POINT,
    WORKER,
    WORKERS,
    lease,
    point,
    result_of,
    send,
    submit,
)
from tests.app.test_problems import problem_of
from tests.probes.documents import believable, measured_on_the_cpu, out_of_memory


def state_of(client: TestClient, held: dict[str, Any]) -> str:
    return str(client.get(f"{JOBS}/{held['job']}").json()["state"])


class TestTaking:
    def test_a_worker_is_given_the_job_that_it_can_do(self, queue_client: TestClient) -> None:
        submit(queue_client, point(1024), requires={"gpu": "H200-141GB"}, priority=5)
        submit(queue_client, point(2048), requires={"versions": {"torch": "1.0"}}, priority=4)
        submit(queue_client, point(4096), requires={"versions": {"driver": "580.1"}})
        response = queue_client.post(LEASES, json={"worker": WORKER})
        assert response.headers["cache-control"] == "no-store"
        held = LeaseAnswer.model_validate_json(response.content)
        assert held.point["job"]["max_seq_length"] == 4096
        assert parse_point(held.point).digest == held.digest
        assert held.epoch == 1
        assert 0 < held.renew_after_seconds < held.expires_in_seconds == 60
        assert held.time_limit_seconds == 1800

    def test_where_nothing_fits_the_answer_is_empty_and_says_when_to_ask_again(self, queue_client: TestClient) -> None:
        submit(queue_client)
        response = queue_client.post(LEASES, json={"worker": {**WORKER, "total_bytes": 2**20}})
        assert (response.status_code, response.content) == (204, b"")
        assert int(response.headers["retry-after"]) > 0

    def test_a_worker_that_drains_is_given_nothing(self, queue_client: TestClient) -> None:
        submit(queue_client)
        problem_of(queue_client.post(f"{WORKERS}/w1/draining", json={"draining": True}), 404, "unknown-worker")
        queue_client.post(f"{WORKERS}/w1/heartbeat", json={**WORKER, "draining": False})
        assert queue_client.post(f"{WORKERS}/w1/draining", json={"draining": True}).json()["draining"]
        assert queue_client.post(LEASES, json={"worker": WORKER}).status_code == 204
        queue_client.post(f"{WORKERS}/w1/draining", json={"draining": False})
        assert lease(queue_client)

    @pytest.mark.parametrize(
        ("worker", "key"),
        [
            ({**WORKER, "gpu": 3}, "worker.gpu"),
            ({**WORKER, "total_bytes": -1}, "worker.total_bytes"),
            ({"id": "w"}, "worker.gpu"),
            ({**WORKER, "colour": "red"}, "worker.colour"),
            ([], "worker"),
        ],
    )
    def test_a_worker_that_is_none_is_refused_by_the_name_of_its_key(
        self, client: TestClient, worker: Any, key: str
    ) -> None:
        found = problem_of(client.post(LEASES, json={"worker": worker}), 422, "invalid-submission")
        assert found["errors"][0]["key"] in (key, None)


class TestHolding:
    def test_a_lease_is_renewed_while_it_is_held(self, queue_client: TestClient) -> None:
        submit(queue_client)
        held = lease(queue_client)
        assert send(queue_client, held, "renewal").json() == {
            "expires_in_seconds": 60,
            "renew_after_seconds": 20,
            "cancelled": False,
        }
        problem_of(send(queue_client, held, "renewal", token="another"), 409, "lease-lost")
        problem_of(send(queue_client, {**held, "epoch": 2}, "renewal"), 409, "lease-lost")
        problem_of(send(queue_client, {**held, "job": held["job"] + 1}, "renewal"), 404, "unknown-job")

    def test_a_lease_without_its_token_is_none(self, queue_client: TestClient) -> None:
        submit(queue_client)
        held = lease(queue_client)
        for what in ("renewal", "return"):
            problem_of(queue_client.post(f"{JOBS}/{held['job']}/leases/1/{what}"), 422, "invalid-request")

    def test_a_worker_learns_that_its_job_was_cancelled_by_renewing_and_by_its_heartbeat(
        self, queue_client: TestClient
    ) -> None:
        submit(queue_client)
        held = lease(queue_client)
        beat = {**WORKER, "draining": False, "job": held["job"]}
        assert not queue_client.post(f"{WORKERS}/w1/heartbeat", json=beat).json()["cancelled"]
        queue_client.post(f"{JOBS}/{held['job']}/cancellation")
        assert send(queue_client, held, "renewal").json()["cancelled"]
        answer = HeartbeatAnswer.model_validate_json(queue_client.post(f"{WORKERS}/w1/heartbeat", json=beat).content)
        assert answer.cancelled
        assert answer.worker.gpu == "H100-80GB"
        problem_of(send(queue_client, held, "result", result_of(held)), 409, "lease-lost")

    def test_a_heartbeat_is_its_own_workers(self, queue_client: TestClient) -> None:
        url = f"{WORKERS}/other/heartbeat"
        found = problem_of(queue_client.post(url, json={**WORKER, "draining": False}), 422, "invalid-submission")
        assert found["errors"][0]["key"] == "id"
        facts = {key: value for key, value in WORKER.items() if key != "id"}
        assert queue_client.post(url, json={**facts, "draining": True}).status_code == 200
        listed = Workers.model_validate_json(queue_client.get(WORKERS).content)
        assert [(one.id, one.draining) for one in listed.items] == [("other", False)]


class TestEnding:
    def test_a_result_counts_once_and_is_answered_the_same_when_it_is_sent_again(
        self, queue_client: TestClient
    ) -> None:
        submit(queue_client)
        held = lease(queue_client)
        document = result_of(held)
        first = send(queue_client, held, "result", document)
        assert first.status_code == 201, first.text
        assert AcceptedAnswer.model_validate_json(first.content).quarantined is None
        again = send(queue_client, held, "result", document)
        assert (again.status_code, again.json()) == (200, first.json())
        problem_of(send(queue_client, held, "result", result_of(held, off=0.001)), 409, "lease-lost")
        listed = MeasurementListing.model_validate_json(queue_client.get(MEASUREMENTS).content)
        assert [one.document for one in listed.items] == [document]
        shown = queue_client.get(f"{MEASUREMENTS}/{first.json()['measurement']}").json()
        assert shown["job"] == held["job"]
        assert state_of(queue_client, held) == "succeeded"

    def test_an_out_of_memory_is_a_result(self, queue_client: TestClient) -> None:
        submit(queue_client)
        held = lease(queue_client)
        asked = parse_point(held["point"])
        document = out_of_memory(asked, steps_asked=asked.steps).model_dump(mode="json")
        assert send(queue_client, held, "result", document).json()["state"] == "accepted"

    def test_a_failure_queues_the_job_again_until_its_attempts_are_used_up(self, queue_client: TestClient) -> None:
        submit(queue_client, max_attempts=2)
        held = lease(queue_client)
        assert send(queue_client, held, "failure", {"why": "no-space", "detail": "the disk is full"}).json() == {
            "state": "queued"
        }
        held = lease(queue_client)
        assert held["epoch"] == 2
        assert send(queue_client, held, "failure", {"why": "no-space", "detail": {"free": 0}}).json() == {
            "state": "failed"
        }
        problem_of(send(queue_client, held, "failure", {"why": "no-space"}), 409, "lease-lost")
        failures = queue_client.get(f"{JOBS}/{held['job']}").json()["failures"]
        assert [one["detail"] for one in failures] == [{"text": "the disk is full"}, {"free": 0}]

    def test_a_job_that_is_given_back_is_as_it_was(self, queue_client: TestClient) -> None:
        submit(queue_client)
        held = lease(queue_client)
        assert send(queue_client, held, "return").json() == {"state": "queued"}
        job = queue_client.get(f"{JOBS}/{held['job']}").json()
        assert (job["attempts"], job["failures"]) == (0, [])
        problem_of(send(queue_client, held, "return"), 409, "lease-lost")


class TestBelieving:
    def test_a_result_of_another_point_is_refused_and_the_job_goes_on(self, queue_client: TestClient) -> None:
        submit(queue_client)
        held = lease(queue_client)
        other = believable(parse_point(point(4096))).model_dump(mode="json")
        found = problem_of(send(queue_client, held, "result", other), 422, "wrong-point")
        assert found["errors"][0]["key"] == "point"
        assert state_of(queue_client, held) == "leased"
        assert send(queue_client, held, "result", result_of(held)).status_code == 201

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"steps_asked": 9}, "steps_asked"),
            ({"environment_asked": {"UNSLOTH_RETURN_LOGITS": "1"}}, "environment_asked"),
            ({"job": {**believable(parse_point(POINT)).job, "r": 8}}, "job"),
            ({"cap": {"total_bytes": 2**34, "ballast_bytes": 1, "not_emulated": ()}}, "cap.total_bytes"),
        ],
    )
    def test_a_result_that_borrows_its_points_name_is_refused(
        self, queue_client: TestClient, changes: dict[str, Any], key: str
    ) -> None:
        submit(queue_client)
        held = lease(queue_client)
        found = problem_of(send(queue_client, held, "result", result_of(held, **changes)), 422, "wrong-point")
        assert found["errors"][0]["key"] == key
        assert state_of(queue_client, held) == "leased"

    def test_what_is_no_measurement_is_refused_by_the_name_of_its_key(self, queue_client: TestClient) -> None:
        submit(queue_client)
        held = lease(queue_client)
        problem_of(send(queue_client, held, "result", {"outcome": "ok"}), 422, "invalid-evidence")
        problem_of(send(queue_client, held, "result", []), 422, "invalid-evidence")
        assert state_of(queue_client, held) == "leased"

    @pytest.mark.parametrize(
        ("off", "changes", "why"),
        [
            (0.30, {}, "+30.0% off"),
            (-0.30, {}, "-30.0% off"),
            (0.22, {}, "above the bound"),
            (0.0, {"gpu": "NVIDIA H200"}, "H200-141GB"),
            (0.0, {"outcome": "neighbour"}, "void: neighbour"),
        ],
    )
    def test_a_result_that_cannot_be_believed_ends_the_job_and_is_quarantined(
        self, queue_client: TestClient, off: float, changes: dict[str, Any], why: str
    ) -> None:
        submit(queue_client)
        held = lease(queue_client)
        answer = send(queue_client, held, "result", result_of(held, off=off, **changes)).json()
        assert answer["state"] == "quarantined"
        assert why in answer["quarantined"]
        assert state_of(queue_client, held) == "succeeded"
        assert queue_client.get(MEASUREMENTS, params={"state": "accepted"}).json()["items"] == []
        assert len(queue_client.get(MEASUREMENTS, params={"state": "quarantined"}).json()["items"]) == 1

    @pytest.mark.parametrize("off", [0.03, -0.1])
    def test_drift_is_believed_for_a_fit_is_to_learn_it(self, queue_client: TestClient, off: float) -> None:
        submit(queue_client)
        held = lease(queue_client)
        assert send(queue_client, held, "result", result_of(held, off=off)).json()["state"] == "accepted"

    def test_a_result_of_the_cpu_is_kept_and_has_no_byte_of_a_gpu(self, queue_client: TestClient) -> None:
        submit(queue_client, requires={"gpu": "cpu", "min_memory_bytes": 0})
        held = lease(queue_client, gpu="cpu", total_bytes=0)
        asked = parse_point(held["point"])
        document = measured_on_the_cpu(asked, steps_asked=asked.steps).model_dump(mode="json")
        assert send(queue_client, held, "result", document).json()["state"] == "accepted"


class TestTakingIn:
    def test_measurements_that_no_lease_was_for_are_kept_once(self, queue_client: TestClient) -> None:
        documents = [believable(parse_point(point(n))).model_dump(mode="json") for n in (1024, 2048)]
        first = queue_client.post(MEASUREMENTS, json={"measurements": documents})
        assert first.status_code == 201, first.text
        assert [one["new"] for one in first.json()["items"]] == [True, True]
        again = queue_client.post(MEASUREMENTS, json={"measurements": documents})
        assert again.status_code == 200
        assert [one["id"] for one in again.json()["items"]] == [one["id"] for one in first.json()["items"]]
        digest = documents[0]["point"]
        found = queue_client.get(MEASUREMENTS, params={"point": digest}).json()["items"]
        assert [one["document"] for one in found] == documents[:1]
        pages = queue_client.get(MEASUREMENTS, params={"limit": 1}).json()
        rest = queue_client.get(MEASUREMENTS, params={"limit": 1, "cursor": pages["next"]}).json()
        assert rest["items"][0]["document"] == documents[0]
        assert rest["next"] is None

    def test_one_that_is_not_of_the_point_that_it_names_keeps_all_out(self, queue_client: TestClient) -> None:
        good = believable(parse_point(POINT)).model_dump(mode="json")
        bad = {**good, "job": {**good["job"], "r": 8}}
        body = {"measurements": [good, bad]}
        found = problem_of(queue_client.post(MEASUREMENTS, json=body), 422, "wrong-point")
        assert found["errors"][0]["key"] == "measurements[1].point"
        assert queue_client.get(MEASUREMENTS).json()["items"] == []

    def test_one_that_cannot_be_believed_is_quarantined(self, queue_client: TestClient) -> None:
        wild = believable(parse_point(POINT), times=2.0).model_dump(mode="json")
        (item,) = queue_client.post(MEASUREMENTS, json={"measurements": [wild]}).json()["items"]
        assert item["state"] == "quarantined"

    def test_a_model_that_a_request_may_not_name_is_refused(self, queue_client: TestClient) -> None:
        asked = parse_point({"job": {"model": "/etc"}})
        document = {**believable(parse_point(POINT)).model_dump(mode="json"), "point": asked.digest}
        document["job"] = asked.to_json()["job"]
        found = problem_of(queue_client.post(MEASUREMENTS, json={"measurements": [document]}), 422, "wrong-point")
        assert "model" in found["errors"][0]["key"]

    def test_a_measurement_that_is_not_there_is_named(self, queue_client: TestClient) -> None:
        problem_of(queue_client.get(f"{MEASUREMENTS}/424242"), 404, "unknown-measurement")
