"""Reading a config file: what safe_load reads, with lines, in bounded time and memory whatever the file holds."""

from __future__ import annotations

import json
import re
import resource
import time
import tracemalloc
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.readers.document import MAX_CONFIG_BYTES, read_document
from app.readers.errors import ConfigError, Place

BOMB = "\n".join(
    [
        "a: &a [x, x, x, x, x, x, x, x, x]",
        *(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)
MERGES = "\n".join(
    [
        "a: &a {x: 1}",
        *(f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)
HOSTILE = {
    "aliases that stand for a billion values": BOMB.encode(),
    "merges that stand for a billion values": MERGES.encode(),
    "an alias of itself": b"a: &a [*a]",
    "a merge of itself": b"a: &a {<<: *a}",
    "two hundred thousand brackets": b"[" * 200_000,
    "two hundred thousand braces": b"a: " + b"{a: " * 50_000,
    "indentation a thousand deep": b"\n".join(b" " * i + b"a:" for i in range(600)),
    "sixty thousand keys": b"\n".join(b"k%d: 1" % i for i in range(30_000)),
    "a number of a hundred thousand digits": b"a: " + b"9" * 100_000,
    "a base 60 number of a hundred thousand digits": b"a: 1" + b":59" * 60_000,
    "a file larger than a config": b"#" * (MAX_CONFIG_BYTES + 1),
    "a quoted scalar that never ends": b'a: "' + b"x" * 200_000,
    "JSON that is nested two hundred thousand deep": b'{"a": ' + b"[" * 200_000,
    "tens of thousands of anchors": b"\n".join(b"k%d: &a%d 1" % (i, i) for i in range(15_000)),
    "an explicit key that is a mapping": b"? {a: 1}\n: 2",
    "a Python object": b"a: !!python/object/apply:os.system [true]",
    "a tag that nobody knows": b"a: !secret x",
    "a set": b"a: !!set {x}",
    "a date that no calendar has": b"a: 2026-13-45",
    "binary that is no base 64": b"a: !!binary x",
    "two documents": b"a: 1\n---\nb: 2\n",
    "half a document": b"a: [1, 2",
    "a tab for indentation": b"a:\n\tb: 1",
    "an unknown alias": b"a: *nobody",
    "control characters": b"a: \x01",
    "bytes that are not UTF-8": b"a: \xff\xfe",
    "UTF-16": "a: 1".encode("utf-16"),
    "a list": b"- a\n- b",
    "a word": b"hello",
    "nothing": b"",
    "comments alone": b"# nothing here\n",
    "a key given twice in JSON": b'{"a": 1, "a": 2}',
    "a merge of a word": b"<<: word",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_no_config_is_refused_at_its_place_in_bounded_time_and_memory(body: bytes) -> None:
    tracemalloc.start()
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(ConfigError) as refused:
        read_document(body, "train.json" if body.startswith(b"{") else "train.yaml")
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_utime - began
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(refused.value).startswith("train.")
    assert taken < 3
    assert peak_bytes < 64 * 2**20


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
def test_both_parsers_of_yaml_refuse_a_bomb_at_once(monkeypatch: pytest.MonkeyPatch, loader: type) -> None:
    monkeypatch.setattr("app.readers.document._LOADER", loader)
    for body in (BOMB.encode(), MERGES.encode(), b"[" * 200_000):
        began = time.process_time()
        with pytest.raises(ConfigError):
            read_document(body, "train.yaml")
        assert time.process_time() - began < 3


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        (b"a: 1\nb: \xff\n", 2, "not UTF-8: byte 8"),
        ("a: 1\nb: é\nc: \x07".encode(), 3, "the character U+0007"),
        (b"\x00", 1, "the character U+0000"),
    ],
)
def test_what_no_text_holds_is_refused_at_its_line(
    monkeypatch: pytest.MonkeyPatch, loader: type, body: bytes, line: int, what: str
) -> None:
    monkeypatch.setattr("app.readers.document._LOADER", loader)
    with pytest.raises(ConfigError, match=re.escape(what)) as refused:
        read_document(body, "train.yaml")
    assert str(refused.value).startswith(f"train.yaml:{line}: ")


def test_a_document_says_the_line_of_every_key() -> None:
    document = read_document(
        b"# a comment\nmodel: x\ntraining:\n  batch_size: 2\n  list:\n  - {a: 1}\n  - {a: 2}\n", "t.yaml"
    )
    assert document.place(("model",)) == Place("t.yaml", 2)
    assert document.place(("training", "batch_size")) == Place("t.yaml", 4)
    assert document.place(("training", "list", "1", "a")) == Place("t.yaml", 7)


def test_a_name_says_which_of_the_two_a_file_is_and_else_its_first_character_does() -> None:
    flow = b"{a: 1, b: [x, y]}"
    assert read_document(flow, "t.yml").values == {"a": 1, "b": ["x", "y"]}
    assert read_document(b'{"a": 1}', "standard input").values == {"a": 1}
    assert read_document(b"a: 1", "standard input").values == {"a": 1}
    with pytest.raises(ConfigError, match=r"t\.json"):
        read_document(flow, "t.json")


def test_json_has_lines_too() -> None:
    body = b'{\n "model": "a\\"{b",\n "list": [1, {"x": [2],\n  "y": 3}],\n\n "deep": {"z": null}\n}'
    document = read_document(body, "t.json")
    assert document.values == json.loads(body)
    places = {".".join(path): line for path, line in document.lines.items()}
    assert places == {"model": 2, "list": 3, "list.1.x": 3, "list.1.y": 4, "deep": 6, "deep.z": 6}


def test_a_key_that_is_absent_is_placed_at_the_mapping_that_lacks_it() -> None:
    document = read_document(b"a: 1\ntraining:\n  b: 2\n", "t.yaml")
    assert document.place(("training", "absent")).line == 2
    assert document.place(("absent",)).line is None


def test_a_key_given_twice_is_the_last_one_as_for_safe_load_and_is_noted() -> None:
    document = read_document(b"a: 1\nb: 2\na: 3\n", "t.yaml")
    assert document.values == {"a": 3, "b": 2}
    assert document.notes == ("line 3: a is given twice, and the last one stands",)


def test_merges_and_aliases_are_written_out_as_safe_load_does() -> None:
    body = b"base: &base {r: 8, alpha: 16, nested: &n [1, 2]}\nlora:\n  <<: *base\n  r: 32\nmore: *n\n"
    body += b"both: {<<: [{a: 1}, {a: 2, b: 3}]}\n"
    assert read_document(body, "t.yaml").values == yaml.safe_load(body)


def test_a_mark_at_the_start_of_a_file_is_left_out() -> None:
    assert read_document(b"\xef\xbb\xbfa: 1\n", "t.yaml").values == {"a": 1}
    assert read_document(b'\xef\xbb\xbf{"a": 1}', "t.json").lines == {("a",): 1}


scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=12), values, min_size=1, max_size=6))
def test_every_yaml_that_safe_load_reads_is_read_the_same(config: dict) -> None:
    text = yaml.safe_dump(config, allow_unicode=True)
    assert read_document(text.encode("utf-8", "replace"), "t.yaml").values == yaml.safe_load(text)


finite = values.filter(lambda value: "Infinity" not in json.dumps(value))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=12), finite, min_size=1, max_size=6))
def test_every_key_of_json_has_the_line_on_which_it_stands(config: dict) -> None:
    text = json.dumps(config, indent=1)
    document = read_document(text.encode(), "t.json")
    lines = text.splitlines()
    for path, line in document.lines.items():
        assert json.dumps(path[-1]) + ":" in lines[line - 1]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_a_document_or_a_config_error(body: bytes) -> None:
    with suppress(ConfigError):
        assert read_document(body, "t.yaml").file == "t.yaml"
