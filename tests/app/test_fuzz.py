"""A small share of ``make fuzz``: every reader of files and every kind of request; and the figures of the whole."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from app.tokens.files import find_sources
from app.tokens.tokenizer import ModelTokenizer
from benchmarks.fuzz import report
from benchmarks.fuzz.files import fuzz_files
from benchmarks.fuzz.record import GROWTH_BYTES, Record
from benchmarks.fuzz.requests import fuzz_requests
from benchmarks.fuzz.service import serving
from benchmarks.fuzz.targets import targets
from ctxplan.token_lengths import DocumentsError
from estimator.calibration.document import content_id, read_calibration
from estimator.errors import CalibrationError, UnknownModel
from probes.errors import EvidenceError
from probes.rows import read_measurements
from tests.app.tiny_tokenizer import tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
FILES, REQUESTS = 100, 60


def test_every_file_is_read_or_refused_by_name() -> None:
    records = fuzz_files(FILES, start=11)
    assert sum(one.count for one in records) >= FILES
    assert {one.what: one.faults for one in records if one.faults} == {}


def test_every_reader_of_files_reads_what_is_good(tmp_path: Path) -> None:
    for target in targets(tmp_path):
        for body in target.good:
            assert target.read(body), target.name


def test_every_request_is_answered_as_the_document_says(tmp_path: Path) -> None:
    with serving() as service:
        records = fuzz_requests(service, REQUESTS, start=11)
        pages = int(Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii").split()[1])
        planning = service.rss_bytes() - pages * os.sysconf("SC_PAGE_SIZE")
        assert planning > 2**24, "the process that plans is counted too"
    assert {one.what: one.faults for one in records if one.faults} == {}
    assert sum(one.count for one in records) >= REQUESTS
    outcomes = {name for one in records for name in one.outcomes}
    assert {"2xx", "4xx", "no key", "no scope"} <= outcomes


def test_the_figures_in_the_manual_are_of_enough_input_and_of_no_fault() -> None:
    assert report.faults_of(report.DOCUMENT.read_text(encoding="utf-8")) == []


def test_an_arrow_file_whose_offsets_point_outside_of_it_is_refused(tmp_path: Path) -> None:
    """The library itself takes them as they are, and reads what is not its own."""
    table = pyarrow.table({"text": ["one", "two", "three"]})
    written = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(written, table.schema) as stream:
        stream.write_table(table)
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    good = written.getvalue().to_pybytes()
    assert good.count(offsets) == 1
    file = tmp_path / "documents.arrow"
    file.write_bytes(good.replace(offsets, struct.pack("<4i", 0, 3, 2**30, 2**31 - 1)))
    (source,) = find_sources([str(file)])
    with pytest.raises(DocumentsError, match="cannot be read"):
        list(source.rows(None))


def test_a_tokenizer_that_its_library_gives_up_on_is_refused(tmp_path: Path) -> None:
    """A template of special tokens that are not there: the library panics, and a panic is no Exception."""
    tokenizer = json.loads(tiny_tokenizer().to_str())
    special = {"SpecialToken": {"id": "<none>", "type_id": 0}}
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [special], "pair": [special]}
    tokenizer["post_processor"]["special_tokens"] = {}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(UnknownModel, match=r"is no tokenizer\.json"):
        ModelTokenizer(file, "panics")


def test_a_calibration_with_a_number_beyond_every_float_is_refused() -> None:
    calibration = json.loads((ROOT / "ctxplan" / "calibration.json").read_bytes())
    for residuals in numbers_of(calibration):
        residuals[0] = 10**400
    calibration["id"] = content_id(calibration)
    with pytest.raises(CalibrationError, match="is no calibration"):
        read_calibration(calibration)


def test_a_measurement_whose_job_says_no_mode_is_refused(tmp_path: Path) -> None:
    first = sorted((ROOT / "evidence" / "measurements").glob("*.jsonl"))[0]
    row = json.loads(first.read_bytes().splitlines()[0])
    del row["job"]["mode"]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(EvidenceError, match="mode"):
        read_measurements(file)


def numbers_of(value: Any) -> Iterator[list[Any]]:
    """Every list of numbers in a document."""
    if isinstance(value, list) and value and isinstance(value[0], int | float):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from numbers_of(one)


def records(count: int) -> list[Record]:
    one = Record(what="things", first_rss_bytes=10, last_rss_bytes=10)
    one.outcomes["refused"] = count
    return [one]


def document(files: list[Record], requests: list[Record]) -> str:
    return f"<!-- fuzz -->\n{report.block(files, requests, 1)}<!-- /fuzz -->"


def test_figures_of_a_small_run_or_with_a_fault_do_not_pass() -> None:
    enough = report.ENOUGH
    assert report.faults_of(document(records(enough), records(enough))) == []
    assert report.faults_of(document(records(10), records(enough))) == [f"fewer than {enough:,} files"]
    bad, grown = records(enough), records(enough)
    bad[0].fault("ValueError at x.py:1", "", b"", None)
    grown[0].last_rss_bytes += 2 * GROWTH_BYTES
    assert report.faults_of(document(bad, records(enough))) == ["things: 1 faults"]
    assert report.faults_of(document(grown, records(enough))) == ["things: grew"]
    assert report.faults_of("") == ["docs/security.md has no figures of make fuzz"]


def test_what_showed_a_fault_is_kept(tmp_path: Path) -> None:
    record = Record(what="some things")
    for body in (b"first", b"second"):
        record.fault("ValueError at x.py:1", "", body, tmp_path / "kept")
    assert [file.read_bytes() for file in (tmp_path / "kept").iterdir()] == [b"first"]
    assert json.dumps(sorted(record.faults)) == '["ValueError at x.py:1"]'
