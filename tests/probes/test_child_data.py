"""Texts that have as many tokens as a row, whatever tokenizer counts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.child.data import LETTERS_A_TOKEN, TRIES, document_lengths, random_texts
from probes.errors import PointError
from probes.points import parse_point
from tests.probes.tiny import tiny_job


class Counting:
    """A tokenizer that makes a token of so many letters, or of each word."""

    name_or_path = "some/model"

    def __init__(self, letters: int | None = None) -> None:
        self.letters = letters
        self.asked: list[int] = []

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        assert options == {"add_special_tokens": False}
        self.asked.append(len(text))
        return {"input_ids": [0] * (len(text) // self.letters if self.letters else len(text.split()))}


def test_a_tokenizer_of_letters_is_given_as_many() -> None:
    tokenizer = Counting(letters=1)
    (text,) = random_texts((100,), tokenizer, seed=0)
    assert len(text) == 100
    assert tokenizer.asked == [100]


@pytest.mark.parametrize("tokenizer", [Counting(letters=4), Counting(letters=20), Counting()], ids=["4", "20", "words"])
@pytest.mark.parametrize("tokens", [1, 7, 5000])
def test_one_that_makes_fewer_is_given_more_until_there_are_enough(tokenizer: Counting, tokens: int) -> None:
    (text,) = random_texts((tokens,), tokenizer, seed=0)
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) >= tokens
    assert len(text) <= LETTERS_A_TOKEN * tokens


def test_words_are_of_letters_with_a_space_between() -> None:
    (text,) = random_texts((600,), Counting(letters=1), seed=0)
    assert set(map(len, text.split(" ")[:-1])) == {5}
    assert text.replace(" ", "").isalpha()
    assert text == text.strip()


def test_one_that_knows_no_letters_is_given_up_and_named() -> None:
    class One(Counting):
        def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
            super().__call__(text, **options)
            return {"input_ids": [0]}

    tokenizer = One()
    with pytest.raises(PointError, match="some/model makes 1 tokens") as raised:
        random_texts((64,), tokenizer, seed=0)
    assert raised.value.key == "job.model"
    assert len(tokenizer.asked) == TRIES
    assert max(tokenizer.asked) <= LETTERS_A_TOKEN * 64


def test_the_synthetic_tokenizer_makes_a_token_of_every_letter(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from probes.child.checkpoint import write_tokenizer

    write_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    (text,) = random_texts((50,), tokenizer, seed=0)
    assert len(text) == len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 50


def test_a_micro_batch_has_the_documents_that_are_given_or_one_a_row() -> None:
    rows = {"job": tiny_job(per_device_train_batch_size=3)}
    assert document_lengths(parse_point(rows)) == (64, 64, 64)
    given = {"job": tiny_job(packing=True), "sample_lengths": [40, 24]}
    assert document_lengths(parse_point(given)) == (40, 24)
