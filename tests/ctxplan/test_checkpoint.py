"""Reading safetensors headers: whose bytes are whose, and what a hostile file is told."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxplan.checkpoint import MAX_HEADER_BYTES, Tensor, loaded_bytes, read_directory, read_header, read_hub
from ctxplan.models import resolve_model
from estimator.architecture import Architecture
from estimator.errors import ArchitectureError, CtxplanError, UnknownModel
from estimator.families import read_config
from tests.estimator.configs import small_config

SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}

Shapes = dict[str, tuple[str, list[int]]]


def header_of(tensors: Shapes) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header


def write_file(path: Path, tensors: Shapes) -> None:
    """A safetensors file whose data is a hole."""
    header = header_of(tensors)
    write_raw(path, header, max((info["data_offsets"][1] for n, info in header.items() if n[0] != "_"), default=0))


def write_raw(path: Path, header: Any, data_bytes: int) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + data_bytes)


def sixteen_bit(architecture: Architecture, dtype: str = "BF16") -> Shapes:
    """The tensors of a small llama, as a 16-bit checkpoint has them."""
    hidden, vocabulary = architecture.hidden_size, architecture.vocab_size
    tensors: Shapes = {"model.embed_tokens.weight": (dtype, [vocabulary, hidden])}
    for index in range(architecture.num_hidden_layers):
        for linear in architecture.layers[0].linears:
            name = f"model.layers.{index}.{linear.path}.weight"
            tensors[name] = (dtype, [linear.out_features, linear.in_features])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{index}.{norm}.weight"] = (dtype, [hidden])
    tensors["model.norm.weight"] = (dtype, [hidden])
    tensors["lm_head.weight"] = (dtype, [vocabulary, hidden])
    return tensors


def quantised(tensors: Shapes, keep: tuple[str, ...] = ()) -> Shapes:
    """The same as bitsandbytes stores it in NF4 with double quantisation, some linears kept."""
    packed: Shapes = {}
    for name, (dtype, shape) in tensors.items():
        if "_proj" not in name or name.removesuffix(".weight") in keep:
            packed[name] = (dtype, shape)
            continue
        blocks = prod(shape) // 64
        packed[name] = ("U8", [prod(shape) // 2, 1])
        packed[f"{name}.absmax"] = ("U8", [blocks])
        packed[f"{name}.nested_absmax"] = ("F32", [-(-blocks // 256)])
        packed[f"{name}.nested_quant_map"] = ("F32", [256])
        packed[f"{name}.quant_map"] = ("F32", [16])
        packed[f"{name}.quant_state.bitsandbytes__nf4"] = ("U8", [83])
    return packed


@pytest.fixture
def llama() -> Architecture:
    return read_config(small_config("llama"))


class TestACheckpoint:
    def test_in_one_file_is_summed_by_layer(self, tmp_path, llama):
        write_file(tmp_path / "model.safetensors", sixteen_bit(llama))
        stored = read_directory(tmp_path, llama)
        assert stored is not None
        linears = sum(2 * linear.weights for linear in llama.layers[0].linears)
        assert stored.layers == (linears + 2 * 512,) * 5
        assert stored.embedding == stored.lm_head == 2 * 320 * 64
        assert stored.other == 512
        assert stored.sixteen_bit_modules == ()

    def test_in_float32_is_counted_as_it_is_loaded(self, tmp_path, llama):
        write_file(tmp_path / "model.safetensors", sixteen_bit(llama, "F32"))
        (tmp_path / "other").mkdir()
        write_file(tmp_path / "other" / "model.safetensors", sixteen_bit(llama))
        assert read_directory(tmp_path, llama) == read_directory(tmp_path / "other", llama)

    def test_in_shards_is_the_same(self, tmp_path, llama):
        tensors = sixteen_bit(llama)
        names = list(tensors)
        shards = {
            "model-00001-of-00002.safetensors": names[::2],
            "model-00002-of-00002.safetensors": names[1::2],
        }
        for file, members in shards.items():
            write_file(tmp_path / file, {name: tensors[name] for name in members})
        index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        (tmp_path / "single").mkdir()
        write_file(tmp_path / "single" / "model.safetensors", tensors)
        assert read_directory(tmp_path, llama) == read_directory(tmp_path / "single", llama)

    def test_in_nf4_lists_the_linears_it_kept(self, tmp_path):
        architecture = read_config(small_config("llama", quantization_config=NF4))
        kept = ("model.layers.1.mlp.down_proj", "model.layers.3.self_attn.q_proj")
        write_file(tmp_path / "model.safetensors", quantised(sixteen_bit(architecture), kept))
        stored = read_directory(tmp_path, architecture)
        assert stored is not None
        assert stored.sixteen_bit_modules == kept
        assert stored.layers[0] == stored.layers[2] == stored.layers[4]
        down = 112 * 64
        # Packed weight, absmax, nested absmax, two maps and the offset, against the same weight in 16 bit.
        packed = down // 2 + 512 + 512 + 1024 + 512 + 512
        assert stored.layers[1] - stored.layers[0] == 2 * down - packed

    def test_of_a_tied_model_has_no_head(self, tmp_path):
        tied = read_config(small_config("llama", tie_word_embeddings=True))
        write_file(tmp_path / "model.safetensors", sixteen_bit(tied))
        stored = read_directory(tmp_path, tied)
        assert stored is not None
        assert stored.lm_head == 0

    def test_without_safetensors_is_none(self, tmp_path, llama):
        assert read_directory(tmp_path, llama) is None

    def test_of_an_index_alone_is_none(self, tmp_path, llama):
        index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert read_directory(tmp_path, llama) is None

    def test_comes_with_the_facts_of_its_directory(self, tmp_path, llama):
        (tmp_path / "config.json").write_text(json.dumps(small_config("llama")))
        write_file(tmp_path / "model.safetensors", sixteen_bit(llama))
        stored = resolve_model(str(tmp_path)).architecture.stored
        assert stored is not None
        assert len(stored.layers) == 5


class TestACheckpointThatIsNotOfItsConfig:
    def test_with_more_layers_is_refused(self, tmp_path, llama):
        write_file(tmp_path / "model.safetensors", sixteen_bit(llama))
        with pytest.raises(ArchitectureError, match="it has layer 3, and its config 3 layers"):
            read_directory(tmp_path, read_config(small_config("llama", num_hidden_layers=3)))

    def test_with_fewer_layers_is_refused(self, tmp_path, llama):
        write_file(tmp_path / "model.safetensors", sixteen_bit(llama))
        with pytest.raises(ArchitectureError, match="no tensors of layer 5"):
            read_directory(tmp_path, read_config(small_config("llama", num_hidden_layers=7)))


_BAD_HEADERS: dict[str, Any] = {
    "no JSON": b"{not json",
    "nothing": b"",
    "a list": [],
    "too deep": b"[" * 200_000,
    "no description": {"a": 3},
    "an unknown dtype": {"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 1]}},
    "a dtype that is no string": {"a": {"dtype": ["U8"], "shape": [1], "data_offsets": [0, 1]}},
    "a negative size": {"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}},
    "a size that is no number": {"a": {"dtype": "U8", "shape": ["1"], "data_offsets": [0, 1]}},
    "no shape": {"a": {"dtype": "U8", "data_offsets": [0, 1]}},
    "bytes of another shape": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1]}},
    "no offsets": {"a": {"dtype": "U8", "shape": [1]}},
    "offsets in the wrong order": {"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 0]}},
    "a gap": {"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}},
    "an overlap": {
        "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
    },
    "an end beyond the file": {"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}},
}


class TestAHostileFile:
    @pytest.mark.parametrize("kind", _BAD_HEADERS)
    def test_is_refused_by_name(self, tmp_path, llama, kind):
        write_raw(tmp_path / "model.safetensors", _BAD_HEADERS[kind], 1)
        with pytest.raises(ArchitectureError, match=r"model\.safetensors cannot be used"):
            read_directory(tmp_path, llama)

    @pytest.mark.parametrize("length", [0, 1, 2**63, MAX_HEADER_BYTES + 1, 1000])
    def test_with_an_impossible_length_is_not_read(self, tmp_path, length):
        path = tmp_path / "model.safetensors"
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(ArchitectureError, match="length is not possible"):
            read_header(path)

    @given(content=st.binary(max_size=64))
    def test_of_any_bytes_is_an_error_of_ours(self, tmp_path_factory, content):
        path = tmp_path_factory.mktemp("any") / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(CtxplanError):
            read_header(path)

    def test_that_cannot_be_opened_is_refused(self, tmp_path):
        with pytest.raises(UnknownModel, match="cannot be read"):
            read_header(tmp_path / "nowhere.safetensors")

    @pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", 3])
    def test_named_outside_of_the_directory_is_not_opened(self, tmp_path, llama, name):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ArchitectureError, match="not the name of a file beside it"):
            read_directory(tmp_path, llama)

    @pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
    def test_with_a_broken_index_is_refused(self, tmp_path, llama, index):
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ArchitectureError, match=r"index\.json cannot be used"):
            read_directory(tmp_path, llama)

    def test_with_a_shard_missing_names_it(self, tmp_path, llama):
        write_file(tmp_path / "a.safetensors", {"a": ("U8", [1])})
        index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UnknownModel, match=r"b\.safetensors is missing"):
            read_directory(tmp_path, llama)


class TestTheHub:
    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ctxplan.hub._connect", lambda: None)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)

    def serve(self, monkeypatch: pytest.MonkeyPatch, tensors: Shapes) -> None:
        infos = {name: SimpleNamespace(dtype=dtype, shape=shape) for name, (dtype, shape) in tensors.items()}
        metadata = SimpleNamespace(files_metadata={"model.safetensors": SimpleNamespace(tensors=infos)})
        monkeypatch.setattr("huggingface_hub.HfApi.get_safetensors_metadata", lambda *args, **kwargs: metadata)

    def test_gives_the_same_as_the_files(self, tmp_path, llama, monkeypatch):
        self.serve(monkeypatch, sixteen_bit(llama))
        write_file(tmp_path / "model.safetensors", sixteen_bit(llama))
        assert read_hub("someone/model", llama) == read_directory(tmp_path, llama)

    def test_with_a_dtype_that_is_none_is_refused(self, llama, monkeypatch):
        self.serve(monkeypatch, {**sixteen_bit(llama), "x": ("U8", [1])})
        self.serve(monkeypatch, {"x": ("Q4", [1])})
        with pytest.raises(ArchitectureError, match="someone/model"):
            read_hub("someone/model", llama)

    def test_that_fails_is_an_error_of_ours(self, llama, monkeypatch):
        def fail(*args: Any, **kwargs: Any) -> None:
            raise ValueError("no")

        monkeypatch.setattr("huggingface_hub.HfApi.get_safetensors_metadata", fail)
        with pytest.raises(UnknownModel, match="ValueError"):
            read_hub("someone/model", llama)

    def test_is_not_asked_offline(self, llama, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(UnknownModel, match="HF_HUB_OFFLINE"):
            read_hub("someone/model", llama)


@pytest.mark.parametrize(
    ("tensor", "size"),
    [
        (Tensor("a.weight", "BF16", (256,)), 512),
        (Tensor("a.weight", "BF16", (257,)), 1024),
        (Tensor("a.weight.absmax", "U8", (1,)), 512),
        (Tensor("a.weight.nested_absmax", "F32", (256,)), 1024),
        (Tensor("a.weight_scale_inv", "F32", (256,)), 1024),
        (Tensor("a.weight", "F8_E4M3", (512,)), 512),
        (Tensor("a.weight", "F32", (256,)), 512),
        (Tensor("a.weight", "BF16", ()), 512),
        (Tensor("a.weight", "BF16", (0, 4)), 0),
    ],
)
def test_a_tensor_takes_what_the_allocator_gives_it(tensor, size):
    assert loaded_bytes(tensor) == size
