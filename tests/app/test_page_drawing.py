"""What the page draws is to scale, and what it searches is found."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page.answer import Answer
from app.page.bar import Bar, bar_of
from app.page.beyond import evidence_of
from app.page.cards import cards_of
from app.page.curve import round_up
from app.page.curve_drawing import HEIGHT, LABEL_GAP, spread
from app.page.evidence import LEFT, RIGHT, error_plot, place
from app.page.query import job_of_query
from app.page.search import search
from app.page.terms import GROUPS, group_of, grouped
from app.page.words import MIB, gib, human, signed, thousands
from ctxplan import Planner
from ctxplan.calibrations import shipped
from ctxplan.models import models
from estimator import Estimate
from estimator.calibration.bound import conformal_margin
from estimator.calibration.document import STRUCTURAL
from estimator.errors import CtxplanError
from tests.app.test_page import first as first
from tests.app.test_page import planner as planner

PAIRS = {
    "first": [],
    "room to spare": [("model", "Qwen/Qwen3-8B"), ("gpu", "T4-16GB")],
    "even odds": [("model", "Qwen/Qwen3-8B"), ("confidence", "0.5")],
    "few points": [("model", "Qwen/Qwen3-8B"), ("weights", "load_in_8bit"), ("confidence", "0.99")],
    "experts": [("model", "Qwen/Qwen3-30B-A3B")],
}


def barred(planner: Planner, pairs: list[tuple[str, str]]) -> tuple[Estimate, Bar]:
    job = job_of_query(pairs)
    facts = planner.facts(job.model)
    estimate = planner.estimate(job, facts)
    return estimate, bar_of(estimate, evidence_of(job, planner, facts))


def test_the_segments_of_the_bar_are_the_terms_to_scale(first: Answer) -> None:
    bar, estimate = first.bar, first.estimate
    drawn = [one for one in bar.segments if one.key not in ("rounding", "margin", "free")]
    assert sorted((one.title, one.bytes) for one in drawn) == sorted((human(t.name), t.bytes) for t in estimate.terms)
    assert sum(one.bytes for one in drawn) == estimate.peak_allocated_bytes.expected
    assert sum(one.width for one in drawn) / bar.room == pytest.approx(
        estimate.peak_allocated_bytes.expected / estimate.room_bytes, rel=1e-3
    )
    for before, after in pairwise(bar.segments):
        assert after.x == pytest.approx(before.x + before.width, abs=0.002)
    assert bar.segments[-1].x + bar.segments[-1].width == pytest.approx(bar.room, abs=0.01)


def test_a_bar_that_is_too_long_runs_beyond_the_card(planner: Planner) -> None:
    _, bar = barred(planner, [("model", "Qwen/Qwen3-32B"), ("gpu", "T4-16GB"), ("max_seq_length", "4096")])
    last = bar.segments[-1]
    assert last.x + last.width > bar.room
    assert bar.over_bytes
    assert not bar.free_bytes


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_what_is_needed_beyond_the_tensors_is_summed_from_terms_with_formula_and_source(
    planner: Planner, pairs: list[tuple[str, str]]
) -> None:
    estimate, bar = barred(planner, pairs)
    tensors, needed = estimate.peak_allocated_bytes, estimate.needed_bytes
    sizes = {one.group.key: one.bytes for one in bar.beyond}
    assert sizes == {"rounding": needed.expected - tensors.expected, "margin": needed.upper - needed.expected}
    terms = {term.name: term for one in bar.beyond for term in one.terms}
    assert all(term.bytes > 0 and term.formula and term.source for term in terms.values())
    assert all(sum(term.bytes for term in one.terms) == one.bytes for one in bar.beyond)
    error = terms["error_of_the_estimate"]
    share = float(error.formula.partition("%")[0]) / 100
    assert error.bytes == pytest.approx(share * tensors.expected, abs=0.00001 * tensors.expected)
    pages = {term.bytes / MIB for term in (terms["partly_used_pages"], terms["more_such_pages"])}
    assert max(pages) <= 320


def test_the_margin_names_the_points_whose_bound_it_is(planner: Planner) -> None:
    _, bar = barred(planner, [])
    margin = bar.beyond[-1]
    name = "eager/dense/unsloth/H100-80GB"
    residuals = shipped().residuals[name]
    error, pages = margin.terms
    assert error.source == (
        f"bound at 95% from {len(residuals)} points of {name}: estimator/calibration/bound.py weigh_evidence"
    )
    assert error.formula == f"{conformal_margin(residuals, 0.95)[0]:.3%} of the tensors at the peak"
    assert pages.bytes == (320 - 64) * MIB
    assert "320 MiB" in pages.formula
    _, outside = barred(planner, PAIRS["room to spare"])
    assert "outside the measured range" in outside.beyond[-1].terms[0].source
    structural = Planner(offline=True, calibration=STRUCTURAL)
    assert "PATH_MARGINS" in barred(structural, [])[1].beyond[-1].terms[0].source


def test_why_several_modes_of_a_card_have_no_number_is_said_once(planner: Planner) -> None:
    job = job_of_query([("model", "Qwen/Qwen3-8B"), ("attn_implementation", "flash_attention_2")])
    old, new = (row for row in cards_of(job, planner, planner.facts(job.model)) if row.gpu in ("T4-16GB", "H100-80GB"))
    assert [(cell.fault is not None, columns) for cell, columns in old.columns] == [(True, 3)]
    assert [(cell.mode, columns) for cell, columns in new.columns] == [("unsloth", 1), (True, 1), (False, 1)]


def test_every_term_of_every_model_has_a_group_and_large_ones_a_telling_one(planner: Planner) -> None:
    ways: list[dict[str, Any]] = [{}, {"full_finetuning": True}, {"framework": "transformers"}]
    ways += [{"mode": "generate", "max_new_tokens": 64}, {"use_gradient_checkpointing": False}, {"padding_free": False}]
    seen = set()
    for model in models():
        for way in ways:
            try:
                estimate = planner.estimate({"model": model.id, "max_seq_length": 8192, **way})
            except CtxplanError:
                continue
            groups = grouped(estimate.terms)
            assert sum(one.bytes for one in groups) == estimate.peak_allocated_bytes.expected
            seen |= {one.group.key for one in groups}
            rest = next((one.bytes for one in groups if one.group is GROUPS[-1]), 0)
            assert rest < 0.35 * estimate.peak_allocated_bytes.expected, (model.id, way)
    assert seen == {group.key for group in GROUPS}
    assert group_of("mlp_gate_up").key == "mlp"
    assert group_of("something_new") is GROUPS[-1]


def test_the_curve_is_the_planners_and_holds_the_jobs_own_length(first: Answer, planner: Planner) -> None:
    points = {point.tokens: point for point in first.curve.points}
    assert points[89_389].expected == first.estimate.needed_bytes.expected
    assert first.longest.safe in points
    some = points[first.longest.safe]
    body = {"model": first.asked.model, "gpu": "H100-80GB", "r": 32, "max_seq_length": some.tokens}
    assert planner.estimate(body).needed_bytes == (some.expected, some.upper)
    assert max(points) == first.curve.end >= first.longest.expected
    assert len(points) >= 40


def test_the_drawing_is_to_scale(first: Answer) -> None:
    drawing = first.drawing
    assert drawing.job.point.tokens == 89_389
    assert drawing.job.at == pytest.approx(100 * 89_389 / first.curve.end, abs=0.01)
    chosen = next(line for line in drawing.lines if line.card.chosen)
    top = drawing.height * first.estimate.room_bytes / (drawing.height - chosen.y)
    assert drawing.job.y == pytest.approx(drawing.height * (1 - first.estimate.needed_bytes.expected / top), abs=0.05)
    places = [mark.at for mark in drawing.marks]
    assert places == sorted(places)
    assert 0 <= places[0] < places[-1] <= 100
    assert all(
        mark.y == pytest.approx(drawing.height * (1 - mark.point.expected / top), abs=0.05) for mark in drawing.marks
    )
    assert [line.card.gpu for line in drawing.lines if line.card.gpu.startswith("L40S")] == ["L40S-48GB"]
    labels = [line.label_y for line in drawing.lines]
    assert all(b - a >= LABEL_GAP for a, b in pairwise(labels))
    assert labels[0] >= LABEL_GAP / 2
    assert labels[-1] <= drawing.height - LABEL_GAP / 2


@given(st.lists(st.floats(0, HEIGHT), min_size=1, max_size=18))
def test_names_are_moved_apart_in_order_and_stay_in_the_picture(places: list[float]) -> None:
    moved = spread(sorted(places), gap=LABEL_GAP, first=8, last=HEIGHT - 8)
    assert all(b - a >= LABEL_GAP - 0.02 for a, b in pairwise(moved))
    assert min(moved) >= 8
    assert max(moved) <= HEIGHT - 8 + 0.01


def test_names_that_have_room_stay_where_they_are() -> None:
    assert spread([20, 50, 300], gap=16, first=8, last=312) == [20, 50, 300]
    assert spread([100, 100], gap=16, first=8, last=312) == [92, 108]
    assert spread([0, 320], gap=16, first=8, last=312) == [8, 312]


@pytest.mark.parametrize(("value", "rounded"), [(1, 2), (95, 96), (104_000, 120_000), (137_740, 140_000), (4096, 4200)])
def test_axes_end_at_round_numbers(value: float, rounded: int) -> None:
    assert round_up(value) == rounded


def test_the_cards_table_is_what_the_search_for_the_longest_context_says(planner: Planner) -> None:
    job = job_of_query([("model", "Qwen/Qwen3-8B"), ("gpu", "A10G-24GB")])
    rows = cards_of(job, planner, planner.facts(job.model))
    chosen = next(row for row in rows if row.chosen)
    assert chosen.gpu == "A10G-24GB"
    assert [cell.mode for cell in chosen.cells] == ["unsloth", True, False]
    assert [cell.current for cell in chosen.cells] == [True, False, False]
    for row in rows:
        for cell in row.cells:
            body = {"model": "Qwen/Qwen3-8B", "gpu": row.gpu, "use_gradient_checkpointing": cell.mode}
            assert cell.safe == planner.max_context(body).safe
    assert sum(row.chosen for row in rows) == 1


@pytest.mark.parametrize(
    ("typed", "first_found"),
    [
        ("qwen3 8b", "Qwen/Qwen3-8B"),
        ("llama 70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("QWEN3-0.6", "Qwen/Qwen3-0.6B"),
    ],
)
def test_models_are_found_by_words_in_any_order_and_case(typed: str, first_found: str) -> None:
    assert first_found in [one.name for one in search(typed)][:2]


def test_a_model_is_found_by_another_of_its_names() -> None:
    dynamic = "Llama-3.3-70B-Instruct-unsloth-bnb"
    assert [one.name for one in search(dynamic)] == [f"unsloth/{dynamic}-4bit"]
    assert search("no such model") == ()
    assert len(search("")) == 12
    assert search("x" * 100_000) == ()


def test_errors_lie_on_one_scale_symmetric_around_none() -> None:
    assert place(0) == (LEFT + RIGHT) / 2
    assert place(0.01) - place(0) == pytest.approx(place(0) - place(-0.01), abs=0.002)
    assert place(-9) == LEFT
    assert place(9) == RIGHT
    assert place(0.0001) < place(0.001) < place(0.01) < place(0.1)


def test_the_error_plot_has_every_residual_of_the_calibration() -> None:
    calibration, plot = shipped(), error_plot(shipped())
    paths = sum(len(found) for name, found in calibration.residuals.items() if "/" not in name)
    assert sum(len(one.dots) for one in plot.strata) == paths
    for one in plot.strata:
        assert one.bound is None or max(dot.error for dot in one.dots) >= one.bound
        assert abs(one.worst) == max(abs(dot.error) for dot in one.dots)
    assert error_plot(STRUCTURAL).strata == ()


def test_numbers_are_written_with_the_digits_that_matter() -> None:
    assert [gib(int(size * 2**30)) for size in (0, 0.001, 0.06, 4.771, 69.48, 1234.5)] == [
        "0.00", "<0.01", "0.06", "4.77", "69.5", "1,234"
    ]  # fmt: skip
    assert [thousands(n) for n in (0, 500, 24_000, 1_500_000)] == ["0", "500", "24K", "1.5M"]
    assert [signed(n) for n in (-0.0000145, 0.00812, 0.0)] == ["−0.001%", "+0.81%", "+0.000%"]
    assert human("lora_parameters") == "LoRA parameters"
    assert human("kv_cache") == "KV cache"
