"""The rules that read JSON values: each accepts its range, refuses the rest by key, and states itself as a schema."""

from __future__ import annotations

import math

import pytest

from estimator.errors import JobError
from estimator.rules import Choice, Integer, Names, Number, Optional, Rule, Text, hint, parse_object, shorten, shown


class TestAnInteger:
    rule = Integer(1, 10)

    @pytest.mark.parametrize("value", [1, 5, 10])
    def test_within_its_range_is_itself(self, value):
        assert self.rule.parse("k", value) == value

    @pytest.mark.parametrize(
        "value", [0, 11, -1, 2.0, True, None, "3", math.inf, pytest.param(10**5000, id="5001 digits")]
    )
    def test_otherwise_is_refused_with_the_range(self, value):
        with pytest.raises(JobError, match="from 1 to 10") as caught:
            self.rule.parse("k", value)
        assert caught.value.key == "k"


class TestANumber:
    rule = Number(0.0, 0.999)

    @pytest.mark.parametrize("value", [0, 0.0, 0.5, 0.999])
    def test_within_its_range_is_itself(self, value):
        assert self.rule.parse("k", value) == value

    @pytest.mark.parametrize(
        "value", [1, -1e-9, math.nan, math.inf, -math.inf, False, "0.1", pytest.param(10**5000, id="5001 digits")]
    )
    def test_otherwise_is_refused(self, value):
        with pytest.raises(JobError):
            self.rule.parse("k", value)


class TestAChoice:
    rule = Choice(("unsloth", True, False))

    @pytest.mark.parametrize("value", ["unsloth", True, False])
    def test_is_one_of_its_values(self, value):
        assert self.rule.parse("k", value) is value

    @pytest.mark.parametrize("value", [1, 0, "true", "Unsloth", None, [], 1.0])
    def test_does_not_take_one_for_true(self, value):
        with pytest.raises(JobError) as caught:
            self.rule.parse("k", value)
        assert caught.value.allowed == '"unsloth", true, false'


class TestAText:
    @pytest.mark.parametrize("value", ["", "x" * 9, "a\nb", "\x1b[31m", 3, None])
    def test_of_no_or_too_many_or_control_characters_is_refused(self, value):
        with pytest.raises(JobError):
            Text(8).parse("k", value)

    def test_of_any_script_is_itself(self):
        assert Text(8).parse("k", "größe 模型") == "größe 模型"


class TestNames:
    def test_lose_their_repetitions_and_keep_their_order(self):
        assert Names().parse("k", ["b", "a", "b"]) == ("b", "a")

    def test_may_be_a_shorthand(self):
        assert Names(shorthands=("all-linear",)).parse("k", "all-linear") == "all-linear"
        with pytest.raises(JobError):
            Names().parse("k", "all-linear")

    def test_that_may_not_be_empty_are_refused_when_empty(self):
        assert Names().parse("k", []) == ()
        with pytest.raises(JobError, match="non-empty"):
            Names(may_be_empty=False).parse("k", [])


def test_an_optional_is_its_rule_or_null():
    assert Optional(Integer(1, 2)).parse("k", None) is None
    assert Optional(Integer(1, 2)).parse("k", 2) == 2
    assert Optional(Integer(1, 2)).schema() == {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "null"}]
    }


THING: dict[str, Rule] = {"size": Integer(1, 9), "name": Text(9)}


class TestAnObject:
    def test_names_the_missing_key(self):
        with pytest.raises(JobError, match="size: is required"):
            parse_object(THING, {}, what="a thing", required=frozenset({"size"}))

    def test_names_the_unknown_key_and_the_nearest(self):
        with pytest.raises(JobError, match='sizes: unknown key; did you mean "size"') as caught:
            parse_object(THING, {"sizes": 1}, what="a thing", required=frozenset())
        assert caught.value.key == "sizes"

    def test_shortens_an_endless_key(self):
        with pytest.raises(JobError) as caught:
            parse_object(THING, {"k\n" * 5000: 1}, what="a thing", required=frozenset())
        assert len(caught.value.key or "") <= 160
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("a", '"a"'),
        ({"a": 1}, "an object"),
        ([1, 2], "a list of 2"),
        (10**50, "a number of over 40 digits"),
        (1.5, "1.5"),
    ],
)
def test_a_value_is_shown_as_json_in_few_characters(value, text):
    assert shown(value) == text


def test_a_text_is_cut_and_escaped():
    assert shorten("x" * 100) == "x" * 79 + "…"
    assert shorten("a\x1bb") == "a\\x1bb"


def test_a_hint_is_given_only_where_something_is_near():
    assert hint("unslot", ("unsloth", True)) == '; did you mean "unsloth"?'
    assert hint("zzz", ("unsloth", True)) == ""
    assert hint(3, ("unsloth",)) == ""


@pytest.mark.parametrize("value", ["modle", "omdel", "moedl"])
def test_two_letters_that_changed_places_are_the_nearest_slip(value):
    assert hint(value, ("mode", "model", "modules")) == '; did you mean "model"?'


def test_of_other_slips_the_most_alike_is_meant():
    assert hint("mod", ("model", "mode")) == '; did you mean "mode"?'
    assert hint("ledom", ("model", "mode")) == ""
