"""``/v1/calibrations``: made, listed, compared, activated and rolled back, where the settings allow it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.calibration_schemas import (
    ActivatedAnswer,
    ActiveAnswer,
    CalibrationAnswer,
    ComparisonAnswer,
    FittedAnswer,
    Listing,
)
from app.calibrations import Calibrations
from app.main import create_app
from app.settings import Settings
from ctxplan.calibration_store import FileStore
from ctxplan.calibrations import shipped
from estimator.errors import CalibrationError
from probes.fitting.drift import find_drift
from probes.fitting.rows import documents_of
from tests.app.measuring import answers_with
from tests.app.test_problems import problem_of
from tests.ctxplan.test_calibration_store import NOW, made
from tests.probes.common import wait_for
from tests.probes.documents import committed, eager_row
from tests.probes.test_drift import scaled

URL = "/v1/calibrations"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def own(store: FileStore) -> Iterator[TestClient]:
    """A service whose calibrations requests may change."""
    settings = Settings(
        allow_hub=False,
        log_level="error",
        calibrations=store.folder,
        allow_calibration=True,
        calibration_refresh_seconds=0.05,
    )
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    found = [row for row in committed() if row.execution_path == "eager" and "Llama-3.1-8B" in str(row.job["model"])]
    return documents_of(found[:3])


class TestFitting:
    def test_measurements_make_a_calibration_once(self, own: TestClient, rows: list[dict[str, Any]]) -> None:
        made_now = own.post(URL, json={"measurements": rows})
        assert made_now.status_code == 201, made_now.text
        document = FittedAnswer.model_validate_json(made_now.content)
        assert document.new
        assert document.before.id == shipped().id
        assert document.errors[-1].points == len(rows)
        again = own.post(URL, json={"measurements": rows})
        assert again.status_code == 200
        assert again.json()["id"] == document.id
        assert answers_with(own) == shipped().id, "a new calibration is not an active one"

    @pytest.mark.parametrize(
        ("body", "code", "key"),
        [
            ([], "invalid-evidence", None),
            ({}, "invalid-evidence", "measurements"),
            ({"measurements": []}, "invalid-evidence", "measurements"),
            ({"measurements": {}}, "invalid-evidence", "measurements"),
            ({"measurements": [{}]}, "invalid-evidence", "measurements[0]."),
            ({"measurements": [], "leave": 1}, "invalid-evidence", "leave"),
        ],
    )
    def test_a_body_that_is_no_measurements_is_refused(self, own: TestClient, body: Any, code: str, key: Any) -> None:
        found = problem_of(own.post(URL, json=body), 422, code)
        assert str(found["errors"][0]["key"]).startswith(str(key))

    def test_a_directory_of_the_server_is_not_read_as_a_model(
        self, own: TestClient, rows: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text("{}")
        for model in (str(tmp_path), "nobody/has-this", 7, None):
            body = {"measurements": [rows[0], {**rows[0], "job": {**rows[0]["job"], "model": model}}]}
            found = problem_of(own.post(URL, json=body), 422, "invalid-evidence")
            assert found["errors"][0]["key"] == "measurements[1].job.model"

    def test_measurements_without_a_training_on_a_gpu_cannot_be_fitted(
        self, own: TestClient, rows: list[dict[str, Any]]
    ) -> None:
        crashed = {**rows[0], "outcome": "crashed"}
        problem_of(own.post(URL, json={"measurements": [crashed]}), 422, "cannot-fit")
        problem_of(own.post(URL, json={"measurements": rows, "leave_out": ["gpt2"]}), 422, "cannot-fit")
        nothing = {**rows[0], "peak_allocated_bytes": 0}
        problem_of(own.post(URL, json={"measurements": [nothing]}), 422, "cannot-fit")

    def test_estimates_are_answered_while_one_is_fitted(self, own: TestClient) -> None:
        """Many rows take a second; another client is not kept waiting for them."""
        from threading import Thread

        body = json.dumps({"measurements": documents_of(committed()[:90])}).encode()
        results: list[int] = []

        def post() -> None:
            results.append(own.post(URL, content=body, headers={"content-type": "application/json"}).status_code)

        fitting = Thread(target=post)
        fitting.start()
        answered = 0
        while fitting.is_alive():
            assert answers_with(own) == shipped().id
            answered += 1
            time.sleep(0.01)
        fitting.join()
        assert results == [201]
        assert answered > 2


class TestActivating:
    def test_the_active_one_answers_and_a_rollback_ends_it(self, own: TestClient, rows: list[dict[str, Any]]) -> None:
        id = own.post(URL, json={"measurements": rows}).json()["id"]
        activated = own.post(f"{URL}/{id[7:19]}/activation", json={"why": "a new card"})
        assert activated.status_code == 200, activated.text
        assert ActivatedAnswer.model_validate_json(activated.content).activation.why == "a new card"
        assert answers_with(own) == id
        active = ActiveAnswer.model_validate_json(own.get(f"{URL}/active").content)
        assert (active.id, active.shipped) == (id, False)
        rolled = own.post(f"{URL}/rollback", json={})
        assert rolled.json()["calibration"]["id"] == shipped().id
        assert answers_with(own) == shipped().id
        problem_of(own.post(f"{URL}/rollback", json={}), 409, "nothing-to-roll-back")

    def test_another_processs_activation_is_followed(self, own: TestClient, store: FileStore) -> None:
        store.put(made(1))
        store.activate(made(1).id, why="on the command line", at=NOW)
        end = time.monotonic() + 20
        while answers_with(own) != made(1).id:
            assert time.monotonic() < end, "the activation was never seen"

    def test_it_is_followed_after_a_fault_that_nobody_foresaw(
        self, own: TestClient, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faults = []

        def fault(*_: object) -> None:
            faults.append(1)
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(Calibrations, "refresh", fault)
            wait_for(lambda: len(faults) > 1, "it is looked for again")
        store.put(made(1))
        store.activate(made(1).id, why="on the command line", at=NOW)
        wait_for(lambda: answers_with(own) == made(1).id, "the activation is seen")

    def test_a_document_that_is_changed_meanwhile_changes_no_answer(self, own: TestClient, store: FileStore) -> None:
        store.put(made(1))
        own.post(f"{URL}/{made(1).id}/activation", json={})
        store.file_of(made(1).id).write_text("{}")
        for _ in range(50):
            assert answers_with(own) == made(1).id
        problem_of(own.get(f"{URL}/active"), 500, "invalid-calibration")
        problem_of(own.get(f"{URL}/{made(1).id}"), 500, "invalid-calibration")

    def test_a_service_does_not_start_with_a_changed_one(self, store: FileStore) -> None:
        store.put(made(1))
        store.activate(made(1).id, why="test", at=NOW)
        store.file_of(made(1).id).write_text("{}")
        with pytest.raises(CalibrationError, match=made(1).id):
            create_app(Settings(allow_hub=False, log_level="error", calibrations=store.folder))

    def test_an_unreadable_folder_leaves_the_shipped_one_in_use(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        settings = Settings(allow_hub=False, log_level="error", calibrations=tmp_path / "file", allow_calibration=True)
        with TestClient(create_app(settings)) as client:
            assert answers_with(client) == shipped().id
            problem_of(client.get(f"{URL}/active"), 503, "calibration-store-unavailable")

    @pytest.mark.parametrize("path", ["", "/shipped/activation", "/rollback"])
    def test_without_the_setting_nothing_is_changed(
        self, client: TestClient, path: str, rows: list[dict[str, Any]]
    ) -> None:
        problem_of(client.post(URL + path, json={"measurements": rows}), 403, "not-allowed")

    @pytest.mark.parametrize("path", ["/shipped/activation", "/rollback"])
    def test_what_a_foreign_page_could_send_is_refused(self, own: TestClient, path: str) -> None:
        problem_of(own.post(URL + path), 415, "unsupported-media-type")
        problem_of(own.post(URL + path, json={"reason": "x"}), 422, "invalid-evidence")


class TestReading:
    def test_the_shipped_one_is_listed_and_shown(self, client: TestClient) -> None:
        listing = Listing.model_validate_json(client.get(URL).content)
        assert [item.id for item in listing.items] == [shipped().id]
        assert (listing.items[0].active, listing.items[0].shipped, listing.next) == (True, True, None)
        shown = CalibrationAnswer.model_validate_json(client.get(f"{URL}/shipped").content)
        assert shown.points == shipped().points

    def test_pages_follow_one_another(self, own: TestClient, store: FileStore) -> None:
        for number in range(5):
            store.put(made(number))
        seen: list[str] = []
        after = ""
        while after is not None:
            page = own.get(f"{URL}?limit=2" + (f"&after={after}" if after else "")).json()
            assert len(page["items"]) <= 2
            seen += [item["id"] for item in page["items"]]
            after = page["next"]
        assert seen == [one.id for one in store.list()]
        assert len(seen) == 6

    def test_two_are_compared(self, own: TestClient, rows: list[dict[str, Any]]) -> None:
        id = own.post(URL, json={"measurements": rows}).json()["id"]
        found = ComparisonAnswer.model_validate_json(own.get(f"{URL}/shipped/comparison?with={id}").content)
        assert (found.before.id, found.after.id) == (shipped().id, id)
        assert found.errors[-1].points == len(rows)
        own.get(f"{URL}/shipped/comparison?with=shipped").raise_for_status()

    @pytest.mark.parametrize("path", ["/0123456789", "/..%2Fsecrets", "/shipped/comparison?with=zz", "?after=0000"])
    def test_an_unknown_one_is_a_problem(self, client: TestClient, path: str) -> None:
        problem_of(client.get(URL + path), 404, "unknown-calibration" if "%2F" not in path else "not-found")

    def test_drift_is_shown_and_counted(self, store: FileStore) -> None:
        found = find_drift(scaled([eager_row()], 1.1, unsloth="2027.1.1"), shipped())
        store.note_drift({"at": "2026-11-25T12:00:00Z", **one.to_json()} for one in found)
        settings = Settings(allow_hub=False, log_level="error", calibrations=store.folder)
        with TestClient(create_app(settings)) as client:
            active = ActiveAnswer.model_validate_json(client.get(f"{URL}/active").content)
            metrics = client.get("/metrics").text
        assert active.drift[0].changed[0].new == "2027.1.1"
        assert "ctxplan_calibration_drift 1.0" in metrics
        assert f"ctxplan_calibration_points {shipped().points}.0" in metrics
        assert "ctxplan_calibration_age_seconds NaN" in metrics

    def test_the_age_of_ones_own_is_counted(self, own: TestClient, store: FileStore) -> None:
        store.put(made(1))
        own.post(f"{URL}/{made(1).id}/activation", json={})
        lines = own.get("/metrics").text.splitlines()
        age = next(line for line in lines if line.startswith("ctxplan_calibration_age_seconds "))
        assert 0 <= float(age.split()[1]) < 600
