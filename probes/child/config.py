"""The Hugging Face config of a job's model, and the layers it is cut to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from ctxplan import catalogue, hub
from estimator.errors import UnknownModel
from probes.errors import PointError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
BNB_4BIT = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8",
    "llm_int8_skip_modules": None,
}


def real_checkpoint(model: str | Mapping[str, Any]) -> Path | None:
    """The directory that the model names, where it holds weights; None where they have to be made up."""
    if not isinstance(model, str):
        return None
    folder = Path(model).expanduser()
    return folder.resolve() if any((folder / name).is_file() for name in WEIGHTS) else None


def config_of(model: str | Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    """The config of a model, with ``layers`` decoder layers where that is given.

    Raises:
        UnknownModel: it is neither an object, nor a directory, nor in the catalogue or the local cache.
        PointError: more layers than the model has.
    """
    config = deepcopy(dict(model)) if isinstance(model, Mapping) else _named(model)
    return _with_layers(config, layers) if layers is not None else config


def _named(model: str) -> dict[str, Any]:
    known = catalogue.find(model)
    if known is not None:
        config = deepcopy(dict(known.entry.config))
        if known.form != "as_published" and known.entry.bnb_4bit != "on the fly":
            config["quantization_config"] = dict(BNB_4BIT)
        return config
    file = Path(model).expanduser() / "config.json"
    cached = None if file.is_file() else hub.from_cache(model, None)
    if not file.is_file() and cached is None:
        raise UnknownModel("its config is not on this machine", key="job.model", allowed=hub.INSTEAD)
    read: dict[str, Any] = json.loads((cached.path if cached else file).read_text(encoding="utf-8"))
    return read


def _with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    inner = config.get("text_config", config)
    if layers > inner["num_hidden_layers"]:
        raise PointError(f"{layers} layers are more than the model has", key="job.num_hidden_layers")
    inner["num_hidden_layers"] = layers
    # Lists with one entry a layer are cut with it: the first layers are the twin's.
    for key in ("layer_types", "mlp_layer_types"):
        if isinstance(inner.get(key), list):
            inner[key] = inner[key][:layers]
    return config
