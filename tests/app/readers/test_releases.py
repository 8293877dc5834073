"""The tables of Axolotl's and LLaMA-Factory's keys are those of the named releases, whose keys stand in a file here: a
later release is written there by `tests.app.readers.releases`, and what it changes fails here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from app.readers import axolotl, axolotl_keys, hf_arguments, llamafactory, llamafactory_keys, llamafactory_v1
from app.readers.common import DISTRIBUTED
from app.readers.document import read_document
from tests.app.readers.releases import FILE, SOURCES, keys_of, releases_of

RELEASES: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
OF_TRANSFORMERS = (
    set(hf_arguments.TRAINING_READ)
    | set(hf_arguments.TRAINING_NO_MEMORY)
    | set(hf_arguments.TRAINING_UNMODELLED)
    | set(hf_arguments.TRAINING_BEFORE)
    | set(DISTRIBUTED)
)
MODELLED: Mapping[str, set[str]] = {
    "axolotl": set(axolotl.READ) | set(axolotl_keys.UNMODELLED) | set(axolotl_keys.FP32),
    "llamafactory": set(llamafactory.READ)
    | set(llamafactory_keys.UNMODELLED)
    | set(llamafactory_keys.OPTIMIZER_SWITCHES),
    "llamafactory-v1": set(llamafactory_v1.READ),
}
HARMLESS: Mapping[str, set[str]] = {
    "axolotl": set(axolotl_keys.NO_MEMORY) | set(axolotl_keys.MOVED),
    "llamafactory": set(llamafactory_keys.NO_MEMORY),
    "llamafactory-v1": set(llamafactory_v1.NO_MEMORY),
}
BESIDE: Mapping[str, set[str]] = {
    # Aliases, which Axolotl still takes; found out by itself; and keys of its plugins.
    "axolotl": {"model_config", "model_kwargs", "model_revision", "capabilities", "env_capabilities"}
    | {"expert_parallel_size"},
    "llamafactory": OF_TRANSFORMERS
    | {"generation_config", "generation_max_length", "generation_num_beams", "predict_with_generate"}
    | {"sortish_sampler", "placement_strategy", "ray_run_name", "ray_storage_path", "resources_per_worker"}
    | {"loss_scale"},
    "llamafactory-v1": set(),
}
"""Keys of no class of the release's own: those of transformers, and of releases before and after it."""


@pytest.mark.parametrize("tool", RELEASES)
def test_every_key_of_a_release_is_read_or_named_as_not_modelled_or_known_not_to_matter(tool: str) -> None:
    theirs = set(RELEASES[tool]["keys"])
    assert theirs - MODELLED[tool] - HARMLESS[tool] - BESIDE[tool] == set()


@pytest.mark.parametrize("tool", RELEASES)
def test_no_key_is_read_that_a_release_does_not_have(tool: str) -> None:
    assert MODELLED[tool] - RELEASES[tool]["keys"].keys() - BESIDE[tool] == set()


def test_the_releases_that_are_said_to_be_assumed_are_those() -> None:
    assert RELEASES["axolotl"]["version"] == axolotl.VERSIONS["axolotl"]
    assert RELEASES["llamafactory"]["version"] == llamafactory.VERSIONS["llamafactory"]
    assert llamafactory_v1.VERSIONS["llamafactory"] == f"{RELEASES['llamafactory-v1']['version']} (v1)"


def test_the_defaults_of_axolotl_are_the_releases() -> None:
    theirs = RELEASES["axolotl"]["keys"]
    job = axolotl.read_axolotl(read_document(b"base_model: x\nadapter: lora\nlora_r: 8", "t.yaml")).job
    assert {
        "sequence_len": job["max_seq_length"],
        "micro_batch_size": job["per_device_train_batch_size"],
        "gradient_accumulation_steps": job["gradient_accumulation_steps"],
        "gradient_checkpointing": job["use_gradient_checkpointing"],
        "optimizer": job["optim"],
        "lora_dropout": job["lora_dropout"],
        "load_in_4bit": job["load_in_4bit"],
    }.items() <= theirs.items()
    assert theirs["val_set_size"] == 0
    assert "per_device_eval_batch_size" not in job


def test_the_defaults_of_llamafactory_are_the_releases() -> None:
    theirs = RELEASES["llamafactory"]["keys"]
    job = llamafactory.read_llamafactory(read_document(b"model_name_or_path: x", "t.yaml")).job
    assert (job["max_seq_length"], job["r"], job["lora_dropout"]) == tuple(
        theirs[key] for key in ("cutoff_len", "lora_rank", "lora_dropout")
    )
    assert (theirs["lora_target"], job["target_modules"]) == ("all", "all-linear")
    assert (theirs["finetuning_type"], theirs["stage"], theirs["use_unsloth"]) == ("lora", "sft", False)
    assert job["framework"] == "transformers"


def test_the_defaults_of_llamafactory_v1_are_the_releases() -> None:
    theirs = RELEASES["llamafactory-v1"]["keys"]
    job = llamafactory_v1.read_llamafactory_v1(read_document(b"peft_config: {name: lora}", "t.yaml")).job
    assert {
        "model": job["model"],
        "cutoff_len": job["max_seq_length"],
        "micro_batch_size": job["per_device_train_batch_size"],
        "enable_activation_checkpointing": job["use_gradient_checkpointing"],
    }.items() <= theirs.items()


SOURCE = """
class Base(BaseModel):
    _hidden: int = 1
    shared: bool | None = Field(default=True, json_schema_extra={"description": "x"})
    many: list[str] = Field(default_factory=list)

@dataclass
class Args(pydantic.Base, Elsewhere):
    name: str
    size: int = field(default=7, metadata={})
    inside: str = field(init=False, default="x")
    kinds: ClassVar[int] = 2
    shared: float = 0.5
    def method(self) -> None: ...
"""


def test_keys_are_read_from_source_with_what_they_inherit() -> None:
    assert keys_of([SOURCE], ["Args"]) == {"many": None, "name": None, "shared": 0.5, "size": 7}
    assert list(keys_of([SOURCE], ["Base", "Args"])) == ["many", "name", "shared", "size"]


def test_a_release_is_read_from_its_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "axolotl-9.9.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as opened:
        opened.writestr("axolotl/utils/schemas/config.py", SOURCE.replace("Args", "AxolotlInputConfig"))
        opened.writestr("axolotl/other.py", "class AxolotlInputConfig: wrong: int = 1")
    assert releases_of([wheel]) == {
        "axolotl": {"version": "9.9.0", "keys": {"many": None, "name": None, "shared": 0.5, "size": 7}}
    }


@pytest.mark.parametrize("package", SOURCES)
def test_where_a_launcher_is_installed_its_keys_are_those_that_are_written_down(package: str) -> None:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    inside = Path(found.submodule_search_locations[0]).parent
    for tool, (folder, roots) in SOURCES[package].items():
        sources = [file.read_text(encoding="utf-8") for file in sorted((inside / folder).rglob("*.py"))]
        assert {"version": version(package), "keys": keys_of(sources, roots)} == RELEASES[tool]
