"""The table of claims in the manual: of enough rounds on both databases, and every promise kept in each."""

from __future__ import annotations

import pytest

from benchmarks import claims
from benchmarks.claims import LEAST_ROUNDS, MANUAL, Round, block, check

QUICK = Round(700.4, 30.2, 4.0)
ENOUGH = {name: [QUICK] * (LEAST_ROUNDS - 1) + [Round(1_203.0, 55.0, 9.0)] for name in claims.DATABASES}


def page(found: dict[str, list[Round]]) -> str:
    return f"before\n<!-- claims -->\n{block(found, 'Python 3')}<!-- /claims -->\nafter"


def test_the_committed_table_is_of_enough_rounds_and_kept_every_promise() -> None:
    assert check(MANUAL.read_text(encoding="utf-8")) == []


def test_the_table_has_the_least_and_the_most_of_all_rounds() -> None:
    assert check(page(ENOUGH)) == []
    assert "| SQLite | 700 to 1,203 | 30 to 55 | 4 to 9 |" in page(ENOUGH)


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        (Round(499.0, 30.0, 4.0), "PostgreSQL: 499 claims a second"),
        (Round(700.0, 101.0, 4.0), "PostgreSQL: 99 % of the claims within 101 ms"),
        (Round(700.0, 30.0, 120.0), "PostgreSQL: a page in 120 ms"),
    ],
)
def test_a_promise_that_was_broken_in_one_round_is_named(worse: Round, said: str) -> None:
    assert check(page({**ENOUGH, "PostgreSQL": [*ENOUGH["PostgreSQL"], worse]})) == [said]


def test_too_few_rounds_or_no_table_are_named() -> None:
    assert check(page({name: [QUICK] for name in claims.DATABASES})) == ["1 rounds are too few"]
    for nothing in ("", "<!-- claims -->\n<!-- /claims -->", page({"SQLite": [QUICK] * LEAST_ROUNDS})):
        assert "python -m benchmarks.claims" in check(nothing)[0]
