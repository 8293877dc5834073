"""A job from the objects of a training script; each object is known by its shape, so the ones here are small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

import ctxplan
from ctxplan.live import job_of
from estimator.errors import JobError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


class Strategy(Enum):
    STEPS = "steps"
    NO = "no"


def arguments(**changes: Any) -> SimpleNamespace:
    plain = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": 8,
        "optim": "adamw_8bit",
        "gradient_checkpointing": True,
        "eval_strategy": Strategy.NO,
        "max_length": 4096,
    }
    return SimpleNamespace(**{**plain, **changes})


def lora(**changes: Any) -> SimpleNamespace:
    plain = {
        "r": 32,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": {"v_proj", "q_proj"},
        "modules_to_save": None,
    }
    return SimpleNamespace(**{**plain, "bias": "none", **changes})


def quantization(*, four: bool = False, eight: bool = False) -> SimpleNamespace:
    return SimpleNamespace(bnb_4bit_quant_type="nf4", load_in_4bit=four, load_in_8bit=eight)


class Config:
    model_type = "llama"

    def __init__(self, **more: Any) -> None:
        self.__dict__.update(more)

    def to_dict(self) -> dict[str, Any]:
        return {**CONFIG, **self.__dict__}


class Model:
    def __init__(self, **attributes: Any) -> None:
        self.config = Config()
        self.__dict__.update(attributes)

    def parameters(self) -> Iterator[None]:
        yield None


@pytest.fixture(autouse=True)
def _without_unsloth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)


def test_the_objects_of_a_script_make_its_job_in_any_order() -> None:
    job = ctxplan.job_from(lora(), "Qwen/Qwen3-8B", quantization(four=True), arguments(), gpu="A100-80GB")
    assert job == ctxplan.job_from("Qwen/Qwen3-8B", arguments(), lora(), quantization(four=True), gpu="A100-80GB")
    assert (job.model, job.gpu, job.framework) == ("Qwen/Qwen3-8B", "A100-80GB", "transformers")
    assert (job.max_seq_length, job.per_device_train_batch_size, job.gradient_accumulation_steps) == (4096, 2, 4)
    assert (job.r, job.lora_dropout, job.target_modules) == (32, 0.05, ("q_proj", "v_proj"))
    assert (job.load_in_4bit, job.use_gradient_checkpointing, job.optim) == (True, True, "adamw_8bit")
    assert ctxplan.estimate(job).verdict == "fits"


def test_the_weights_are_as_they_are_asked_for_or_as_the_loaded_model_has_them() -> None:
    assert ctxplan.job_from("Qwen/Qwen3-8B", arguments(), lora(), quantization(eight=True)).load_in_8bit
    assert ctxplan.job_from("Qwen/Qwen3-8B", arguments(), lora()).load_in_16bit
    assert ctxplan.job_from("Qwen/Qwen3-8B", arguments()).full_finetuning
    loaded = Model(config=Config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}))
    assert ctxplan.job_from(loaded, arguments(), lora()).load_in_4bit


def test_a_loaded_model_brings_its_shape_its_adapter_and_what_unsloth_left_on_it() -> None:
    model = Model(peft_config={"default": lora()}, max_seq_length=8192, _unsloth_gradient_checkpointing="unsloth")
    job = ctxplan.job_from(model, arguments(), framework="unsloth")
    assert isinstance(job.model, dict)
    assert job.model["hidden_size"] == 2048
    assert (job.max_seq_length, job.sequence_length, job.r) == (8192, 4096, 32)
    assert job.use_gradient_checkpointing == "unsloth"
    assert ctxplan.estimate(job).job.num_hidden_layers == 16


def test_a_run_is_unsloths_where_unsloth_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace())
    job = ctxplan.job_from("unsloth/Llama-3.2-1B-Instruct", arguments(packing=True), lora())
    assert (job.framework, job.packing, job.use_gradient_checkpointing) == ("unsloth", True, "unsloth")
    assert job.load_in_4bit is None  # from_pretrained's own default


def test_an_evaluation_is_planned_where_one_is_asked_for() -> None:
    job = ctxplan.job_from("Qwen/Qwen3-8B", arguments(eval_strategy=Strategy.STEPS), lora())
    assert job.per_device_eval_batch_size == 8
    assert ctxplan.job_from("Qwen/Qwen3-8B", arguments(), lora()).per_device_eval_batch_size is None


def test_keys_win_over_objects() -> None:
    assert ctxplan.job_from("Qwen/Qwen3-8B", arguments(), lora(), max_seq_length=77, r=8).r == 8


def test_modules_that_nobody_names_are_those_of_peft_where_the_model_is_known() -> None:
    assert ctxplan.job_from(Config(), arguments(), lora(target_modules=None)).target_modules == ("q_proj", "v_proj")
    named = ctxplan.job_from("Qwen/Qwen3-8B", arguments(), lora(target_modules=None))
    assert named.target_modules == ("q_proj", "v_proj")
    with pytest.raises(JobError, match="target_modules"):
        ctxplan.job_from("nobody/knows-this", arguments(), lora(target_modules=None))
    with pytest.raises(JobError, match="PEFT has no default for gpt_oss"):
        ctxplan.job_from("unsloth/gpt-oss-20b", arguments(), lora(target_modules=None))


@pytest.mark.parametrize("flag", ["four", "eight"])
def test_quantised_weights_without_adapters_are_refused_as_they_do_not_train(flag: str) -> None:
    quantised = quantization(**{flag: True})
    with pytest.raises(JobError, match=r"load_in_\dbit: contradicts full fine-tuning"):
        ctxplan.job_from("Qwen/Qwen3-8B", arguments(), quantised)
    assert ctxplan.job_from("Qwen/Qwen3-8B", arguments(), quantised, r=8).r == 8
    assert ctxplan.job_from("Qwen/Qwen3-8B", quantised, mode="generate").mode == "generate"


@pytest.mark.parametrize("parts", [(arguments(max_length=None),), ()])
def test_a_length_that_nothing_says_is_asked_for_by_its_key(parts: Any) -> None:
    with pytest.raises(JobError, match=r"max_seq_length.*max_seq_length=") as refused:
        ctxplan.job_from("Qwen/Qwen3-8B", lora(), *parts)
    assert refused.value.key == "max_seq_length"
    assert ctxplan.job_from("Qwen/Qwen3-8B", lora(), *parts, max_seq_length=777).max_seq_length == 777


def test_a_trainer_whose_samples_nothing_cuts_is_planned_for_its_longest_one() -> None:
    class Rows(list[Any]):
        column_names = ("input_ids",)

        def __getitem__(self, name: Any) -> Any:
            return list(self)

    uncut = arguments(max_length=None)
    assert job_of(uncut, Config(), Rows([[1] * 5, [1] * 99])).max_seq_length == 99
    assert job_of(arguments(), Config(), Rows([[1] * 5, [1] * 99])).max_seq_length == 4096
    assert job_of(uncut, Config(), Rows([[1] * 99]), max_seq_length=64).max_seq_length == 64
    with pytest.raises(JobError, match="max_seq_length"):
        job_of(uncut, Config(), None)


def test_weights_in_float32_are_warned_of() -> None:
    with pytest.warns(ctxplan.NotModelled, match="dtype: the model's base weights are in float32"):
        ctxplan.job_from(Model(dtype="torch.float32"), arguments(), lora())
    by_name = arguments(model_init_kwargs=None)
    with pytest.warns(ctxplan.NotModelled, match="dtype: TRL loads a model by its name in float32"):
        ctxplan.job_from("Qwen/Qwen3-8B", by_name, lora())
    # None of these warns, and a warning is an error here.
    ctxplan.job_from(Model(dtype="torch.bfloat16"), by_name, lora())
    ctxplan.job_from("Qwen/Qwen3-8B", by_name, lora(), quantization(four=True))
    ctxplan.job_from("Qwen/Qwen3-8B", arguments(model_init_kwargs={"dtype": "bfloat16"}), lora())
    ctxplan.job_from("Qwen/Qwen3-8B", by_name, lora(), framework="unsloth")


@pytest.mark.parametrize("key", ["packing", "padding_free"])
def test_flattened_batches_without_unsloth_are_said_to_be_planned_as_dense(key: str) -> None:
    with pytest.warns(ctxplan.NotModelled, match=f"{key}: .* dense ones"):
        ctxplan.job_from("Qwen/Qwen3-8B", arguments(**{key: True}), lora())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lora": {"use_dora": True}}, "use_dora"),
        ({"lora": {"bias": "all"}}, "bias"),
        ({"lora": {"rank_pattern": {"q_proj": 8}}}, "rank_pattern"),
        ({"arguments": {"activation_offloading": True}}, "activation_offloading"),
        ({"arguments": {"optim": "lion_32bit"}}, "lion_32bit"),
    ],
)
def test_a_setting_that_is_not_modelled_is_warned_of_by_its_name(changes: Any, named: str) -> None:
    parts = arguments(**changes.get("arguments", {})), lora(**changes.get("lora", {}))
    with pytest.warns(ctxplan.NotModelled, match=named):
        ctxplan.job_from("Qwen/Qwen3-8B", *parts)


@pytest.mark.parametrize(
    ("objects", "keys", "named"),
    [
        ((object(),), {}, "object"),
        (("a", "b"), {}, "model"),
        ((arguments(),), {}, "model"),
        (("a",), {"max_lenght": 1}, "max_lenght"),
        (("a", arguments(optim="adamm")), {}, "optim"),
        (("a", lora(target_modules=".*proj")), {}, "target_modules"),
    ],
)
def test_what_makes_no_job_is_refused_by_name(objects: Any, keys: Any, named: str) -> None:
    with pytest.raises(JobError) as refused:
        ctxplan.job_from(*objects, **keys)
    assert named in str(refused.value)


REAL = """
import json, warnings
warnings.simplefilter("ignore")
import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TrainingArguments
from trl import SFTConfig
import ctxplan
from estimator import job_to_json

config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=256)
with torch.device("meta"):
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
sft = SFTConfig(output_dir="x", bf16=False, use_cpu=True, max_length=512)
jobs = [
    ctxplan.job_from(model, sft),
    ctxplan.job_from(
        "Qwen/Qwen3-8B",
        TrainingArguments(output_dir="x", use_cpu=True),
        LoraConfig(target_modules="all-linear"),
        BitsAndBytesConfig(load_in_4bit=True),
        max_seq_length=2048,
    ),
]
for job in jobs:
    ctxplan.estimate(job)
print("FOUND" + json.dumps([job_to_json(job) for job in jobs]))
"""


def test_the_real_objects_of_the_installed_libraries_are_read() -> None:
    """In a process of its own, since they patch each other; importing them takes some seconds."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    live, named = json.loads(done.stdout.partition("FOUND")[2])
    assert (live["model"]["hidden_size"], live["r"], live["target_modules"]) == (64, 4, ["q_proj"])
    assert (live["max_seq_length"], live["load_in_16bit"], live["optim"]) == (512, True, "adamw_torch_fused")
    assert live["use_gradient_checkpointing"] is True  # SFTConfig's default, unlike TrainingArguments'
    assert (named["load_in_4bit"], named["target_modules"], named["r"]) == (True, "all-linear", 8)
    assert named["use_gradient_checkpointing"] is False


def test_importing_ctxplan_imports_none_of_these_libraries() -> None:
    code = "import sys, ctxplan; print(sorted({'torch', 'trl', 'peft', 'transformers'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
