"""Parameter counts, held against what transformers builds; and cutting a model to its first layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from estimator.architecture import StoredWeights
from estimator.errors import JobError
from estimator.families import read_config
from estimator.parameters import parameter_count, with_layers
from tests.estimator.configs import BASE, all_small_configs, small_config

CATALOGUE = Path(__file__).parents[2] / "ctxplan" / "catalogue.jsonl"
ENTRIES = [json.loads(line) for line in CATALOGUE.read_text(encoding="utf-8").splitlines()]
SMALL = dict(all_small_configs())
NOT_SHAPES = ("rope_scaling", "quantization_config")
"""Keys without a part in the count, which transformers checks more closely than a catalogue keeps them."""


def built_by_transformers(config: dict[str, Any]) -> int:
    """Parameters of the model that transformers makes of a config, on the meta device."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    known = {key: value for key, value in config.items() if key not in (*NOT_SHAPES, "model_type")}
    built = transformers.AutoConfig.for_model(config["model_type"], **known)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(built)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_every_variation_of_every_family_has_as_many_as_transformers_builds(name):
    assert parameter_count(read_config(SMALL[name])) == built_by_transformers(SMALL[name])


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_every_model_of_the_catalogue_has_as_many_as_transformers_builds(entry):
    assert parameter_count(read_config(entry["config"])) == entry["parameters"]
    assert built_by_transformers(entry["config"]) == entry["parameters"]


def test_tied_embeddings_are_counted_once():
    tied = parameter_count(read_config(small_config("llama", tie_word_embeddings=True)))
    assert parameter_count(read_config(small_config("llama"))) - tied == 320 * 64


def test_ten_thousand_layers_are_counted_as_fast_as_one_group():
    architecture = read_config(small_config("llama", num_hidden_layers=10_000))
    assert len(architecture.layers) == 1
    one, two = (parameter_count(with_layers(architecture, n)) for n in (1, 2))
    assert parameter_count(architecture) == one + 9999 * (two - one)


@pytest.mark.parametrize("model_type", BASE)
def test_a_twin_is_the_model_that_its_config_would_give(model_type):
    architecture = read_config(small_config(model_type))
    assert with_layers(architecture, 3) == read_config(small_config(model_type, num_hidden_layers=3))


def test_a_twin_of_all_layers_is_the_model():
    architecture = read_config(small_config("gemma2"))
    assert with_layers(architecture, 5) is architecture


def test_a_twin_keeps_the_stored_bytes_of_its_layers():
    stored = StoredWeights(layers=(1, 2, 3, 4, 5), embedding=6, lm_head=7, other=8)
    cut = with_layers(replace(read_config(small_config("llama")), stored=stored), 2)
    assert cut.stored == stored._replace(layers=(1, 2))


@pytest.mark.parametrize("layers", [0, -1, 6])
def test_a_twin_cannot_have_more_layers_or_none(layers):
    with pytest.raises(JobError) as caught:
        with_layers(read_config(small_config("llama")), layers)
    assert caught.value.key == "num_hidden_layers"
    assert caught.value.allowed == "a whole number from 1 to 5"
