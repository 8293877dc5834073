"""A broken config is refused with its file and line, the key, and what is allowed."""

from __future__ import annotations

import pytest

from app.readers import ConfigError, read
from app.readers.document import read_document

TRL = "model_name_or_path: Qwen/Qwen3-8B\n"
AXOLOTL = "base_model: Qwen/Qwen3-8B\n"
FACTORY = "model_name_or_path: Qwen/Qwen3-8B\ntemplate: qwen\n"
UNSLOTH = "model: Qwen/Qwen3-8B\n"

BROKEN = {
    "a typo, Unsloth": (UNSLOTH + "training:\n  max_seq_lenght: 1\n", 3, "training.max_seq_lenght", "max_seq_length"),
    "a section of Unsloth that is none": (UNSLOTH + "training: 1\n", 2, "training", "a mapping"),
    "a section that Unsloth has not": (UNSLOTH + "training: {}\noptimizer: {}\n", 3, "optimizer", "keys of unsloth"),
    "a wrong type, Unsloth": (
        UNSLOTH + "training: {max_seq_length: long}\n",
        2,
        "training.max_seq_length",
        "a whole number",
    ),
    "a null, Unsloth": (UNSLOTH + "training:\n\n  batch_size:\n", 4, "training.batch_size", "a whole number"),
    "4-bit and full fine-tuning, Unsloth": (
        UNSLOTH + "training:\n  training_type: full\n  load_in_4bit: true\n",
        4,
        "training.load_in_4bit",
        "training_type lora",
    ),
    "a checkpointing that is none": (
        UNSLOTH + "training: {gradient_checkpointing: unslot}\n",
        2,
        "training.gradient_checkpointing",
        "unsloth",
    ),
    "a typo, TRL": (TRL + "gradient_checkpointin: true\n", 2, "gradient_checkpointin", "gradient_checkpointing"),
    "a key of an older TRL": (TRL + "\nmax_seq_length: 2048\n", 3, "max_seq_length", "max_length"),
    "a key of an older transformers": (TRL + "evaluation_strategy: steps\n", 2, "evaluation_strategy", "eval_strategy"),
    "a key of a newer transformers": (TRL + "activation_checkpointing: true\n", 2, "activation_checkpointing", "5.23"),
    "a key of an older model config": (TRL + "torch_dtype: bfloat16\n", 2, "torch_dtype", "dtype"),
    "a wrong type, TRL": (
        TRL + "per_device_train_batch_size: '2'\n",
        2,
        "per_device_train_batch_size",
        "a whole number",
    ),
    "text for a flag, TRL": (TRL + "packing: 'yes'\n", 2, "packing", "true or false"),
    "4-bit and full fine-tuning, TRL": (TRL + "load_in_4bit: true\n", 2, "load_in_4bit", "LoRA"),
    "4-bit and 8-bit, TRL": (
        TRL + "use_peft: true\nload_in_4bit: true\nload_in_8bit: true\n",
        4,
        "load_in_8bit",
        "one of the two",
    ),
    "an optimizer that is none": (TRL + "optim: adamw_torhc\n", 2, "optim", "adamw_torch"),
    "an attention that is none": (TRL + "attn_implementation: flash\n", 2, "attn_implementation", "sdpa"),
    "no model, TRL": ("model_name_or_path:\ndataset_name: x\n", 1, "model_name_or_path", "a Hub id"),
    "4-bit and full fine-tuning, Axolotl": (AXOLOTL + "load_in_4bit: true\n", 2, "load_in_4bit", "LoRA"),
    "a key that Axolotl gave up": (AXOLOTL + "rope_scaling: {type: linear}\n", 2, "rope_scaling", "model_config"),
    "an adapter that is not modelled": (AXOLOTL + "adapter: llama-adapter\n", 2, "adapter", "lora, qlora"),
    "qlora without 4-bit": (AXOLOTL + "adapter: qlora\nlora_r: 8\n", 2, "adapter", "load_in_4bit"),
    "an adapter without a rank": (AXOLOTL + "adapter: lora\n", 2, "lora_r", "a rank"),
    "two batch sizes": (
        AXOLOTL + "micro_batch_size: 1\nbatch_size: 8\ngradient_accumulation_steps: 8\n",
        3,
        "batch_size",
        "one of the two",
    ),
    "a batch size alone": (AXOLOTL + "batch_size: 8\n", 2, "batch_size", "micro_batch_size"),
    "two attentions": (AXOLOTL + "sdp_attention: true\nflash_attention: true\n", None, "sdp_attention", "one of them"),
    "a wrong type, Axolotl": (AXOLOTL + "sequence_len: [1]\n", 2, "sequence_len", "a whole number"),
    "a typo, LLaMA-Factory": (FACTORY + "cutof_len: 1\n", 3, "cutof_len", "cutoff_len"),
    "another tool's key, LLaMA-Factory": (FACTORY + "max_seq_length: 1\n", 3, "max_seq_length", "cutoff_len"),
    "4-bit and full fine-tuning, LLaMA-Factory": (
        FACTORY + "finetuning_type: full\nquantization_bit: 4\n",
        4,
        "quantization_bit",
        "LoRA",
    ),
    "a method that is not modelled": (FACTORY + "finetuning_type: freeze\n", 3, "finetuning_type", "lora, full"),
    "bits that are not modelled": (FACTORY + "quantization_bit: 3\n", 3, "quantization_bit", "4, 8"),
    "a stage that is none": (FACTORY + "stage: sfft\n", 3, "stage", "sft"),
    "a plugin without a name": ("model: x\nmicro_batch_size: 1\npeft_config: {r: 8}\n", 3, "peft_config", "name"),
    "a batch that does not divide": (
        "model: x\nmicro_batch_size: 3\nglobal_batch_size: 8\n",
        3,
        "global_batch_size",
        "a multiple",
    ),
    "an unknown key, v1": ("model: x\ncutoff_len: 8\nmicro_batch: 1\n", 3, "micro_batch", "micro_batch_size"),
    "a typo, a job": ('{"model": "x",\n "max_seq_length": 8,\n "r": 8, "optimm": "sgd"}', 3, "optimm", "optim"),
    "a wrong type, a job": ("model: x\nr: many\n", 2, "r", "a whole number"),
    "a point": ("job: {model: x}\nmodel: x\n", 1, "job", "the value of job"),
    "keys of nobody": ("learning_rate: 1\nepochs: 2\n", None, None, "--tool"),
}


@pytest.mark.parametrize(("text", "line", "key", "allowed"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_config_is_refused_at_its_line(text: str, line: int | None, key: str | None, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(read_document(text.encode(), "train.yaml"))
    error = refused.value
    assert error.key == key
    assert allowed in f"{error.message} {error.allowed}"
    if line is not None:
        assert str(error).startswith(f"train.yaml:{line}: ")


@pytest.mark.parametrize("tool", ["trl", "axolotl", "llamafactory", "job"])
def test_an_empty_config_lacks_a_model(tool: str) -> None:
    with pytest.raises(ConfigError, match="model"):
        read(read_document(b"{}", "train.yaml"), tool)


def test_a_tool_that_is_named_wins_over_what_the_keys_look_like() -> None:
    document = read_document(FACTORY.encode(), "train.yaml")
    assert read(document).tool == "llamafactory"
    with pytest.raises(ConfigError, match="template"):
        read(document, "trl")
