"""Documents are read whole, from every format, and counted as the tokenizer counts one text at a time."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.tokens.counting import Options, Reading, count
from app.tokens.files import find_sources
from app.tokens.sources import SampleBy
from app.tokens.tables import ParquetFile
from app.tokens.tokenizer import ModelTokenizer
from ctxplan.token_lengths import DocumentsError
from tests.app.tiny_tokenizer import SENTENCES, TEMPLATE, length, tiny_tokenizer, write_tokenizer

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return ModelTokenizer(write_tokenizer(tmp_path_factory.mktemp("model")) / "tokenizer.json", "tiny")


def read(
    tokenizer: ModelTokenizer,
    *files: Path,
    options: Options | None = None,
    split: str | None = None,
    sample_by: SampleBy = "line",
) -> tuple[Counter[int], Reading]:
    """The counts, and the reading that gave them."""
    sources = find_sources([str(file) for file in files], split=split, sample_by=sample_by)
    reading = Reading(sources, tokenizer, options or Options())
    return count(reading.batches(), tokenizer), reading


def oracle(texts: Sequence[str], *, special: bool = True) -> Counter[int]:
    return Counter(length(text, special=special) for text in texts)


def json_lines(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def refused(tokenizer: ModelTokenizer, *files: Path, **options: Any) -> str:
    with pytest.raises(DocumentsError) as error:
        read(tokenizer, *files, **options)
    return str(error.value)


class TestFormats:
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), min_size=1, max_size=30))
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_text_counts_as_it_does_alone(
        self, tokenizer: ModelTokenizer, tmp_path: Path, texts: list[str]
    ) -> None:
        expected = oracle(texts)
        rows = [{"text": text} for text in texts]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
        options = Options(add_special_tokens=True)
        for file in (json_lines(tmp_path / "a.jsonl", rows), tmp_path / "a.parquet"):
            assert read(tokenizer, file, options=options)[0] == expected

    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json", "a.ndjson", "A.JSONL"])
    def test_json_lines_may_be_compressed_and_end_otherwise(
        self, tokenizer: ModelTokenizer, tmp_path: Path, name: str
    ) -> None:
        body = "\ufeff" + "".join(json.dumps({"text": text}) + "\r\n \n" for text in SENTENCES * 50)
        data = body.encode()
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zst"):
            data = pyarrow.Codec("zstd").compress(data, asbytes=True)
        (tmp_path / name).write_bytes(data)
        assert read(tokenizer, tmp_path / name)[0] == oracle(SENTENCES * 50)

    def test_an_arrow_file_is_read_with_a_footer_and_without(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        table = pyarrow.Table.from_pylist([{"id": n, "text": text} for n, text in enumerate(SENTENCES * 9)])
        for name, opened in (("a.arrow", pyarrow.ipc.new_file), ("b.arrow", pyarrow.ipc.new_stream)):
            with opened(str(tmp_path / name), table.schema) as out:
                out.write_table(table, max_chunksize=4)
        for name in ("a.arrow", "b.arrow"):
            assert read(tokenizer, tmp_path / name)[0] == oracle(SENTENCES * 9)

    def test_a_saved_dataset_is_what_datasets_wrote(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        """datasets itself, which takes seconds to import."""
        from datasets import Dataset, DatasetDict

        train = Dataset.from_dict({"text": list(SENTENCES) * 40})
        train.save_to_disk(tmp_path / "one", num_shards=3)
        test = Dataset.from_dict({"text": ["a"]})
        DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both")
        assert read(tokenizer, tmp_path / "one")[0] == oracle(SENTENCES * 40)
        assert read(tokenizer, tmp_path / "both")[0] == oracle([*SENTENCES * 40, "a"])
        assert read(tokenizer, tmp_path / "both", split="test")[0] == oracle(["a"])
        assert "train, test" in refused(tokenizer, tmp_path / "both", split="dev")

    @pytest.mark.parametrize(
        ("sample_by", "documents"),
        [
            ("line", ["one two", "three", "four", " five"]),
            ("paragraph", ["one two\nthree", "four\n five"]),
            ("document", ["one two\nthree\n\n\nfour\n five\n"]),
        ],
    )
    def test_text_is_taken_by_line_paragraph_or_file(
        self, tokenizer: ModelTokenizer, tmp_path: Path, sample_by: SampleBy, documents: list[str]
    ) -> None:
        file = tmp_path / "a.txt"
        file.write_text("one two\nthree\n\n\nfour\n five\n")
        assert read(tokenizer, file, sample_by=sample_by)[0] == oracle(documents)

    def test_several_files_are_one_corpus(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one\ntwo")
        rows = json_lines(tmp_path / "b.jsonl", [{"text": "three"}])
        counts, reading = read(tokenizer, tmp_path / "a.txt", rows)
        assert counts == oracle(["one", "two", "three"])
        assert reading.done_bytes() == sum(source.size_bytes for source in reading.sources) > 0

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("a.csv", b"x", "no known format"),
            ("a.parquet", b"x", "a.parquet: cannot be read"),
            ("a.parquet.gz", b"x", "no known format"),
            ("a.arrow", b"x", "a.arrow: cannot be read"),
            ("a.jsonl.gz", b"x", "a.jsonl.gz: cannot be read"),
            ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "a.jsonl.gz: cannot be read"),
            ("a.jsonl.gz", gzip.compress(bytes(999), mtime=0)[:12] + b"\xff" * 20, "a.jsonl.gz: cannot be read"),
            ("a.jsonl.zst", b"x", "a.jsonl.zst: cannot be read"),
            ("a.json", b'[{"text": "x"}]', "holds a JSON array"),
        ],
    )
    def test_a_file_that_is_not_what_its_name_says_is_named(
        self, tokenizer: ModelTokenizer, tmp_path: Path, name: str, content: bytes, told: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        assert told in refused(tokenizer, tmp_path / name)

    def test_what_is_not_there_is_named(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        for name in ("absent.jsonl", "x" * 300):
            assert "cannot be read" in refused(tokenizer, tmp_path / name)
        assert "state.json" in refused(tokenizer, tmp_path)

    @pytest.mark.parametrize("state", ["x", "[]", "{}", '{"_data_files": [{"filename": "../a.arrow"}]}'])
    def test_a_state_that_lists_no_files_of_its_own_is_refused(
        self, tokenizer: ModelTokenizer, tmp_path: Path, state: str
    ) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "a.arrow").write_bytes(b"")
        (tmp_path / "set" / "state.json").write_text(state)
        assert "state.json" in refused(tokenizer, tmp_path / "set")


class TestColumns:
    @pytest.mark.parametrize(
        ("row", "field", "document", "found"),
        [
            ({"text": "a b", "other": "c"}, (), "a b", "text"),
            ({"prompt": "a ", "completion": "b"}, (), "a b", "prompt,completion"),
            ({"id": 3, "body": "a b"}, (), "a b", "body"),
            ({"text": "a", "x": "b ", "y": "c"}, ("x", "y"), "b c", "x,y"),
            ({"messages": [{"role": "user", "content": "a"}, {"role": "b", "content": "c"}]}, (), "a\nc", "messages"),
            ({"conversations": [{"from": "human", "value": "a"}]}, (), "a", "conversations"),
            ({"m": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, ("m",), "a", "m"),
        ],
    )
    def test_the_document_is_found_or_named(
        self, tokenizer: ModelTokenizer, tmp_path: Path, row: Row, field: tuple[str, ...], document: str, found: str
    ) -> None:
        rows = [row, row]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
        for file in (json_lines(tmp_path / "a.jsonl", rows), tmp_path / "a.parquet"):
            counts, reading = read(tokenizer, file, options=Options(columns=field))
            assert counts == oracle([document, document])
            assert reading.fields == [found]

    @pytest.mark.parametrize(
        ("row", "field", "told"),
        [
            ({"a": "x", "b": "y"}, (), "field: "),
            ({}, (), "field: "),
            ({"instruction": "x", "input": "", "output": "y"}, (), "--field instruction,input,output"),
            ({"instruction": "x", "output": "y"}, (), "--field instruction,output"),
            ({"text": "x"}, ("txet",), 'did you mean "text"'),
            ({"text": None}, (), ":1: text: null is no text"),
            ({"text": 3}, (), ":1: text: 3 is no text"),
            ({"messages": []}, (), ":1: messages: a list of 0 is no conversation"),
            ({"messages": ["x"]}, (), ":1: messages[0]: "),
            ({"messages": [{"content": "x"}]}, (), "messages[0]: has no role"),
            ({"messages": [{"role": "user"}]}, (), "messages[0]: has no content"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
                (),
                "messages[0]: its content is no text",
            ),
            ({"text": "\ud800"}, (), "surrogate"),
        ],
    )
    def test_a_row_without_a_document_is_named_by_line_and_column(
        self, tokenizer: ModelTokenizer, tmp_path: Path, row: Row, field: tuple[str, ...], told: str
    ) -> None:
        file = json_lines(tmp_path / "a.jsonl", [row])
        assert told in refused(tokenizer, file, options=Options(columns=field))

    def test_a_row_of_a_table_is_named_by_its_number(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        table = pyarrow.Table.from_pylist([{"text": "a"}, {"text": None}])
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        assert "a.parquet: row 2: text: null is no text" in refused(tokenizer, tmp_path / "a.parquet")

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            (b"{", ":2: is no JSON object: "),
            (b"3", ":2: is no JSON object but 3"),
            (b'{"text": "\xff"}', ":2: is not UTF-8"),
            (b"[" * 100_000, ":2: is no JSON object"),
            (b'{"x": 1}', ":2: text: is missing"),
        ],
    )
    def test_a_line_that_is_no_row_is_named_and_left_out_only_where_that_is_asked(
        self, tokenizer: ModelTokenizer, tmp_path: Path, line: bytes, told: str
    ) -> None:
        file = tmp_path / "a.jsonl"
        file.write_bytes(b'{"text": "one"}\n' + line + b'\n{"text": "two"}\n')
        assert told in refused(tokenizer, file)
        counts, reading = read(tokenizer, file, options=Options(skip_bad=1))
        assert counts == oracle(["one", "two"])
        assert reading.skipped == 1
        file.write_bytes(file.read_bytes().replace(b'{"text": "two"}', line))
        assert ":3: " in refused(tokenizer, file, options=Options(skip_bad=1))


class TestSpecialTokens:
    def test_they_are_added_as_a_trainer_would(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        plain = json_lines(tmp_path / "a.jsonl", [{"text": "one"}])
        begun = json_lines(tmp_path / "b.jsonl", [{"text": "<s>one"}])
        assert read(tokenizer, plain)[0] == oracle(["one"])
        assert read(tokenizer, begun)[0] == oracle(["one"]) == oracle(["<s>one"], special=False)

    @pytest.mark.parametrize("special", [True, False])
    def test_they_are_added_as_it_is_asked(self, tokenizer: ModelTokenizer, tmp_path: Path, special: bool) -> None:
        file = json_lines(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])
        counts, _ = read(tokenizer, file, options=Options(add_special_tokens=special))
        assert counts == oracle(["one", "two"], special=special)

    def test_files_with_and_without_them_are_counted_each_in_its_way(self, tmp_path: Path) -> None:
        """Text beside conversations, whose template writes its own."""
        model = ModelTokenizer(write_tokenizer(tmp_path / "model", TEMPLATE) / "tokenizer.json", "tiny")
        text = json_lines(tmp_path / "a.jsonl", [{"text": "one"}])
        chat = json_lines(tmp_path / "b.jsonl", [{"messages": [{"role": "user", "content": "two"}]}])
        counts, _ = read(model, text, chat, text)
        assert counts == oracle(["one", "one"]) + oracle(["<s><|user|>\ntwo"], special=False)

    @pytest.mark.parametrize(("template", "special"), [("{{ bos_token }}", True), ("<s>{{ messages }}", False)])
    def test_text_gets_none_where_the_chat_template_spells_the_first_of_them(
        self, tmp_path: Path, template: str, special: bool
    ) -> None:
        model = ModelTokenizer(write_tokenizer(tmp_path / "model", template) / "tokenizer.json", "tiny")
        text = json_lines(tmp_path / "a.jsonl", [{"text": "one"}])
        assert read(model, text)[0] == oracle(["one"], special=special)


class TestMemory:
    def test_what_is_held_does_not_grow_with_the_file(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        """Some megabytes are needed before a difference would show, so this takes a few seconds."""
        peaks = []
        for megabytes in (3, 12):
            file = tmp_path / f"{megabytes}.jsonl"
            line = json.dumps({"text": " ".join(SENTENCES) * 6}) + "\n"
            with file.open("w") as out:
                out.writelines(line for _ in range(megabytes * 2**20 // len(line)))
            tracemalloc.start()
            counts, _ = read(tokenizer, file)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert counts.total() == megabytes * 2**20 // len(line)
        assert peaks[1] < peaks[0] * 1.2
        assert peaks[1] < 12 * 2**20

    def test_nor_with_a_row_group_of_any_size(self, tmp_path: Path) -> None:
        """Arrow's own memory, which Python does not trace."""
        pool, peaks = pyarrow.default_memory_pool(), []
        rng = random.Random(3)
        for rows in (4_000, 16_000):
            table = pyarrow.Table.from_pylist([{"text": rng.randbytes(512).hex()} for _ in range(rows)])
            pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=rows)
            del table
            before, held = pool.bytes_allocated(), 0
            for _ in ParquetFile(str(tmp_path / "a.parquet")).rows(("text",)):
                held = max(held, pool.bytes_allocated() - before)
            peaks.append(held)
        assert peaks[1] < peaks[0] * 1.2
        assert peaks[1] < 8 * 2**20

    def test_a_document_larger_than_a_batch_is_one_document(self, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
        file = tmp_path / "a.txt"
        file.write_text("a planner\n" * 150_000)
        counts, _ = read(tokenizer, file, sample_by="document")
        assert counts == oracle([file.read_text()])


class TestTokenizer:
    def test_limits_that_were_saved_with_it_cap_nothing(self, tmp_path: Path) -> None:
        saved = type(tiny_tokenizer()).from_str(tiny_tokenizer().to_str())
        saved.enable_truncation(4)
        saved.enable_padding(length=64)
        saved.save(str(tmp_path / "tokenizer.json"))
        model = ModelTokenizer(tmp_path / "tokenizer.json", "capped")
        texts = ["a", SENTENCES[0] * 10]
        assert model.lengths(texts, add_special_tokens=True) == [length(text) for text in texts]

    def test_a_text_that_it_cannot_encode_is_an_error_of_ours(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models

        Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
        model = ModelTokenizer(tmp_path / "tokenizer.json", "small")
        with pytest.raises(DocumentsError, match="cannot encode a document"):
            model.lengths(["b"], add_special_tokens=True)
