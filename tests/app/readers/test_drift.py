"""The tables of keys and defaults are those of the installed releases: a release that changes one fails here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from app.readers import axolotl, hf_arguments, trl, unsloth
from app.readers.common import DISTRIBUTED
from app.readers.document import read_document
from app.readers.values import names
from ctxplan.hf import DEFAULT_TARGETS, OPTIMIZERS

INSTALLED = """
import dataclasses, importlib.metadata, json, sys
from peft import LoraConfig
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGETS
from transformers import BitsAndBytesConfig, TrainingArguments
from transformers.training_args import OptimizerNames
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig

def fields(kind):
    plain = (str, int, float, bool, type(None))
    return {f.name: f.default if isinstance(f.default, plain) else None for f in dataclasses.fields(kind) if f.init}

kinds = (TrainingArguments, SFTConfig, ModelConfig, ScriptArguments, DatasetMixtureConfig, LoraConfig)
found = {kind.__name__: fields(kind) for kind in kinds}
found["optimizers"] = [name.value for name in OptimizerNames]
found["targets"] = TARGETS
found["bitsandbytes"] = BitsAndBytesConfig(load_in_4bit=True).to_dict()
found["versions"] = {name: importlib.metadata.version(name) for name in ("trl", "transformers", "peft", "unsloth")}
print("FOUND" + json.dumps(found, default=str))
"""
UNSLOTH_CLI = """
import importlib.util, json, pathlib, sys
path = pathlib.Path(importlib.util.find_spec("unsloth_cli").origin).parent / "config.py"
spec = importlib.util.spec_from_file_location("config", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
config = module.Config
print("FOUND" + json.dumps({
    "top": sorted(config.model_fields),
    "forbids": config.model_config["extra"],
    "training": json.loads(config().training.model_dump_json()),
    "lora": json.loads(config().lora.model_dump_json()),
}))
"""


def printed_by(code: str) -> Any:
    """What a program prints in a process of its own: these libraries warn, and patch each other."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.partition("FOUND")[2])


@pytest.fixture(scope="module")
def installed() -> Any:
    """Importing trl takes several seconds, once."""
    return printed_by(INSTALLED)


@pytest.fixture(scope="module")
def unsloth_cli() -> Any:
    return printed_by(UNSLOTH_CLI)


def test_the_releases_that_are_said_to_be_assumed_are_the_installed_ones(installed: Any) -> None:
    assert dict(trl.VERSIONS) == {name: installed["versions"][name] for name in trl.VERSIONS}
    assert dict(unsloth.VERSIONS) == {"unsloth": installed["versions"]["unsloth"]}


def test_every_key_of_trl_is_read_or_named_as_not_modelled_or_known_not_to_matter(installed: Any) -> None:
    kinds = ("SFTConfig", "ModelConfig", "ScriptArguments", "DatasetMixtureConfig")
    theirs = {name for kind in kinds for name in installed[kind]}
    modelled = trl.READ | trl.UNMODELLED.keys() | trl.QUANTISED.keys() | hf_arguments.TRAINING_UNMODELLED.keys()
    harmless = trl.NO_MEMORY | hf_arguments.TRAINING_NO_MEMORY
    ours = modelled | harmless | DISTRIBUTED.keys() - {"fsdp_config"} | {"fsdp_config"}
    assert theirs - ours == set()
    assert ours - theirs == {"env", "config"}  # keys of TrlParser itself
    assert modelled & harmless == set()


def test_every_training_argument_is_in_one_of_its_tables(installed: Any) -> None:
    theirs = set(installed["TrainingArguments"])
    tables = [hf_arguments.TRAINING_READ, hf_arguments.TRAINING_NO_MEMORY, set(hf_arguments.TRAINING_UNMODELLED)]
    ours = set().union(*tables, DISTRIBUTED)
    assert theirs == ours
    assert sum(map(len, tables)) + len(DISTRIBUTED) == len(ours)


@pytest.mark.parametrize("moved", [trl.MOVED, hf_arguments.TRAINING_MOVED])
def test_a_key_that_is_said_to_be_another_releases_is_not_one_of_this(installed: Any, moved: dict[str, str]) -> None:
    for kind in ("SFTConfig", "ModelConfig", "ScriptArguments", "DatasetMixtureConfig"):
        assert moved.keys() & installed[kind].keys() == set()


def test_the_defaults_of_trl_are_the_installed_ones(installed: Any) -> None:
    theirs = {**installed["SFTConfig"], **installed["ModelConfig"]}
    reading = trl.read_trl(read_document(b"model_name_or_path: x\nuse_peft: true\nlora_target_modules: [q_proj]", "t"))
    assert {
        "max_length": reading.job["max_seq_length"],
        "per_device_train_batch_size": reading.job["per_device_train_batch_size"],
        "gradient_accumulation_steps": reading.job["gradient_accumulation_steps"],
        "gradient_checkpointing": reading.job["use_gradient_checkpointing"],
        "optim": reading.job["optim"],
        "lora_r": reading.job["r"],
        "lora_dropout": reading.job["lora_dropout"],
    }.items() <= theirs.items()
    assert theirs["per_device_eval_batch_size"] == 8
    assert theirs["use_peft"] is theirs["load_in_4bit"] is theirs["packing"] is False
    assert theirs["dtype"] == "float32"
    assert [doubt.key for doubt in reading.doubts] == ["dtype"]


def test_every_optimizer_of_transformers_is_planned_or_said_to_differ(installed: Any) -> None:
    assert set(installed["optimizers"]) == set(OPTIMIZERS)


def test_the_modules_that_peft_adapts_by_default_are_its_own(installed: Any) -> None:
    assert {family: installed["targets"][family] for family in DEFAULT_TARGETS} == {
        family: list(modules) for family, modules in DEFAULT_TARGETS.items()
    }


def test_the_keys_of_lora_and_of_bitsandbytes_that_are_read_from_objects_exist(installed: Any) -> None:
    from ctxplan.job_from import ARGUMENTS_UNMODELLED, LORA_UNMODELLED

    read = {"r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "bias"}
    assert read | set(LORA_UNMODELLED) <= installed["LoraConfig"].keys()
    assert set(ARGUMENTS_UNMODELLED) <= installed["SFTConfig"].keys()
    assert {"load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type"} <= {
        name.lstrip("_") for name in installed["bitsandbytes"]
    }


def test_the_keys_and_defaults_of_the_unsloth_command_line_are_the_installed_ones(unsloth_cli: Any) -> None:
    assert unsloth_cli["forbids"] == "forbid"
    assert set(unsloth_cli["top"]) == {"model", "data", "training", "lora", "logging"}
    assert set(unsloth_cli["training"]) <= unsloth.KNOWN["training"]
    assert set(unsloth_cli["lora"]) <= unsloth.KNOWN["lora"]
    training, lora = unsloth_cli["training"], unsloth_cli["lora"]
    job = unsloth.read_unsloth(read_document(b"model: x\ntraining: {}", "t.yaml")).job
    assert job["max_seq_length"] == training["max_seq_length"]
    assert job["per_device_train_batch_size"] == training["batch_size"]
    assert job["gradient_accumulation_steps"] == training["gradient_accumulation_steps"]
    assert job["use_gradient_checkpointing"] == training["gradient_checkpointing"]
    assert job["load_in_4bit"] is training["load_in_4bit"]
    assert job["packing"] is training["packing"]
    assert job["r"] == lora["lora_r"]
    assert job["lora_dropout"] == lora["lora_dropout"]
    assert job["target_modules"] == lora["target_modules"].split(",")
    assert training["training_type"] == "lora"


def test_no_key_of_axolotl_is_in_two_tables() -> None:
    tables = [set(table) for table in axolotl.TABLES]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert names("base_model sequence_len micro_batch_size adapter") <= set().union(*tables)
