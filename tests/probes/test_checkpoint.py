"""Synthetic checkpoints: true names and shapes, in a file that takes no room."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ctxplan.checkpoint import read_directory
from ctxplan.models import resolve_model
from estimator import UnsupportedArchitecture, parameter_count, read_config
from estimator.weights import checkpoint_storage, layer_weight_bytes
from probes.child.checkpoint import write_checkpoint
from probes.child.config import config_of
from probes.errors import PointError

pytest.importorskip("transformers")

PUBLISHED = (
    "meta-llama/Llama-3.2-1B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-30B-A3B",
    "google/gemma-2-2b-it",
    "google/gemma-3-1b-it",
    "microsoft/phi-4",
    "ibm-granite/granite-3.1-8b-instruct",
    "openai/gpt-oss-20b",
)
VECTORS = 8
"""Norms and biases of one decoder layer, at most."""
NF4 = ("unsloth/Llama-3.3-70B-Instruct-bnb-4bit", "unsloth/Qwen3-8B-bnb-4bit", "unsloth/gemma-3-1b-it-bnb-4bit")


@pytest.mark.parametrize("model", [*PUBLISHED, *NF4])
def test_a_checkpoint_has_the_bytes_that_the_planner_counts_for_its_layers(model: str, tmp_path: Path) -> None:
    config = config_of(model, 2)
    write_checkpoint(config, tmp_path)
    architecture = read_config(config)
    stored = read_directory(tmp_path, architecture)
    assert stored is not None
    counted = replace(architecture, stored=None)
    storage = checkpoint_storage(counted.quantization) if counted.quantization else "bf16"
    # The planner rounds a layer's norms up to the allocator's 512 bytes together, the file has each by itself.
    assert 0 <= sum(stored.layers) - layer_weight_bytes(counted, storage, storage) <= 2 * VECTORS * 512


@pytest.mark.parametrize("model", PUBLISHED[:3])
def test_a_checkpoint_at_full_depth_has_every_parameter_of_the_model(model: str, tmp_path: Path) -> None:
    write_checkpoint(config_of(model, None), tmp_path)
    architecture = resolve_model(model, offline=True).architecture
    with (tmp_path / "model.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        size = file.seek(0, os.SEEK_END)
    assert size - header == 2 * parameter_count(architecture)


def test_a_checkpoint_of_seventy_billion_parameters_takes_less_than_ten_megabytes(tmp_path: Path) -> None:
    write_checkpoint(config_of(NF4[0], None), tmp_path)
    file = os.stat(tmp_path / "model.safetensors")
    assert file.st_size > 39e9
    assert file.st_blocks * 512 < 10e6


def test_transformers_reads_back_what_was_written(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_checkpoint(config_of("Qwen/Qwen2.5-0.5B-Instruct", 1), tmp_path)
    model, loading = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert model.config.num_hidden_layers == 1
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    letters = "theletters" * 10
    assert len(AutoTokenizer.from_pretrained(tmp_path)(letters)["input_ids"]) == len(letters)


def test_experts_in_nf4_are_refused_and_the_way_out_is_named(tmp_path: Path) -> None:
    config = {**config_of("mistralai/Mixtral-8x7B-Instruct-v0.1", 1)}
    config["quantization_config"] = config_of(NF4[0], 1)["quantization_config"]
    with pytest.raises(UnsupportedArchitecture, match="16-bit model"):
        write_checkpoint(config, tmp_path / "checkpoint")
    assert not any(tmp_path.iterdir())


def test_more_layers_than_the_model_has_are_refused() -> None:
    with pytest.raises(PointError, match=r"job\.num_hidden_layers"):
        config_of("Qwen/Qwen2.5-0.5B-Instruct", 25)
