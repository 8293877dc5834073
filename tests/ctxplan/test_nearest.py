"""The model that was perhaps meant is of the same family and size; where none is, none is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxplan import catalogue
from ctxplan.models import resolve_model
from ctxplan.nearest import nearest
from estimator.errors import UnknownModel


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("unsloth/Llama-3.3-70B-Instuct", "unsloth/Llama-3.3-70B-Instruct"),
        ("Qwen/Qwen3-8", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B-Instruct", "Qwen/Qwen3-8B"),
        ("qwen3 30b", "Qwen/Qwen3-30B-A3B"),
        ("llama 70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("lama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct"),
        ("llama3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"),
        ("unsloth/llama-3.3-70b", "unsloth/Llama-3.3-70B-Instruct"),
        ("Llama-3.3-70B-Instruct-bnb-4bit", "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ", "Qwen/Qwen2.5-7B-Instruct"),
        ("microsoft/phi4", "microsoft/phi-4"),
        ("openai/gpt-oss-20", "openai/gpt-oss-20b"),
        ("mistral 7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("gemma-2-9b", "google/gemma-2-9b-it"),
    ],
)
def test_a_name_is_answered_with_the_model_of_its_family_generation_and_size(typed: str, meant: str) -> None:
    assert catalogue.nearest(typed) == meant


@pytest.mark.parametrize(
    "typed",
    [
        "bert-base-uncased",
        "deepseek r1",
        "none/such",
        "xyz/nothing-like-it",
        "unsloth/Llama-3.1-405B",
        "instruct",
        "8b",
        "",
        "/",
        "a" * 100_000,
    ],
)
def test_a_name_of_another_family_or_size_is_answered_with_none(typed: str) -> None:
    assert catalogue.nearest(typed) is None


def test_every_known_name_is_most_like_itself() -> None:
    for entry in catalogue.entries().values():
        assert catalogue.nearest(entry.id) == entry.id
        assert catalogue.nearest(entry.id.rpartition("/")[2]) is not None


@given(st.text(max_size=300))
def test_whatever_is_typed_is_answered(typed: str) -> None:
    assert nearest(typed, ("Qwen/Qwen3-8B",)) in (None, "Qwen/Qwen3-8B")


def test_the_error_of_an_unknown_model_names_it() -> None:
    with pytest.raises(UnknownModel, match=r'the nearest name in the catalogue is "Qwen/Qwen3-8B"'):
        resolve_model("Qwen/Qwen3-8B-Instruct", offline=True)
