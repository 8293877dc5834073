"""What reads files: launchers' configs, checkpoints, tokenizers, documents, calibrations, measurements, and keys."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from app.jsontext import read_json
from app.keys.form import is_key, new_key
from app.keys.sessions import Sessions
from app.preflight.question import job_of, model_of
from app.preflight.request import read_request
from app.tokens.chat import read_template
from app.tokens.counting import Options, Reading, count
from app.tokens.files import find_sources
from app.tokens.tokenizer import ModelTokenizer
from benchmarks.fuzz.mutation import broken, json_text, wrong
from ctxplan import Planner
from ctxplan.checkpoint import read_directory, read_header
from ctxplan.models import resolve_model
from estimator.calibration.document import content_id, read_calibration
from estimator.errors import CtxplanError
from estimator.families import read_config
from estimator.job import parse_job
from probes.rows import read_measurements

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    "unsloth": "unsloth.yaml",
    "trl": "trl.yaml",
    "axolotl": "axolotl.yaml",
    "llamafactory": "llamafactory.yaml",
    "llamafactory-v1": "llamafactory-v1.yaml",
}
MODEL = "unsloth/Llama-3.2-1B-Instruct"
MODEL_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024},
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "model.embed_tokens.weight": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]},
    "model.layers.0.mlp.up_proj.weight": {"dtype": "U8", "shape": [8, 1], "data_offsets": [16, 24]},
    "model.layers.1.mlp.up_proj.weight": {"dtype": "F32", "shape": [1], "data_offsets": [24, 28]},
}
INDEX: dict[str, Any] = {
    "metadata": {"total_size": 28},
    "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"},
}
ROWS = [
    {"text": "a b c"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"prompt": "a", "completion": "b"},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader of files.

    Attributes:
        inputs: what it is fed. read: reads it, and says in a word what came of it; a `CtxplanError` is a refusal.
        good: what it has to read. weight: its share of all files.
    """

    name: str
    inputs: st.SearchStrategy[bytes]
    read: Callable[[bytes], str]
    good: Sequence[bytes] = field(default=())
    weight: int = 1


def targets(folder: Path) -> list[Target]:
    """All of them. ``folder``: where files may be written that a reader opens by name."""
    return [
        *(_config(tool, name) for tool, name in CONFIGS.items()),
        _job(),
        _model_config(),
        _checkpoint(folder / "checkpoint"),
        _index(folder / "index"),
        _tokenizer(folder / "tokenizer"),
        *(_documents(folder / "documents", ending) for ending in (".jsonl", ".txt", ".jsonl.gz", ".parquet", ".arrow")),
        _calibration(),
        _measurements(folder / "measurements"),
        _keys(),
    ]


def _config(tool: str, name: str) -> Target:
    planner = Planner(offline=True, allow_local=False)
    text = (ROOT / "examples" / "configs" / name).read_bytes()
    value = yaml.safe_load(text)

    def read(body: bytes) -> str:
        given = {"config": body.decode("utf-8", "surrogateescape"), "file": "config.yaml", "tool": tool}
        question = read_request(given)
        facts = planner.facts(model_of(question))
        job, _ = job_of(question, facts)
        return planner.estimate(job, facts).verdict

    inputs = st.one_of(wrong([value], _yaml), wrong([value], json_text), broken(st.just(text)))
    return Target(name=f"{tool} configs", inputs=inputs, read=read, good=[text], weight=5)


def _yaml(value: Any) -> bytes:
    return yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True).encode("utf-8", "surrogatepass")


def _job() -> Target:
    planner = Planner(offline=True, allow_local=False)
    jobs = [json.loads(file.read_bytes()) for file in sorted((ROOT / "examples").glob("*.json"))]

    def read(body: bytes) -> str:
        return planner.estimate(parse_job(read_json(body))).verdict

    return Target(
        name="jobs", inputs=wrong(jobs, json_text), read=read, good=[json_text(job) for job in jobs], weight=6
    )


def _model_config() -> Target:
    planner = Planner(offline=True, allow_local=False)

    def read(body: bytes) -> str:
        config = read_json(body)
        read_config(config)
        return planner.estimate(parse_job({"model": config, "max_seq_length": 2048})).verdict

    configs = [MODEL_CONFIG, {**MODEL_CONFIG, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
                              "moe_intermediate_size": 32, "head_dim": 16}]  # fmt: skip
    return Target(
        name="models' config.json",
        inputs=wrong(configs, json_text),
        read=read,
        good=[json_text(MODEL_CONFIG)],
        weight=6,
    )


def _safetensors(header: Any) -> bytes:
    """A file with this header, and the 28 bytes of `HEADER`'s own tensors."""
    text = json_text(header)
    return struct.pack("<Q", len(text)) + text + bytes(28)


def _checkpoint(folder: Path) -> Target:
    folder.mkdir()
    file = folder / "model.safetensors"
    (folder / "config.json").write_bytes(json_text(MODEL_CONFIG))

    def read(body: bytes) -> str:
        file.write_bytes(body)
        read_header(file)
        resolve_model(str(folder), offline=True)
        return "read"

    return Target(
        name="safetensors headers",
        inputs=wrong([HEADER], _safetensors),
        read=read,
        good=[_safetensors(HEADER)],
        weight=8,
    )


def _index(folder: Path) -> Target:
    folder.mkdir()
    architecture = read_config(MODEL_CONFIG)
    for shard in INDEX["weight_map"].values():
        (folder / str(shard)).write_bytes(_safetensors(HEADER))

    def read(body: bytes) -> str:
        (folder / "model.safetensors.index.json").write_bytes(body)
        return "read" if read_directory(folder, architecture) else "none"

    return Target(name="safetensors indexes", inputs=wrong([INDEX], json_text), read=read, weight=3)


def _tokenizer(folder: Path) -> Target:
    from tests.app.tiny_tokenizer import tiny_tokenizer

    folder.mkdir()
    file = folder / "tokenizer.json"
    value = json.loads(tiny_tokenizer().to_str())
    beside = {"bos_token": "<s>", "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"}

    def read(body: bytes) -> str:
        file.write_bytes(body)
        (folder / "tokenizer_config.json").write_bytes(body)
        read_template(folder)
        (folder / "tokenizer_config.json").write_bytes(json_text(beside))
        ModelTokenizer(file, "fuzzed").lengths(["a b c", "", "\x00 é 漢"], add_special_tokens=True)
        return "read"

    inputs = st.one_of(wrong([value], json_text), wrong([beside], json_text))
    return Target(name="tokenizers", inputs=inputs, read=read, good=[json_text(value)], weight=4)


def _documents(folder: Path, ending: str) -> Target:
    from tests.app.tiny_tokenizer import write_tokenizer

    folder.mkdir(exist_ok=True)
    model = ModelTokenizer(write_tokenizer(folder) / "tokenizer.json", "tiny")
    file = folder / f"documents{ending}"

    def read(body: bytes) -> str:
        file.write_bytes(body)
        sources = find_sources([str(file)])
        try:
            count(Reading(sources, model, Options(skip_bad=3)).batches(), model)
        finally:
            file.unlink()
        return "read"

    good = _tables(ending)
    text = wrong(ROWS, lambda value: json_text(value) + b"\n")
    inputs = {
        ".jsonl": st.lists(text, max_size=4).map(b"".join),
        ".txt": st.one_of(
            st.binary(max_size=300), st.text(max_size=300).map(lambda one: one.encode("utf-8", "replace"))
        ),
        ".jsonl.gz": st.one_of(broken(st.just(good[0])), text.map(gzip.compress)),
    }
    return Target(
        name=f"documents ({ending})",
        inputs=inputs.get(ending, st.one_of(broken(st.sampled_from(good)), st.binary(max_size=300))),
        read=read,
        good=good,
        weight=4 if ending == ".jsonl" else 2,
    )


def _tables(ending: str) -> list[bytes]:
    """The same rows in each format."""
    import pyarrow
    import pyarrow.parquet

    texts = ["a b c", "d", "e f"]
    lines = b"".join(json_text({"text": text}) + b"\n" for text in texts)
    table = pyarrow.table({"text": texts})
    written = pyarrow.BufferOutputStream()
    if ending == ".parquet":
        pyarrow.parquet.write_table(table, written)
    else:
        with pyarrow.ipc.new_stream(written, table.schema) as stream:
            stream.write_table(table)
    tables = written.getvalue().to_pybytes()
    return {".jsonl": [lines], ".txt": [b"a b\nc\n"], ".jsonl.gz": [gzip.compress(lines)]}.get(ending, [tables])


def _calibration() -> Target:
    value = json.loads((ROOT / "ctxplan" / "calibration.json").read_bytes())

    def read(body: bytes) -> str:
        document = read_json(body)
        try:
            read_calibration(document)
        except CtxplanError:
            if not isinstance(document, dict):
                raise
        # Its id is its content's: whoever changes one writes another id.
        try:
            document["id"] = content_id(document)
        except ValueError:
            return "not finite"
        calibration = read_calibration(document)
        return Planner(offline=True, calibration=calibration).estimate({"model": MODEL}).verdict

    return Target(name="calibrations", inputs=wrong([value], json_text), read=read, good=[json_text(value)], weight=2)


def _measurements(folder: Path) -> Target:
    folder.mkdir()
    file = folder / "rows.jsonl"
    first = sorted((ROOT / "evidence" / "measurements").glob("*.jsonl"))[0]
    rows = [json.loads(line) for line in first.read_bytes().splitlines()[:4]]

    def read(body: bytes) -> str:
        file.write_bytes(body)
        return "read" if read_measurements(file) else "empty"

    inputs = wrong(rows, lambda value: json_text(value) + b"\n")
    return Target(name="measurements", inputs=inputs, read=read, good=[json_text(rows[0]) + b"\n"], weight=4)


def _keys() -> Target:
    sessions = Sessions(b"s" * 32, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    good = [new_key().encode(), sessions.begin("a-key").encode()]

    def read(body: bytes) -> str:
        text = body.decode("latin-1")
        session = sessions.read(text)
        sessions.end(text)
        return "opens" if is_key(text) or session else "opens nothing"

    inputs = st.one_of(
        broken(st.sampled_from(good)), st.text(max_size=80).map(lambda one: one.encode("utf-8", "replace"))
    )
    return Target(name="keys and cookies", inputs=inputs, read=read, good=good, weight=4)
