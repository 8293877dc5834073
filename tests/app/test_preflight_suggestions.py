"""What a preflight suggests, in the config's own keys, and how it words what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from app.preflight.github import remarks, summary
from app.readers.writing import Written, written
from tests.app.test_cli import run
from tests.app.test_preflight import LONG, LORA, MODEL, SMALL, answer_of, config

__all__ = ["config"]

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
AXOLOTL = f"base_model: {LLAMA}\n{LORA}sequence_len: 8192\nmicro_batch_size: 16\n"
LLAMAFACTORY = (
    f"model_name_or_path: {LLAMA}\nstage: sft\nfinetuning_type: lora\nuse_unsloth: false\npacking: true\n"
    "enable_liger_kernel: true\ncutoff_len: 16384\nper_device_train_batch_size: 16\n"
)
TRL = f"model_name_or_path: {LLAMA}\nuse_peft: true\nmax_length: 8192\nper_device_train_batch_size: 16\n"
UNSLOTH = f"model: {LLAMA}\ntraining: {{max_seq_length: 65536, batch_size: 16, load_in_4bit: false}}\n"
V1 = (
    f"model: {LLAMA}\ntrain_dataset: x\ncutoff_len: 4096\nmicro_batch_size: 16\n"
    "peft_config: {name: lora, r: 8}\nenable_activation_checkpointing: false\n"
)


class TestSuggestions:
    """What makes a config fit, in the words of its own tool."""

    def test_a_change_is_a_key_of_the_config_and_reads_back_as_the_job_that_was_proposed(self) -> None:
        for text in (AXOLOTL, LLAMAFACTORY, TRL, UNSLOTH, V1):
            answer = answer_of(text, gpu="A100-40GB")
            suggestion = answer.suggestions[0]
            assert suggestion.written.missing == (), text
            changed = yaml.safe_load(text)
            for key, value in suggestion.written.config.items():
                *sections, last = key.split(".")
                below = changed
                for section in sections:
                    below = below.setdefault(section, {})
                below[last] = value
            again = answer_of(yaml.safe_dump(changed), gpu="A100-40GB")
            assert again.estimate.verdict == suggestion.proposal.standing.verdict == "fits"
            assert again.estimate.job == suggestion.proposal.job

    def test_what_no_setting_of_the_tool_does_comes_last_and_is_marked(self, config: Any) -> None:
        answer = answer_of(AXOLOTL, gpu="A100-40GB")
        framework = next(one for one in answer.suggestions if "framework" in one.written.missing)
        assert answer.suggestions.index(framework) > 0
        assert "framework" in framework.to_json()["not_in_config"]
        done = run("preflight", config(AXOLOTL), "--gpu", "A100-40GB")
        told = " ".join(done.stderr.split())
        assert "Change 1: micro_batch_size 1, gradient_accumulation_steps 16, gradient_checkpointing true: fits" in told
        assert "framework unsloth (not a setting of axolotl)" in told
        assert "per_device_train_batch_size" not in told

    def test_what_a_trainer_that_pads_cannot_do_is_not_told_of_it(self) -> None:
        answer = answer_of(LLAMAFACTORY.replace("use_unsloth: false", "use_unsloth: true"), gpu="A100-40GB")
        assert answer.suggestions
        changed = [key for one in answer.suggestions for key in one.proposal.changes]
        assert not {"packing", "padding_free"} & set(changed)
        told = written("llamafactory", {"block_compile": False}, {"framework": "unsloth"})
        assert told == Written(environment={"UNSLOTH_BLOCK_COMPILE": "0"})

    def test_nothing_known_is_said_to_be_nothing_known(self, config: Any) -> None:
        text = f"model: {MODEL}\ngpu: T4-16GB\nmax_seq_length: {2**27}\n"
        done = run("preflight", config(text))
        assert "No change of this job is known to make it fit." in done.stderr
        assert "No change of this job is known to make it fit." in summary(answer_of(text)).replace("\\", "")

    def test_a_host_that_limits_has_its_numbers_wherever_the_verdict_is(self, config: Any) -> None:
        asked = (config(LONG), "--host-ram", "64GiB")
        answer = answer_of(LONG, host_ram_bytes=64 * 2**30)
        numbers = f"{answer.estimate.host_bytes.expected / 2**30:,.2f} GiB of host RAM needed, at most "
        text = " ".join(run("preflight", *asked).stderr.split())
        assert text.startswith(f"Does not fit in the host's RAM ({numbers}")
        assert "of 64.00 GiB)" in text
        assert "on one B200-180GB" in text
        assert re.search(r"with 2\.\d\d GiB of host RAM", text)
        first = remarks(answer)[0]
        assert first.title.startswith(f"Does not fit in the host's RAM: {numbers}")
        assert first.message.startswith(numbers)
        assert f"### Does not fit in the host's RAM: {numbers}" in summary(answer)


class TestMessages:
    def test_a_number_without_a_unit_is_asked_whether_it_was_gib(self, config: Any) -> None:
        done = run("preflight", config(SMALL), "--host-ram", "64")
        assert done.returncode == 2
        assert "--host-ram: 64 bytes are no host's RAM" in done.stderr
        assert "or 64GiB)" in done.stderr

    @pytest.mark.parametrize(
        ("text", "line"), [('{\n "model": "x",\n "r": 1,\n}\n', 4), ('{"model": "x",\n "r": 1,\n "r": 2}\n', 3)]
    )
    def test_json_that_cannot_be_read_is_told_with_its_line(self, config: Any, text: str, line: int) -> None:
        file = config(text, "job.json")
        assert f"ctxplan: error: {file}:{line}: " in run("preflight", file).stderr

    @pytest.mark.parametrize("command", ["plan", "estimate"])
    def test_a_launchers_config_is_sent_to_preflight(self, config: Any, command: str) -> None:
        for name, text in (("train.yaml", AXOLOTL), ("train.json", json.dumps(yaml.safe_load(AXOLOTL)))):
            done = run(command, config(text, name))
            assert done.returncode == 2
            assert "a launcher's config is checked with ctxplan preflight" in done.stderr

    @pytest.mark.parametrize(
        ("text", "tool", "line", "named"),
        [(AXOLOTL, "trl", 1, "axolotl, such as base_model"), (LLAMAFACTORY, "trl", 2, "llamafactory, such as stage")],
    )
    def test_a_config_of_another_tool_is_told_at_a_line_that_shows_it(
        self, config: Any, text: str, tool: str, line: int, named: str
    ) -> None:
        file = config("# a comment\n" * 2 + text)
        done = run("preflight", file, "--tool", tool)
        assert done.returncode == 2
        assert f"its keys are those of {named}" in done.stderr
        assert f"{file}:{line + 2}: " in done.stderr

    def test_liger_beside_unsloth_is_said_to_be_planned_as_unsloth_alone(self) -> None:
        both = answer_of(LLAMAFACTORY.replace("use_unsloth: false", "use_unsloth: true"))
        assert [text for text in both.assumptions if text.startswith("enable_liger_kernel with use_unsloth: ")]
        assert not [text for text in answer_of(LLAMAFACTORY).assumptions if text.startswith("enable_liger_kernel")]

    @pytest.mark.parametrize("text", [AXOLOTL, LLAMAFACTORY, TRL], ids=["axolotl", "llamafactory", "trl"])
    def test_a_chunked_loss_is_said_of_the_trainer_that_has_one_and_of_no_other(self, text: str) -> None:
        (told,) = [one for one in answer_of(text).assumptions if "SFTTrainer" in one]
        assert told.endswith("a trainer that chunks its loss, as TRL's SFTTrainer does, needs less")
