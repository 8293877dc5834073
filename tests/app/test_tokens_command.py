"""``ctxplan tokens`` as it is run: exit codes, where text goes, and the answer's shape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import typer
from rich.console import Console

from app.cli import application
from app.cli import tokens as command
from app.tokens.counting import Options, Reading, count
from app.tokens.files import find_sources
from app.tokens.schemas import TokensAnswer
from app.tokens.tokenizer import ModelTokenizer
from benchmarks.tokens import tokens_results
from ctxplan.token_lengths import TokenLengths
from tests.app.test_cli import run
from tests.app.tiny_tokenizer import SENTENCES, length, write_tokenizer

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "tokens.md").read_text(encoding="utf-8")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_tokenizer(tmp_path / "model"))


@pytest.fixture
def documents(tmp_path: Path) -> str:
    file = tmp_path / "documents.jsonl"
    texts = [*SENTENCES, " ".join(SENTENCES) * 90]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def asked(*arguments: str) -> dict[str, Any]:
    """The command's JSON; nothing else is written."""
    done = run("tokens", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_answer_has_the_shape_of_the_services_and_says_what_was_read(documents: str, model: str) -> None:
    answer = asked(documents, "--tokenizer", model)
    of_files = {key: answer.pop(key) for key in ("files", "fields", "skipped_rows", "notes")}
    assert of_files == {"files": [documents], "fields": ["text"], "skipped_rows": 0, "notes": []}
    jsonschema_rs.Draft202012Validator(TokensAnswer.model_json_schema()).validate(answer)
    assert answer["tokenizer"] == model
    assert answer["documents"] == 4
    assert answer["percentiles"]["max"] == length(" ".join(SENTENCES) * 90)


def test_a_tokenizer_is_named_by_its_file_as_well(documents: str, model: str) -> None:
    by_file = asked(documents, "--model", f"{model}/tokenizer.json")
    assert {**by_file, "tokenizer": model} == asked(documents, "--tokenizer", model)


def test_the_options_change_what_is_reckoned(documents: str, model: str) -> None:
    flags = ["--max-seq-lengths", "64, 8", "--max-cut", "0", "--per-device-train-batch-size", "3"]
    answer = asked(documents, "--tokenizer", model, *flags, "--no-special-tokens", "--field", "text")
    assert [cut["max_seq_length"] for cut in answer["cuts"]] == [8, 64]
    assert answer["cuts"][0]["dense"]["batches"] == 2
    assert answer["max_seq_length"]["recommended"] is None
    assert answer["percentiles"]["max"] == length(" ".join(SENTENCES) * 90, special=False)


def test_a_person_reads_the_advice_first_and_the_histogram_in_the_terminals_width(documents: str, model: str) -> None:
    for columns in (40, 80):
        done = run("tokens", documents, "--tokenizer", model, COLUMNS=str(columns))
        assert done.returncode == 0
        assert done.stdout == ""
        assert done.stderr.startswith("max_seq_length 3,200 cuts nothing")
        assert "█" in done.stderr
        assert max(len(line) for line in done.stderr.splitlines()) <= columns


def test_what_was_left_out_or_assumed_is_said(tmp_path: Path, model: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "x"}]}\n3\n')
    done = run("tokens", str(file), "--tokenizer", model, "--skip-bad", "1")
    told = " ".join(done.stderr.split())
    assert "rows left out as holding no document: 1" in told
    assert "counted by their contents alone" in told


def test_standard_input_is_read_as_json_lines(documents: str, model: str) -> None:
    done = run("tokens", "-", "--tokenizer", model, "--json", stdin=Path(documents).read_bytes())
    assert json.loads(done.stdout)["documents"] == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["DOCUMENTS"], "--tokenizer"),
        (["--tokenizer", "MODEL"], "FILE"),
        (["absent.jsonl", "--tokenizer", "MODEL"], "absent.jsonl: cannot be read"),
        (["DOCUMENTS", "--tokenizer", "./absent"], "tokenizer: "),
        (["DOCUMENTS", "--tokenizer", "DOCUMENTS"], "is no tokenizer.json"),
        (["DOCUMENTS", "--tokenizer", "nobody/nothing"], "tokenizer: "),
        (["DOCUMENTS", "--tokenizer", "a/b/c"], "tokenizer: "),
        (["DOCUMENTS", "--tokenizer", "MODEL", "--field", "body"], "field: "),
        (["DOCUMENTS", "--tokenizer", "MODEL", "--split", "train"], "split: "),
        (["DOCUMENTS", "--tokenizer", "MODEL", "--max-seq-lengths", "0"], "max_seq_lengths: "),
        (["DOCUMENTS", "--tokenizer", "MODEL", "--max-seq-lengths", "²"], "max_seq_lengths: "),
        (["DOCUMENTS", "--tokenizer", "MODEL", "--max-cut", "101"], "--max-cut"),
        (["DOCUMENTS", "--tokenizer", "MODEL", "--sample-by", "word"], "--sample-by"),
        (["-", "--tokenizer", "MODEL"], "there are no documents"),
    ],
)
def test_what_cannot_be_counted_ends_with_2_and_is_named(
    documents: str, model: str, arguments: list[str], told: str
) -> None:
    names = {"DOCUMENTS": documents, "MODEL": model}
    done = run("tokens", *(names.get(argument, argument) for argument in arguments), "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr


@pytest.mark.parametrize("library", ["tokenizers", "pyarrow"])
def test_a_library_that_is_not_there_is_named_with_what_to_install(tmp_path: Path, model: str, library: str) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"")
    code = (
        "import sys, importlib.util as u; found = u.find_spec\n"
        f"u.find_spec = lambda name, *rest: None if name == '{library}' else found(name, *rest)\n"
        "from app.cli import main; main()"
    )
    name = str(file) if library == "pyarrow" else "-"
    done = subprocess.run(
        [sys.executable, "-c", code, "tokens", name, "--tokenizer", model],
        input="",
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 2
    assert "ctxplan[tokens]" in done.stderr


def test_a_cached_models_tokenizer_is_found_by_its_hub_id(tmp_path: Path, documents: str) -> None:
    commit = "0" * 40
    root = tmp_path / "hub" / "models--someone--model"
    write_tokenizer(root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for name in ("someone/model", f"someone/model@{commit}"):
        done = run("tokens", documents, "--tokenizer", name, "--json", HF_HUB_CACHE=str(tmp_path / "hub"))
        assert json.loads(done.stdout)["tokenizer"] == name


def test_a_bar_is_drawn_on_a_terminal_alone(
    documents: str, model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer = ModelTokenizer(Path(model) / "tokenizer.json", "tiny")
    for is_terminal in (True, False):
        log = tmp_path / "log"
        with log.open("w") as out:
            console = Console(file=out, force_terminal=is_terminal, width=100)
            monkeypatch.setattr(command, "person_console", lambda console=console: console)
            reading = Reading(find_sources([documents]), tokenizer, Options())
            with command.progress(reading) as on_batch:
                counts = count(reading.batches(), tokenizer, on_batch)
        assert TokenLengths(counts).documents == 4
        assert ("4 documents" in log.read_text()) is is_terminal
        assert bool(log.read_text()) is is_terminal


def test_the_manual_explains_every_option_and_every_key_of_the_answer(documents: str, model: str) -> None:
    program: Any = typer.main.get_command(application)
    taken = {
        name
        for parameter in program.commands["tokens"].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and name != "--help"
    }
    options, answer = MANUAL.split("## The options")[1].split("## The answer")
    assert set(re.findall(r"`(--[\w-]+)`", options)) == taken
    told = set(re.findall(r"`(\w+)`", answer.split("## Over HTTP")[0]))
    found = asked(documents, "--tokenizer", model)
    for part in (found, found["percentiles"], found["cuts"][0], *found["cuts"][0].values(), found["max_seq_length"]):
        assert not isinstance(part, dict) or set(part) <= told, set(part) - told


@pytest.mark.slow
def test_the_benchmark_counts_the_documents_and_memory_stays_flat() -> None:
    """20 MB through the whole command and through the bare library: some ten seconds."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("a process's own peak is read from /proc")
    results = {result.what: result for result in tokens_results(size_mb=20)}
    assert results["the second over the first"].measured > 0.5, "0.8 is promised, and a test shares its machine"
    growth = results["more than for a quarter of the file"]
    assert growth.passed, growth.text
