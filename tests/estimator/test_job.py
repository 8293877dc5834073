"""Reading a job: every wrong input is refused by its key, and nothing else ever happens."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator import CtxplanError, Job, JobError, estimate, job_schema, job_to_json, parse_job
from estimator.job import RULES
from tests.estimator.random_jobs import STEADY, architecture_of, job_data

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
QUANTISED = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
HUGE = 10**400

REFUSED_WHEN_READ: list[tuple[dict[str, Any], str]] = [
    ({"max_seq_lenght": 4096}, "max_seq_lenght"),
    ({"": 1}, ""),
    ({"max_seq_length": 0}, "max_seq_length"),
    ({"max_seq_length": -1}, "max_seq_length"),
    ({"max_seq_length": HUGE}, "max_seq_length"),
    ({"max_seq_length": 2048.0}, "max_seq_length"),
    ({"max_seq_length": True}, "max_seq_length"),
    ({"max_seq_length": "2048"}, "max_seq_length"),
    ({"max_seq_length": None}, "max_seq_length"),
    ({"max_seq_length": math.nan}, "max_seq_length"),
    ({"sequence_length": 0}, "sequence_length"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ({"per_device_train_batch_size": -3}, "per_device_train_batch_size"),
    ({"gradient_accumulation_steps": 2**80}, "gradient_accumulation_steps"),
    ({"r": 0}, "r"),
    ({"r": [16]}, "r"),
    ({"lora_dropout": 1}, "lora_dropout"),
    ({"lora_dropout": -0.1}, "lora_dropout"),
    ({"lora_dropout": math.nan}, "lora_dropout"),
    ({"lora_dropout": math.inf}, "lora_dropout"),
    ({"lora_dropout": HUGE}, "lora_dropout"),
    ({"target_modules": "q_proj"}, "target_modules"),
    ({"target_modules": ["q_proj", 3]}, "target_modules[1]"),
    ({"target_modules": [["q_proj"]]}, "target_modules[0]"),
    ({"target_modules": ["x"] * 65}, "target_modules"),
    ({"use_gradient_checkpointing": "true"}, "use_gradient_checkpointing"),
    ({"use_gradient_checkpointing": 1}, "use_gradient_checkpointing"),
    ({"optim": "adamw"}, "optim"),
    ({"load_in_4bit": 1}, "load_in_4bit"),
    ({"load_in_4bit": "yes"}, "load_in_4bit"),
    ({"packing": None}, "packing"),
    ({"framework": "axolotl"}, "framework"),
    ({"mode": "infer"}, "mode"),
    ({"attn_implementation": "flash_attention_3"}, "attn_implementation"),
    ({"host_ram_bytes": 64}, "host_ram_bytes"),
    ({"confidence": 1}, "confidence"),
    ({"confidence": math.nan}, "confidence"),
    ({"max_new_tokens": -1}, "max_new_tokens"),
    ({"gpu": 80}, "gpu"),
    ({"gpu": "a" * 1000}, "gpu"),
    ({"gpu": {"name": "H100"}}, "gpu.total_bytes"),
    ({"gpu": {"name": "H100", "total_bytes": -1}}, "gpu.total_bytes"),
    ({"gpu": {"name": "H100", "total_bytes": 2**36, "vendor": "x"}}, "gpu.vendor"),
    ({"model": ""}, "model"),
    ({"model": 7}, "model"),
    ({"model": "a\x00b"}, "model"),
    ({"versions": []}, "versions"),
    ({"versions": {"torch": 2.11}}, "versions.torch"),
    ({"versions": {"cuda": "13.0"}}, "versions.cuda"),
]
REFUSED_WHEN_PLANNED: list[tuple[dict[str, Any], str]] = [
    ({"gpu": "H100-81GB"}, "gpu"),
    ({"load_in_4bit": True, "full_finetuning": True}, "load_in_4bit"),
    ({"load_in_4bit": True, "load_in_8bit": True}, "load_in_4bit"),
    ({"load_in_8bit": True, "load_in_16bit": True}, "load_in_8bit"),
    ({"load_in_16bit": True, "full_finetuning": True}, "load_in_16bit"),
    ({"model": QUANTISED, "full_finetuning": True}, "full_finetuning"),
    ({"model": QUANTISED, "load_in_16bit": True}, "load_in_16bit"),
    ({"model": QUANTISED, "load_in_4bit": False}, "load_in_4bit"),
    ({"max_seq_length": 1024, "sequence_length": 1025}, "sequence_length"),
    ({"target_modules": []}, "target_modules"),
    ({"target_modules": ["q_proj", "qkv_proj"]}, "target_modules"),
    ({"modules_to_save": ["norm"]}, "modules_to_save"),
    ({"full_finetuning": True, "modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"framework": "transformers", "padding_free": True}, "padding_free"),
    ({"model": "google/gemma-2-9b-it", "padding_free": True}, "padding_free"),
    ({"model": "google/gemma-2-9b-it", "packing": True}, "packing"),
    ({"model": "openai/gpt-oss-20b", "attn_implementation": "flash_attention_2"}, "attn_implementation"),
    ({"unsloth_tiled_mlp": True, "padding_free": False}, "unsloth_tiled_mlp"),
    ({"versions": {"torch": "two"}}, "versions.torch"),
]


@pytest.mark.parametrize(
    ("wrong", "key"), REFUSED_WHEN_READ, ids=[str(key) + f"-{i}" for i, (_, key) in enumerate(REFUSED_WHEN_READ)]
)
def test_a_wrong_value_is_refused_by_its_key(wrong, key):
    with pytest.raises(JobError) as caught:
        parse_job({"model": MODEL, **wrong})
    assert caught.value.key == key
    assert caught.value.allowed or caught.value.message == "is required"
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("wrong", "key"), REFUSED_WHEN_PLANNED, ids=[key + f"-{i}" for i, (_, key) in enumerate(REFUSED_WHEN_PLANNED)]
)
def test_a_contradiction_is_refused_by_one_of_its_keys(wrong, key):
    job = parse_job({"model": MODEL, **wrong})
    with pytest.raises(CtxplanError) as caught:
        estimate(job, architecture_of(str(job.model)))
    assert caught.value.key == key
    assert caught.value.allowed


@pytest.mark.parametrize("data", [None, 3, "job", [], True, [{"model": MODEL}]])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(JobError, match="must be a JSON object"):
        parse_job(data)


def test_a_job_needs_a_model_and_nothing_else():
    with pytest.raises(JobError) as caught:
        parse_job({})
    assert caught.value.key == "model"
    assert parse_job({"model": MODEL}) == Job(model=MODEL)


def test_a_misspelt_key_is_told_the_nearest_one():
    with pytest.raises(JobError, match='did you mean "max_seq_length"'):
        parse_job({"model": MODEL, "max_seq_lenght": 1})
    with pytest.raises(JobError, match='did you mean "adamw_8bit"'):
        parse_job({"model": MODEL, "optim": "adamw_8bits"})


def test_the_defaults_are_unsloths():
    answer = estimate(parse_job({"model": MODEL}), architecture_of(MODEL))
    job = answer.job
    assert (job.gpu, job.max_seq_length, job.per_device_train_batch_size, job.r) == ("H100-80GB", 2048, 1, 16)
    assert (job.load_in_4bit, job.use_gradient_checkpointing, job.optim) == (True, "unsloth", "adamw_8bit")
    assert len(job.target_modules) == 7
    assert (job.padding_free, job.attn_implementation, job.sequence_length) == (True, "sdpa", 2048)


@pytest.mark.parametrize("other", ["load_in_8bit", "load_in_16bit", "load_in_fp8", "full_finetuning"])
def test_four_bit_is_off_and_said_so_where_another_format_is_asked_for(other):
    answer = estimate(parse_job({"model": MODEL, other: True}), architecture_of(MODEL))
    assert answer.job.load_in_4bit is False
    assert getattr(answer.job, other) is True
    assert f"load_in_4bit is off because {other} is asked for" in answer.assumptions


def test_all_linear_means_every_linear_that_the_model_has():
    phi = estimate(
        parse_job({"model": "microsoft/phi-4", "target_modules": "all-linear"}), architecture_of("microsoft/phi-4")
    )
    assert set(phi.job.target_modules) == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just(HUGE)
    | st.just("x" * 10_000)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(sorted(RULES)) | st.text(max_size=10)


@STEADY
@given(ANYTHING | st.dictionaries(KEYS, ANYTHING, max_size=6))
def test_any_json_is_a_job_or_a_job_error(data):
    try:
        job = parse_job(data)
    except JobError as error:
        assert str(error).isprintable()  # noqa: PT017
        assert len(str(error)) < 2000  # noqa: PT017
    else:
        assert isinstance(job, Job)


@STEADY
@given(st.sampled_from(sorted(RULES)), ANYTHING)
def test_any_value_of_a_known_key_is_read_or_refused_by_that_key(key, value):
    try:
        parse_job({"model": MODEL, key: value})
    except JobError as error:
        assert (error.key or "").split(".")[0].split("[")[0] == key  # noqa: PT017


def test_deep_nesting_is_refused_or_kept_without_recursing():
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(JobError):
        parse_job({"model": MODEL, "r": deep})


@STEADY
@given(job_data())
def test_a_job_as_json_is_plain_json_and_reads_back_the_same(data):
    job = parse_job(data)
    written = job_to_json(job)
    assert parse_job(json.loads(json.dumps(written, allow_nan=False))) == job


class TestTheSchema:
    validator = jsonschema_rs.Draft202012Validator(job_schema())

    def test_is_a_valid_schema(self):
        jsonschema_rs.meta.validate(job_schema())
        assert set(job_schema()["properties"]) == set(RULES)
        json.dumps(job_schema(), allow_nan=False)

    def test_states_the_defaults(self):
        written = job_to_json(Job(model=""))
        for key, stated in job_schema()["properties"].items():
            if key != "model":
                assert stated["default"] == written[key]

    @STEADY
    @given(job_data())
    def test_accepts_what_is_read(self, data):
        parse_job(data)
        assert self.validator.is_valid(data)

    @pytest.mark.parametrize(
        "wrong", [wrong for wrong, _ in REFUSED_WHEN_READ if not {"max_seq_length", "model"} & wrong.keys()]
    )
    def test_refuses_what_is_refused(self, wrong):
        if any(isinstance(value, float) and not math.isfinite(value) for value in wrong.values()):
            pytest.skip("JSON has no such number")
        assert not self.validator.is_valid({"model": MODEL, **wrong})

    @STEADY
    @given(
        st.sampled_from(sorted(RULES)),
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5)),
    )
    def test_agrees_with_the_reader_on_any_value(self, key, value):
        data = {"model": MODEL, key: value}
        try:
            parse_job(data)
        except JobError:
            read = False
        else:
            read = True
        stated = self.validator.is_valid(data)
        # A schema cannot say "printable", and a set of names that is written twice is read once.
        assert stated == read or (stated and not json.dumps(value, ensure_ascii=False).isprintable()) or value != value
