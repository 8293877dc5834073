"""Tiers on the command line and over HTTP: the claims, and what was committed for them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import app.tiers
import ctxplan.tiers
from app.cli import application
from app.schemas import TierAnswer, Tiers
from ctxplan import Planner
from ctxplan.tiers import EVIDENCE, UnknownTier, cards_not_run, find_tier, read_evidence, target_of, tiers
from estimator import parse_job
from probes.nvml import find_card
from probes.points import Point
from tests.app.test_cli import run
from tests.app.test_problems import problem_of
from tests.probes.test_tiers import ran

ROOT = Path(__file__).resolve().parents[2]
NAME = "llama-3.3-70b-qlora-89k"
NAMES = [NAME, "llama-3.3-70b-qlora-longest-125gib-host", "llama-3.3-70b-qlora-longest-80gb"]
on_no_gpu = pytest.mark.skipif(find_card() is not None, reason="would run on this machine's GPU")


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    """A file with a run of the tier's job that fits a host of 125 GiB."""
    job = replace(target_of(find_tier(NAME), Planner(offline=True)).job, pin_host_memory=False)
    row = ran(Point(job=job, trainer="sft", steps=3))
    file = tmp_path / "runs.jsonl"
    file.write_text(row.model_dump_json() + "\n")
    return file


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Evidence of one tier, as the service reads it, instead of what is committed."""
    document = {
        "confirmed": True,
        "emulated": False,
        "gpu": "NVIDIA H100 80GB HBM3",
        "num_hidden_layers": 80,
        "sequence_length": 89_389,
        "peak_allocated_bytes": 74_530_000_000,
        "measured_at": "2026-11-25T00:00:00Z",
        "reason": None,
        "measurements": [{"schema_version": 1}],
    }

    def read(name: str, directories: tuple[Path, ...] = EVIDENCE) -> Mapping[str, Any] | None:
        return document if name == NAME else None

    for module in (app.tiers, ctxplan.tiers):
        monkeypatch.setattr(module, "read_evidence", read)
    app.tiers.listed.cache_clear()
    app.tiers._shown.cache_clear()
    yield document
    app.tiers.listed.cache_clear()
    app.tiers._shown.cache_clear()


class TestTheClaims:
    def test_each_is_a_job_that_can_be_planned_and_names_its_source(self) -> None:
        assert [tier.name for tier in tiers()] == NAMES
        for tier in tiers():
            assert Planner(offline=True).estimate(target_of(tier, Planner(offline=True)).job).verdict != "does_not_fit"
            assert tier.claim
            assert tier.source

    def test_the_89k_tier_is_what_unsloth_published(self) -> None:
        job = find_tier(NAME).job
        assert (job.max_seq_length, job.r, job.gpu) == (89_389, 32, "H100-80GB")
        assert job.use_gradient_checkpointing == "unsloth"
        assert job.load_in_4bit is True
        assert len(job.target_modules) == 7

    def test_an_unknown_name_is_refused_with_those_that_are_known(self) -> None:
        with pytest.raises(UnknownTier, match=NAME):
            find_tier("none")


class TestEvidence:
    def test_the_first_directory_that_is_there_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / f"{NAME}.json").write_text('{"confirmed": true}')
        assert read_evidence(NAME, (tmp_path / "a", tmp_path / "b")) == {"confirmed": True}
        assert read_evidence(NAMES[1], (tmp_path / "a", tmp_path / "b")) is None
        assert read_evidence(NAME, (tmp_path / "a",)) is None

    def test_the_checkouts_evidence_is_found_where_it_is_committed(self) -> None:
        assert EVIDENCE[1] == ROOT / "evidence" / "tiers"
        assert EVIDENCE[1].is_dir()

    def test_a_wheel_has_the_committed_evidence_and_the_claims(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from hatchling.build import build_wheel

        monkeypatch.chdir(ROOT)
        names = zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))).namelist()
        assert "ctxplan/tiers.json" in names
        for file in (ROOT / "evidence" / "tiers").iterdir():
            assert f"ctxplan/evidence/tiers/{file.name}" in names

    def test_the_image_is_built_with_the_evidence(self) -> None:
        assert "COPY evidence/tiers evidence/tiers\n" in (ROOT / "Dockerfile").read_text()
        assert "!evidence/tiers\n" in (ROOT / ".dockerignore").read_text()


class TestOverHttp:
    def test_every_tier_is_listed_with_what_its_evidence_says(
        self, client: TestClient, evidence: dict[str, Any]
    ) -> None:
        document = client.get("/v1/tiers").json()
        assert document["next"] is None
        assert [item["name"] for item in document["items"]] == NAMES
        assert [item["confirmed"] for item in document["items"]] == [True, False, False]
        assert document["items"][0]["measured"]["gpu"] == evidence["gpu"]
        assert document["items"][1]["measured"] is None
        assert document["items"][1]["limited_by"] == "host"
        Tiers.model_validate(document)

    def test_a_tier_comes_with_its_whole_evidence(self, client: TestClient, evidence: dict[str, Any]) -> None:
        document = client.get(f"/v1/tiers/{NAME}").json()
        assert document["evidence"] == evidence
        assert document["sequence_length"] == 89_389
        TierAnswer.model_validate(document)

    def test_a_tier_without_evidence_says_so(self, client: TestClient, evidence: dict[str, Any]) -> None:
        document = client.get(f"/v1/tiers/{NAMES[2]}").json()
        assert evidence
        assert (document["evidence"], document["confirmed"], document["measured"]) == (None, False, None)

    @pytest.mark.parametrize("name", ["none", "..%2Fmeasurements", "LLAMA-3.3-70B-QLORA-89K", "%F0%9F%A6%A5"])
    def test_an_unknown_tier_is_a_problem_that_names_the_known_ones(self, client: TestClient, name: str) -> None:
        document = problem_of(client.get(f"/v1/tiers/{name}"), 404, "not-found")
        if name != "..%2Fmeasurements":
            assert NAME in document["detail"]

    def test_the_files_are_read_once(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        client.get("/v1/tiers")
        client.get(f"/v1/tiers/{NAME}")

        def fail(*_: object) -> None:
            raise AssertionError("read again")

        monkeypatch.setattr(ctxplan.tiers, "_documents", fail)
        assert client.get("/v1/tiers").status_code == 200
        assert client.get(f"/v1/tiers/{NAME}").status_code == 200


class TestOnTheCommandLine:
    def test_list_and_show_give_what_the_service_gives(self, client: TestClient) -> None:
        assert json.loads(run("tier", "list", "--json").stdout) == client.get("/v1/tiers").json()
        shown = run("tier", "show", NAME, "--json")
        assert json.loads(shown.stdout) == client.get(f"/v1/tiers/{NAME}").json()
        assert shown.returncode == 0

    def test_text_for_a_person_goes_to_standard_error(self) -> None:
        done = run("tier", "list")
        assert done.stdout == ""
        assert all(name in done.stderr for name in NAMES)

    def test_a_tier_is_shown_with_its_run_beside_the_estimate_of_today(self) -> None:
        found = read_evidence(NAMES[2])
        assert found
        answer = Planner(offline=True).estimate(parse_job(found["job"]))
        shown = run("tier", "show", NAMES[2])
        assert (shown.returncode, shown.stdout) == (0, "")
        for said in (
            "LoRA of rank 32 on 7 projections",
            f"ran: {found['sequence_length']:,} tokens, {found['num_hidden_layers']} layers, path eager, 2 steps of",
            f"allocated: {found['peak_allocated_bytes'] / 2**30:.2f} GiB at the peak, "
            f"estimated {answer.peak_allocated_bytes.expected / 2**30:.2f}",
            f"reserved: {found['peak_reserved_bytes'] / 2**30:.2f} GiB",
            f"device: {found['device_used_bytes'] / 2**30:.2f} GiB",
            f"host: {found['host']['rss_bytes'] / 2**30:.2f} GiB resident, "
            f"estimated {answer.host_bytes.expected / 2**30:.2f}",
            f"torch {found['stack']['torch']}",
            f"allocator: {found['measurements'][-1]['allocator']['retries']} retries",
        ):
            assert said in shown.stderr, said

    def test_a_planned_length_says_what_it_is_below(self) -> None:
        target = target_of(find_tier(NAMES[2]), Planner(offline=True))
        assert target.planned
        ((first, last),) = target.planned.does_not_fit
        shown = run("tier", "show", NAMES[2]).stderr
        assert f"{target.length:,} tokens, 3 % below {first - 1:,}" in shown
        assert f"a gap, {first:,} to {last:,}, that does not fit" in shown
        assert f"expected to fit is {target.planned.expected:,}" in shown

    def test_cards_of_the_claim_that_have_not_run_it_are_named(self) -> None:
        assert cards_not_run(find_tier(NAME), None) == ("H100-80GB", "H100-PCIe-80GB", "A100-80GB")
        assert cards_not_run(find_tier(NAME), read_evidence(NAME)) == ("H100-PCIe-80GB", "A100-80GB")
        assert "not measured: H100-PCIe-80GB, A100-80GB" in run("tier", "show", NAME).stderr

    def test_a_tier_without_evidence_is_shown_with_its_job_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ctxplan.tiers.read_evidence", lambda name: None)
        shown = CliRunner().invoke(application, ["tier", "show", NAMES[1]])
        assert shown.exit_code == 0
        assert "host memory not pinned" in shown.stderr
        assert "no evidence yet" in shown.stderr
        assert "ran:" not in shown.stderr

    @pytest.mark.parametrize("command", ["show", "confirm"])
    def test_an_unknown_tier_ends_with_2_and_names_the_known_ones(self, command: str) -> None:
        done = run("tier", command, "none")
        assert done.returncode == 2
        assert all(name in done.stderr for name in NAMES)

    @on_no_gpu
    def test_without_a_gpu_nothing_is_confirmed(self, tmp_path: Path) -> None:
        done = run("tier", "confirm", NAME, "--out", str(tmp_path))
        assert done.returncode == 2
        assert "GPU" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_committed_run_of_that_job_confirms_it_and_the_file_is_what_is_printed(
        self, measurements: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "tiers"
        done = run("tier", "confirm", NAME, "--from", str(measurements), "--out", str(out), "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads((out / f"{NAME}.json").read_text())
        assert document == json.loads(done.stdout)
        assert document["confirmed"] is True
        assert document["command"] == f"ctxplan tier confirm {NAME} --from runs.jsonl"
        assert [change["key"] for change in document["changes"]] == ["pin_host_memory"]
        assert [file.name for file in out.iterdir()] == [f"{NAME}.json"]

    def test_a_run_that_does_not_show_it_is_written_and_ends_with_1(self, measurements: Path, tmp_path: Path) -> None:
        row = json.loads(measurements.read_text())
        measurements.write_text(json.dumps({**row, "gpu": "NVIDIA H200"}))
        done = run("tier", "confirm", NAME, "--from", str(measurements), "--out", str(tmp_path))
        assert done.returncode == 1
        assert done.stderr.startswith("Not confirmed: NVIDIA H200 is none of the cards")
        assert json.loads((tmp_path / f"{NAME}.json").read_text())["confirmed"] is False

    def test_what_is_confirmed_is_not_overwritten_by_a_run_that_does_not_show_it(
        self, measurements: Path, tmp_path: Path
    ) -> None:
        run("tier", "confirm", NAME, "--from", str(measurements), "--out", str(tmp_path))
        confirmed = (tmp_path / f"{NAME}.json").read_text()
        row = json.loads(measurements.read_text())
        measurements.write_text(json.dumps({**row, "gpu": "NVIDIA H200"}))
        done = run("tier", "confirm", NAME, "--from", str(measurements), "--out", str(tmp_path))
        assert done.returncode == 1
        assert "was left as it is" in done.stderr
        assert (tmp_path / f"{NAME}.json").read_text() == confirmed
        assert json.loads((tmp_path / f"{NAME}.not-confirmed.json").read_text())["confirmed"] is False

    def test_a_confirmation_is_brought_up_to_date_from_itself(self, measurements: Path, tmp_path: Path) -> None:
        run("tier", "confirm", NAME, "--from", str(measurements), "--out", str(tmp_path))
        file = tmp_path / f"{NAME}.json"
        before = file.read_text()
        done = run("tier", "confirm", NAME, "--from", str(file), "--out", str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert file.read_text() == before

    def test_measurements_of_other_jobs_end_with_2(self, measurements: Path, tmp_path: Path) -> None:
        done = run("tier", "confirm", NAMES[2], "--from", str(measurements), "--out", str(tmp_path))
        assert done.returncode == 2
        assert "no measurement is of the job" in done.stderr

    @pytest.mark.parametrize(
        ("text", "said"), [("{", "line 1"), ('{"schema_version": 1}', "document 1"), (None, "file")]
    )
    def test_a_file_that_holds_no_measurements_ends_with_2(self, tmp_path: Path, text: str | None, said: str) -> None:
        file = tmp_path / "runs.jsonl"
        if text is not None:
            file.write_text(text)
        done = run("tier", "confirm", NAME, "--from", str(file), "--out", str(tmp_path))
        assert done.returncode == 2
        assert said in done.stderr


class TestLongest:
    @on_no_gpu
    def test_without_a_gpu_there_is_no_longest_context(self, tmp_path: Path) -> None:
        file = tmp_path / "point.json"
        file.write_text('{"model": "unsloth/Llama-3.2-1B-Instruct"}')
        done = run("longest", str(file))
        assert done.returncode == 2
        assert "this machine shows none" in done.stderr

    @pytest.mark.parametrize("text", ["", "{", '{"job": {"model": "x"}, "stops": 3}', None])
    def test_a_point_that_is_none_ends_with_2(self, tmp_path: Path, text: str | None) -> None:
        file = tmp_path / "point.json"
        if text is not None:
            file.write_text(text)
        assert run("longest", str(file)).returncode == 2
