"""A job is its address: what a link says is what is planned, and a form gives the same."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page.query import FIRST_JOB, job_of_query, plain_values, query_of_job, unknown_keys, weights_of
from estimator import Job, parse_job
from estimator.errors import JobError
from estimator.job import ATTENTION, CHECKPOINTING, OPTIMIZERS, RULES

NAME = st.text("abcdefghij_.", min_size=1, max_size=12)
MAYBE = st.none() | st.booleans()
JOBS = st.fixed_dictionaries(
    {"model": st.from_regex(r"[a-z]{1,8}/[A-Za-z0-9.&=#%+ -]{1,12}[a-z]", fullmatch=True)},
    optional={
        "gpu": NAME | st.fixed_dictionaries({"name": NAME, "total_bytes": st.integers(2**30, 2**40)}),
        "max_seq_length": st.integers(1, 2**27),
        "sequence_length": st.none() | st.integers(1, 2**27),
        "r": st.integers(1, 8192),
        "load_in_4bit": MAYBE,
        "load_in_8bit": MAYBE,
        "full_finetuning": MAYBE,
        "target_modules": st.just("all-linear") | st.lists(NAME, max_size=4, unique=True),
        "modules_to_save": st.lists(NAME, max_size=3, unique=True),
        "lora_dropout": st.floats(0, 0.999),
        "use_gradient_checkpointing": st.sampled_from(CHECKPOINTING),
        "optim": st.sampled_from(OPTIMIZERS),
        "packing": st.booleans(),
        "padding_free": MAYBE,
        "offload_embedding": st.sampled_from(("auto", True, False)),
        "attn_implementation": st.none() | st.sampled_from(ATTENTION),
        "mode": st.sampled_from(("train", "generate")),
        "host_ram_bytes": st.none() | st.integers(2**30, 2**50),
        "confidence": st.floats(0.5, 0.99),
        "versions": st.dictionaries(st.sampled_from(("torch", "trl")), st.none() | NAME, max_size=2),
    },
)


def read(query: str) -> Job:
    return job_of_query(parse_qsl(query, keep_blank_values=True))


@given(JOBS)
def test_a_link_gives_back_the_very_job(values: dict[str, Any]) -> None:
    job = parse_job(values)
    assert read(query_of_job(job)) == job


@given(JOBS)
def test_the_short_form_of_a_job_means_the_same(values: dict[str, Any]) -> None:
    job = parse_job(values)
    assert parse_job(plain_values(job)) == job


def test_without_a_query_the_first_visitors_job_is_answered() -> None:
    assert job_of_query([]) == parse_job(dict(FIRST_JOB))


def test_fields_that_are_left_empty_take_their_defaults() -> None:
    pairs = [(key, "") for key in RULES if key != "model"] + [("weights", ""), ("host_ram_gib", " ")]
    assert job_of_query([("model", "a/b"), *pairs]) == Job(model="a/b")


def test_a_query_that_names_no_model_changes_the_first_visitors_job() -> None:
    assert job_of_query([("gpu", "A100-80GB")]) == parse_job({**FIRST_JOB, "gpu": "A100-80GB"})
    assert job_of_query([("model", "a/b"), ("gpu", "A100-80GB")]) == Job(model="a/b", gpu="A100-80GB")


def test_keys_that_no_job_has_are_found_each_once() -> None:
    pairs = [("gpu", "T4-16GB"), ("utm", "1"), ("weights", "load_in_8bit"), ("utm", "2"), ("y", ""), ("z", "3")]
    assert unknown_keys(pairs) == ("utm", "z")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("89K", "89,000 or 91,136"), ("89k", "89,000 or 91,136"), ("1.5 M", "1,500,000 or 1,572,864")],
)
def test_thousands_are_refused_with_both_numbers_that_they_may_mean(text: str, allowed: str) -> None:
    with pytest.raises(JobError) as refused:
        job_of_query([("model", "a/b"), ("max_seq_length", text)])
    assert refused.value.key == "max_seq_length"
    assert str(refused.value.allowed).endswith(allowed)


@pytest.mark.parametrize("text", ["89,389", "89 389", "89_389", " 89389 ", "89\u202f389"])
def test_lengths_are_read_as_people_write_them(text: str) -> None:
    assert job_of_query([("model", "a/b"), ("max_seq_length", text)]).max_seq_length == 89_389


@pytest.mark.parametrize(
    ("weights", "asked"),
    [
        ("load_in_16bit", {"load_in_16bit": True}),
        ("full_finetuning,load_in_8bit", {"full_finetuning": True, "load_in_8bit": True}),
        ("!load_in_4bit", {"load_in_4bit": False}),
    ],
)
def test_one_field_chooses_the_weights(weights: str, asked: dict[str, bool]) -> None:
    job = job_of_query([("model", "a/b"), ("weights", weights)])
    assert job == Job(model="a/b", **asked)  # type: ignore[arg-type]
    assert job_of_query([("model", "a/b"), ("weights", weights_of(job))]) == job


def test_host_ram_is_given_in_gib() -> None:
    assert job_of_query([("model", "a/b"), ("host_ram_gib", "512.5")]).host_ram_bytes == int(512.5 * 2**30)


@pytest.mark.parametrize(
    ("pairs", "key"),
    [
        ([("model", ""), ("max_seq_length", "5")], "model"),
        ([("gpu", "A100-80GB"), ("max_seq_len", "5")], "max_seq_len"),
        ([("max_seq_length", "89K")], "max_seq_length"),
        ([("model", "a/b"), ("max_seq_len", "5")], "max_seq_len"),
        ([("model", "a/b"), ("r", "1"), ("r", "2")], "r"),
        ([("model", "a/b"), ("r", "many")], "r"),
        ([("model", "a/b"), ("r", "1.5")], "r"),
        ([("model", "a/b"), ("max_seq_length", "9" * 5000)], "max_seq_length"),
        ([("model", "a/b"), ("packing", "yes")], "packing"),
        ([("model", "a/b"), ("confidence", "nan")], "confidence"),
        ([("model", "a/b"), ("weights", "load_in_2bit")], "weights"),
        ([("model", "a/b"), ("host_ram_gib", "lots")], "host_ram_gib"),
        ([("model", "a/b"), ("host_ram_gib", "inf")], "host_ram_gib"),
        ([("model", "a/b"), ("gpu", "{")], "gpu"),
        ([("model", "a/b"), ("versions", "torch")], "versions"),
        ([("model", "a/b"), ("model\x00", "c")], "model\\x00"),
    ],
)
def test_what_is_no_job_is_refused_by_the_key(pairs: list[tuple[str, str]], key: str) -> None:
    with pytest.raises(JobError) as refused:
        job_of_query(pairs)
    assert refused.value.key == key


def test_a_config_object_has_no_address() -> None:
    with pytest.raises(JobError, match="no address"):
        query_of_job(Job(model={"model_type": "llama"}))
