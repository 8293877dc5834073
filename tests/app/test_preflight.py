"""``ctxplan preflight`` as a command: verdicts, exit codes, formats, and how long it takes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.preflight import Question, TokenReport, check
from app.readers import read
from app.readers.document import read_document
from ctxplan import Planner
from tests.app.test_cli import run

ROOT = Path(__file__).resolve().parents[2]
MODEL = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
LONG = f"model: {MODEL}\ngpu: H100-80GB\nmax_seq_length: 89389\nr: 32\n"
SMALL = "model: unsloth/Llama-3.2-1B-Instruct\ntraining:\n  max_seq_length: 4096\n"
TOO_LARGE = "model: meta-llama/Llama-3.1-8B-Instruct\nload_in_16bit: true\ngpu: T4-16GB\n"
LORA = "adapter: lora\nlora_r: 8\nlora_target_linear: true\n"
UNSURE = SMALL + "lora: {use_dora: true}\n"


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(text: str, name: str = "train.yaml") -> str:
        file = tmp_path / name
        file.write_text(text)
        return str(file)

    return write


def answer_of(text: str, **asked: Any) -> Any:
    return check(Question(reading=read(read_document(text.encode(), "train.yaml")), **asked), Planner(offline=True))


class TestVerdicts:
    def test_the_70b_job_is_not_refused_on_the_path_that_fits(self, config: Any) -> None:
        done = run("preflight", config(LONG), "--json")
        assert done.returncode in (0, 3)
        assert json.loads(done.stdout)["verdict"] in ("fits", "uncertain")

    def test_the_70b_job_does_not_fit_on_the_dense_path_of_a_bare_loop(self, config: Any) -> None:
        done = run("preflight", config(LONG + "padding_free: false\n"), "--json")
        answer = json.loads(done.stdout)
        assert done.returncode == 1
        assert answer["limited_by"] == "gpu"
        assert answer["suggestions"][0]["verdict"] == "fits"
        assert "dense-path" in [finding["rule"] for finding in answer["findings"]]

    def test_the_70b_job_is_limited_by_a_host_of_64_gib(self, config: Any) -> None:
        done = run("preflight", config(LONG), "--host-ram", "64GiB", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["limited_by"] == "host"

    def test_a_setting_that_needs_more_makes_a_job_that_fits_uncertain(self) -> None:
        answer = answer_of(UNSURE)
        assert answer.estimate.verdict == "fits"
        assert (answer.verdict, answer.exit_code) == ("uncertain", 3)
        assert [doubt.key for doubt in answer.unsure] == ["lora.use_dora"]

    def test_a_setting_that_needs_less_leaves_a_job_that_fits_alone(self) -> None:
        answer = answer_of(SMALL + "lora: {finetune_mlp_modules: false}\n")
        assert (answer.verdict, answer.unsure) == ("fits", ())

    def test_a_setting_that_needs_less_makes_a_job_that_does_not_fit_uncertain(self) -> None:
        text = "base_model: meta-llama/Llama-3.1-8B-Instruct\nsequence_len: 65536\nlora_mlp_kernel: false\n" + LORA
        assert answer_of(text).verdict == "does_not_fit"
        assert answer_of(text + "activation_offloading: true\n").verdict == "uncertain"

    def test_a_setting_that_cannot_save_enough_leaves_a_job_that_does_not_fit_alone(self) -> None:
        text = "base_model: meta-llama/Llama-3.1-8B-Instruct\ngradient_checkpointing: true\n" + LORA
        far = answer_of(text + "sequence_len: 262144\n")
        assert [doubt.key for doubt in far.reading.doubts] == ["lora_mlp_kernel"]
        assert (far.verdict, far.unsure) == ("does_not_fit", ())
        near = answer_of(text + f"sequence_len: {far.longest.expected + 100}\n")
        assert near.estimate.verdict == "does_not_fit"
        assert [doubt.key for doubt in near.unsure] == ["lora_mlp_kernel"]
        assert near.verdict == "uncertain"

    def test_a_job_that_generates_has_the_phases_of_its_estimate(self) -> None:
        answer = answer_of("model: unsloth/Llama-3.2-1B-Instruct\nmode: generate\nmax_new_tokens: 64\n")
        assert [phase.phase for phase in answer.phases] == [phase.phase for phase in answer.estimate.phases]
        assert answer.longest is None
        assert answer.verdict == "fits"

    def test_a_loss_without_all_logits_makes_only_a_job_uncertain_that_would_fit_without_them(self) -> None:
        trl = "model_name_or_path: Qwen/Qwen3-0.6B\ndtype: bfloat16\nuse_peft: true\nlora_target_modules: [q_proj]\n"
        wide = answer_of(trl + "max_length: 16384\n", gpu="RTX-4090-24GB")
        assert wide.estimate.verdict == "does_not_fit"
        assert wide.verdict == "uncertain"
        hopeless = answer_of(trl + "max_length: 16384\ngradient_checkpointing: false\n", gpu="RTX-4090-24GB")
        assert hopeless.verdict == "does_not_fit"

    def test_the_longest_sample_decides_where_the_data_is_known(self) -> None:
        data = TokenReport(documents=100, tokens=10**6, p50=500, p99=3000, longest=3500)
        known, unknown = answer_of(SMALL, tokens=data), answer_of(SMALL)
        phases = {phase.phase: phase for phase in known.phases}
        assert phases["longest_sample"].sequence_length == 3500
        assert phases["steady_state"].sequence_length == 500
        assert phases["steady_state"].allocated_bytes < phases["longest_sample"].allocated_bytes
        assert known.estimate.peak_allocated_bytes.expected < unknown.estimate.peak_allocated_bytes.expected

    def test_packed_rows_are_full_whatever_the_samples_are(self) -> None:
        data = TokenReport(documents=100, tokens=10**6, p50=50, p99=100, longest=120)
        assert answer_of(SMALL + "  packing: true\n", tokens=data).estimate.job.sequence_length == 4096

    def test_samples_that_nothing_cuts_are_as_long_as_the_data_says(self, config: Any) -> None:
        text = "model_name_or_path: Qwen/Qwen3-0.6B\nmax_length: null\nuse_peft: true\nlora_target_modules: [q_proj]\n"
        data = TokenReport(documents=10, tokens=10**5, p50=500, p99=9000, longest=9999)
        assert answer_of(text, tokens=data).estimate.job.max_seq_length == 9999
        done = run("preflight", config(text))
        assert done.returncode == 2
        assert "--tokens-report" in done.stderr

    def test_evaluation_and_the_save_are_parts_of_the_run(self) -> None:
        answer = answer_of(SMALL + "  eval_steps: 10\n  batch_size: 1\n")
        phases = {phase.phase: phase for phase in answer.phases}
        assert list(phases) == ["load", "first_step", "steady_state", "longest_sample", "evaluation", "save"]
        assert phases["save"].allocated_bytes < phases["longest_sample"].allocated_bytes
        assert phases["load"].allocated_bytes <= phases["save"].allocated_bytes
        assert phases["first_step"].allocated_bytes <= phases["longest_sample"].allocated_bytes
        assert phases["save"].host_bytes

    def test_modules_that_nobody_names_are_those_of_peft_for_the_architecture(self) -> None:
        text = "model_name_or_path: Qwen/Qwen3-0.6B\ndtype: bfloat16\nuse_peft: true\n"
        assert answer_of(text).estimate.job.target_modules == ("q_proj", "v_proj")

    def test_a_contradiction_that_the_planner_finds_is_told_at_the_configs_own_line(self, config: Any) -> None:
        file = config("base_model: openai/gpt-oss-20b\n" + LORA + "flash_attention: true\n")
        done = run("preflight", file)
        assert done.returncode == 2
        assert f"{file}:5: flash_attention: attention sinks" in done.stderr

    def test_an_unknown_model_is_told_at_its_line(self, config: Any) -> None:
        file = config("# x\nmodel: nobody/nothing\ntraining: {}\n")
        done = run("preflight", file, "--offline")
        assert done.returncode == 2
        assert f"{file}:2: model:" in done.stderr


class TestExitCodes:
    def test_0_fits_1_does_not_3_uncertain(self, config: Any) -> None:
        for text, code in ((SMALL, 0), (TOO_LARGE, 1), (UNSURE, 3)):
            done = run("preflight", config(text), "--json")
            assert done.returncode == json.loads(done.stdout)["exit_code"] == code
            assert done.stderr == ""

    def test_an_uncertain_job_passes_where_only_one_that_does_not_fit_is_to_fail(self, config: Any) -> None:
        assert run("preflight", config(UNSURE), "--fail-on", "does_not_fit").returncode == 0
        assert run("preflight", config(TOO_LARGE), "--fail-on", "does_not_fit").returncode == 1

    def test_a_grave_finding_fails_a_job_that_fits_only_where_that_is_asked_for(self, config: Any) -> None:
        text = "model: unsloth/Llama-3.2-1B-Instruct\n"
        text += "training: {max_seq_length: 40000, batch_size: 1, gradient_checkpointing: true}\n"
        assert run("preflight", config(text), "--gpu", "H100-80GB").returncode == 0
        assert run("preflight", config(text), "--gpu", "H100-80GB", "--strict").returncode == 1

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--tool", "axolot"], "axolotl"),
            (["--gpu", "H1000"], "gpu"),
            (["--gpu", "{"], "gpu|line"),
            (["--host-ram", "much"], "--host-ram"),
            (["--host-ram", "1KiB"], "--host-ram"),
            (["--confidence", "2"], "--confidence"),
            (["--format", "xml"], "format"),
            (["--fail-on", "never"], "fail-on"),
            (["--tokens-report", "/nowhere/report.json"], "/nowhere/report.json"),
        ],
    )
    def test_a_wrong_flag_ends_with_2_and_is_named(self, config: Any, arguments: list[str], named: str) -> None:
        done = run("preflight", config(SMALL), *arguments)
        assert done.returncode == 2
        assert any(word in done.stderr for word in named.split("|"))

    def test_a_config_that_cannot_be_read_ends_with_2(self, tmp_path: Path) -> None:
        for file in (tmp_path, tmp_path / "absent.yaml"):
            done = run("preflight", str(file))
            assert done.returncode == 2
            assert "cannot be read" in done.stderr

    def test_a_bomb_ends_with_2_and_names_its_line(self, config: Any) -> None:
        file = config(
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
        )
        done = run("preflight", file)
        assert done.returncode == 2
        assert f"{file}:" in done.stderr
        assert "too many values" in done.stderr

    def test_a_report_that_is_none_ends_with_2_and_names_its_file_and_key(self, config: Any) -> None:
        report = config('{"documents": 1, "tokens": 2}', "report.json")
        done = run("preflight", config(SMALL), "--tokens-report", report)
        assert done.returncode == 2
        assert f"{report}: percentiles:" in done.stderr


class TestInput:
    def test_a_config_comes_from_standard_input_too(self) -> None:
        done = run("preflight", "-", "--json", stdin=SMALL.encode())
        assert json.loads(done.stdout)["config"] == {
            "file": "standard input",
            "tool": "unsloth",
            "versions": {"unsloth": "2026.10.9"},
        }

    def test_a_config_without_a_model_is_checked_for_the_one_that_is_named(self, config: Any) -> None:
        file = config("training: {max_seq_length: 2048}\n")
        assert "--model" in run("preflight", file).stderr
        assert run("preflight", file, "--model", "unsloth/Llama-3.2-1B-Instruct").returncode == 0

    @pytest.mark.parametrize(
        ("text", "size_bytes"),
        [("64GiB", 64 * 2**30), ("64gb", 64 * 10**9), ("1.5TiB", 3 * 2**39), (str(2**36), 2**36)],
    )
    def test_the_hosts_ram_is_taken_in_the_usual_units(self, config: Any, text: str, size_bytes: int) -> None:
        answer = json.loads(run("preflight", config(SMALL), "--host-ram", text, "--json").stdout)
        assert answer["job"]["host_ram_bytes"] == size_bytes

    def test_the_report_of_the_tokens_command_is_taken_as_it_is(self, config: Any) -> None:
        from ctxplan.token_lengths import Question as Lengths
        from ctxplan.token_lengths import TokenLengths

        report = TokenLengths.of([100, 200, 300, 4000]).report(Lengths())
        file = config(json.dumps(report.to_json()), "report.json")
        answer = json.loads(run("preflight", config(SMALL), "--tokens-report", file, "--json").stdout)
        assert answer["tokens"] == {"documents": 4, "tokens": 4600, "p50": 200, "p99": 4000, "longest": 4000}
        assert answer["job"]["sequence_length"] == 4000

    def test_no_gpu_is_the_default_one_and_said(self) -> None:
        assert "no GPU is named: planned for H100-80GB" in answer_of(SMALL).assumptions
        assert "no GPU is named: planned for H100-80GB" not in answer_of(SMALL, gpu="T4-16GB").assumptions


class TestText:
    def test_text_for_a_person_goes_to_standard_error_with_the_verdict_first(self, config: Any) -> None:
        done = run("preflight", config(UNSURE))
        assert done.stdout == ""
        assert done.stderr.startswith("Uncertain:")
        assert "lora.use_dora" in done.stderr
        assert "longest_sample" in done.stderr

    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_text_for_a_person_keeps_to_the_terminal(self, config: Any, columns: int) -> None:
        done = run("preflight", config(LONG + "padding_free: false\n"), COLUMNS=str(columns))
        assert max(len(line) for line in done.stderr.splitlines()) <= columns


def test_a_whole_preflight_is_quick(config: Any) -> None:
    """0.35 s on an idle core of the development machine; the bound leaves room for a busy one."""
    file = config(LONG)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        assert run("preflight", file, "--json").returncode == 0
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.5 * 4


class TestHttp:
    @pytest.mark.parametrize("text", [SMALL, TOO_LARGE, UNSURE, LONG])
    def test_the_service_gives_the_answer_of_the_command(self, client: TestClient, config: Any, text: str) -> None:
        file = config(text)
        told = json.loads(run("preflight", file, "--json", "--gpu", "H100-80GB").stdout)
        asked = {"config": text, "file": file, "gpu": "H100-80GB"}
        assert client.post("/v1/preflight", json=asked).json() == told

    def test_a_config_may_be_an_object(self, client: TestClient) -> None:
        config = {"base_model": "Qwen/Qwen3-8B", "adapter": "lora", "lora_r": 8, "lora_target_linear": True}
        answer = client.post("/v1/preflight", json={"config": config, "fail_on": "does_not_fit", "strict": True}).json()
        assert answer["config"]["tool"] == "axolotl"
        assert answer["asked"]["max_seq_length"] == 512

    def test_a_broken_config_is_a_problem_that_names_line_and_key(self, client: TestClient) -> None:
        asked = {"config": "model: x\ntraining:\n  batchsize: 1\n", "file": "train.yaml"}
        told = client.post("/v1/preflight", json=asked)
        problem = told.json()
        assert (told.status_code, problem["code"]) == (422, "invalid-config")
        assert problem["detail"].startswith("train.yaml:3: training.batchsize")
        assert problem["errors"][0]["key"] == "training.batchsize"

    @pytest.mark.parametrize(
        ("body", "key"),
        [
            ({}, "config"),
            ({"config": 1}, "config"),
            ({"config": "a: 1", "tool": "make"}, "tool"),
            ({"config": SMALL, "gpu": "H1000"}, "gpu"),
            ({"config": SMALL, "tokens": {"documents": 1}}, "percentiles"),
            ({"config": SMALL, "nothing": 1}, "nothing"),
            ({"config": "\ud800"}, "config"),
            ({"config": SMALL, "model": "/etc"}, "model"),
        ],
    )
    def test_a_wrong_request_is_a_problem_that_names_its_key(self, client: TestClient, body: Any, key: str) -> None:
        told = client.post("/v1/preflight", content=json.dumps(body), headers={"content-type": "application/json"})
        assert told.status_code == 422
        assert told.json()["errors"][0]["key"] == key
