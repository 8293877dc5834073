"""``ctxplan plan`` and ``POST /v1/plans``: the same advice as the library's, with exit codes and problems."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import ctxplan
from ctxplan import Planner
from estimator import estimate, parse_job
from estimator.job import RULES
from tests.app.jobs import CONFIG, DOES_NOT_FIT, FITS, MODEL, WRONG_JOBS
from tests.app.test_cli import ROOT, run
from tests.app.test_service import assert_matches, schema_of

DENSE: dict[str, Any] = {
    "model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit",
    "gpu": "H100-80GB",
    "max_seq_length": 89_389,
    "r": 32,
    "padding_free": False,
}
NOWHERE = {**DENSE, "max_seq_length": 2**27}
CARD = 5 * 2**30

JOBS = {
    "a job that fits": FITS,
    "a job that does not": DOES_NOT_FIT,
    "the dense 70B": DENSE,
    "a job that fits nowhere": NOWHERE,
    "a config object": {"model": CONFIG},
    "a described GPU": {"model": MODEL, "gpu": {"name": "My Card", "total_bytes": CARD}, "max_seq_length": 65_536},
    "plain transformers": {"model": MODEL, "framework": "transformers", "load_in_16bit": True},
    "full fine-tuning": {"model": MODEL, "full_finetuning": True, "gpu": "T4-16GB"},
    "generation": {"model": MODEL, "mode": "generate", "max_new_tokens": 16},
}


@pytest.fixture
def dense_file(tmp_path: Path) -> Path:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(DENSE))
    return file


class TestService:
    @pytest.mark.parametrize("name", JOBS)
    def test_an_answer_matches_the_openapi_document(self, client: TestClient, name: str) -> None:
        response = client.post("/v1/plans", json=JOBS[name])
        assert response.status_code == 200, response.text
        assert_matches(schema_of(client, "/v1/plans", "post"), response.json())

    @pytest.mark.parametrize("name", JOBS)
    def test_the_service_and_the_library_give_the_same_advice(self, client: TestClient, name: str) -> None:
        assert client.post("/v1/plans", json=JOBS[name]).json() == ctxplan.plan(JOBS[name]).to_json()

    def test_the_dense_70b_is_told_to_turn_block_compile_off(self, client: TestClient) -> None:
        answer = client.post("/v1/plans", json=DENSE).json()
        assert (answer["verdict"], answer["best_verdict"]) == ("does_not_fit", "fits")
        assert answer["proposals"][0]["changes"] == {"block_compile": False}

    def test_a_trainer_is_told_of_padding_free_batches_first(self, client: TestClient) -> None:
        answer = client.post("/v1/plans?trainer=sft", json=DENSE).json()
        assert answer["trainer"] == "sft"
        assert answer["proposals"][0]["changes"] == {"padding_free": True}

    def test_a_limit_keeps_the_first_proposals(self, client: TestClient) -> None:
        everything = client.post("/v1/plans?limit=50", json=DENSE).json()["proposals"]
        assert client.post("/v1/plans?limit=1", json=DENSE).json()["proposals"] == everything[:1]

    def test_the_job_of_a_proposal_estimates_to_what_it_says(self, client: TestClient) -> None:
        for proposal in client.post("/v1/plans", json=DENSE).json()["proposals"]:
            answer = client.post("/v1/estimates", json=proposal["job"]).json()
            for key in ("peak_allocated_bytes", "verdict", "limited_by", "evidence", "host_bytes"):
                assert answer[key] == proposal[key]
            merged = client.post("/v1/estimates", json={**DENSE, **proposal["changes"]}).json()
            assert merged["peak_allocated_bytes"] == proposal["peak_allocated_bytes"]

    @pytest.mark.parametrize("name", WRONG_JOBS)
    def test_a_wrong_job_is_the_problem_that_an_estimate_of_it_is(self, client: TestClient, name: str) -> None:
        job, code, key = WRONG_JOBS[name]
        body = json.dumps(job)
        response = client.post("/v1/plans", content=body, headers={"content-type": "application/json"})
        problem = response.json()
        assert problem["code"] == code
        assert any(part in problem["detail"] for part in key.split("|"))

    @pytest.mark.parametrize("query", ["trainer=me", "limit=0", "limit=51", "limit=x"])
    def test_a_wrong_parameter_is_a_problem_that_names_it(self, client: TestClient, query: str) -> None:
        response = client.post(f"/v1/plans?{query}", json=FITS)
        assert response.status_code == 422
        assert response.json()["code"] == "invalid-request"
        assert query.partition("=")[0] in response.json()["errors"][0]["key"]


class TestCommand:
    def test_json_alone_goes_to_standard_output_and_a_change_that_helps_ends_with_0(self, dense_file: Path) -> None:
        done = run("plan", str(dense_file), "--json")
        assert json.loads(done.stdout) == ctxplan.plan(DENSE).to_json()
        assert done.stderr == ""
        assert done.returncode == 0

    def test_the_text_names_the_first_change_and_its_code(self, dense_file: Path) -> None:
        done = run("plan", str(dense_file))
        assert done.stdout == ""
        assert done.stderr.startswith("Does not fit")
        assert "1. block_compile: false" in done.stderr
        assert 'os.environ["UNSLOTH_BLOCK_COMPILE"] = "0"' in done.stderr

    def test_the_trainer_decides_which_change_comes_first(self, dense_file: Path) -> None:
        done = run("plan", str(dense_file), "--trainer", "sft", "--limit", "1", "--json")
        [first] = json.loads(done.stdout)["proposals"]
        assert first["changes"] == {"padding_free": True}

    def test_a_host_that_is_too_small_has_its_numbers_in_the_text(self) -> None:
        model = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
        done = run("plan", "--model", model, "--max-seq-length", "89389", "--host-ram-bytes", str(64 * 2**30))
        told = " ".join(done.stderr.split())
        assert re.search(r"limited by the host \([\d.]+ GiB of RAM needed, of 64\.00\)", told)

    def test_a_job_that_nothing_makes_fit_ends_with_1(self) -> None:
        done = run("plan", "-", stdin=json.dumps(NOWHERE).encode())
        assert "Nothing that is known here makes it fit" in done.stderr
        assert done.returncode == 1

    def test_a_job_that_at_best_is_uncertain_ends_with_3(self) -> None:
        job = uncertain_job()
        done = run("plan", "-", "--json", stdin=json.dumps(job).encode())
        assert json.loads(done.stdout)["best_verdict"] == "uncertain"
        assert done.returncode == 3

    def test_a_job_that_fits_is_told_how_to_use_its_room(self) -> None:
        done = run("plan", "-", stdin=json.dumps(FITS).encode())
        longest = ctxplan.max_context(FITS).safe
        assert f"max_seq_length: {longest:,}" in done.stderr
        assert done.returncode == 0

    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_text_keeps_to_the_terminal(self, dense_file: Path, columns: int) -> None:
        done = run("plan", str(dense_file), COLUMNS=str(columns))
        assert max(len(line) for line in done.stderr.splitlines()) <= columns

    @pytest.mark.parametrize(
        ("flags", "key"), [(["--trainer", "me"], "trainer"), (["--limit", "0"], "limit"), (["--gpu", "H1000"], "gpu")]
    )
    def test_a_wrong_flag_ends_with_2_and_names_its_key(self, dense_file: Path, flags: list[str], key: str) -> None:
        done = run("plan", str(dense_file), "--json", *flags)
        assert done.returncode == 2
        assert done.stdout == ""
        assert key in done.stderr


def uncertain_job() -> dict[str, Any]:
    """A job with nothing left to change on the largest card, at a length between what is safe and what is expected."""
    job: dict[str, Any] = {
        "model": MODEL,
        "gpu": "B200-180GB",
        "r": 8,
        "target_modules": ["q_proj"],
        "optim": "sgd",
        "unsloth_tiled_mlp": True,
        "pin_host_memory": False,
        "offload_embedding": True,
    }
    found = ctxplan.max_context(job)
    job["max_seq_length"] = (found.safe + found.expected) // 2
    facts = Planner(offline=True).facts(MODEL)
    assert estimate(parse_job(job), facts.architecture, Planner().calibration).verdict == "uncertain"
    return job


class TestManual:
    TEXT = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")

    def test_the_example_is_what_the_command_writes(self) -> None:
        check = [sys.executable, "scripts/plan", "--check"]
        done = subprocess.run(check, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert "1. block_compile: false" in self.TEXT

    def test_every_key_that_can_change_is_in_the_table_and_no_other(self) -> None:
        table = self.TEXT.split("## What is looked at")[1].split("##")[0]
        named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
        source = (ROOT / "estimator" / "advise" / "options.py").read_text(encoding="utf-8")
        settable = {key for key in RULES if re.search(rf'"{key}": |^    key = "{key}"', source, re.MULTILINE)}
        # Set beside another key, to undo or to keep what that one stands for.
        assert named == settable - {"gradient_accumulation_steps", "load_in_16bit"} | {"full_finetuning", "r"}

    def test_every_key_of_an_answer_is_explained(self) -> None:
        explained = set(re.findall(r"`(\w+)`", self.TEXT.split("## The answer")[1]))
        answer = ctxplan.plan(DENSE).to_json()
        assert set(answer) | set(answer["proposals"][0]) | set(answer["proposals"][0]["price"]) <= explained | {
            "hardware",
            "quality",
            "effort",
            "speed",
        }
