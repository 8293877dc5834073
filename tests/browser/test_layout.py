"""How pages lie in the windows of a desk and of a phone, and what can be read in their pictures."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from tests.app.test_page import contrast
from tests.browser.driver import Browser
from tests.browser.looking import LOADED, overflow

BOXES = """
return [...document.querySelectorAll('.chart text')].map((one) => {
  const box = one.getBoundingClientRect();
  return [one.textContent, one.parentElement.classList[0], box.left, box.top, box.right, box.bottom];
}).filter((one) => one[4] > one[2] && !one[1]?.startsWith('tip'))
"""
CHARTS = {
    "first": "/",
    "cards near one another": "/?model=meta-llama/Llama-3.1-8B-Instruct&gpu=B200-180GB&max_seq_length=200000",
    "a dot at the left": "/?model=Qwen/Qwen3-8B&gpu=A100-80GB&max_seq_length=30000",
    "a dot in the corner": "/?model=Qwen/Qwen3-0.6B&gpu=T4-16GB",
    "no fit": "/?model=meta-llama/Llama-3.1-8B-Instruct&gpu=RTX-4090-24GB&max_seq_length=120000",
}


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize(
    "path", ["/", "/tiers", "/tiers/llama-3.3-70b-qlora-89k", "/calibrations", "/calibrations/shipped"]
)
def test_no_page_is_wider_than_a_phone(window: Browser, service: str, path: str, width: int) -> None:
    window.look(width=width, height=844, phone=True)
    window.open(f"{service}{path}")
    if path == "/":
        window.wait(LOADED)
    assert overflow(window) <= 0


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_whatever_is_opened_on_the_page_of_a_plan_stays_within_it(window: Browser, service: str, width: int) -> None:
    window.look(width=width, height=844, phone=width < 600)
    window.open(service)
    window.wait(LOADED)
    window.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert overflow(window) <= 0


def test_on_a_phone_a_term_has_its_size_its_formula_and_its_source(window: Browser, service: str) -> None:
    window.look(width=390, height=844, phone=True)
    window.open(service)
    window.run("for (const one of document.querySelectorAll('.group')) one.open = true")
    boxes = window.run(
        "return [...document.querySelectorAll('.terms tbody tr > *')].map((one) => one.getBoundingClientRect())"
        ".map((box) => [box.width, box.height, box.left, box.right])"
    )
    assert len(boxes) > 40
    assert all(width > 20 and height > 10 and left >= 0 and right <= 390 for width, height, left, right in boxes)


def test_on_a_phone_the_whole_plot_of_errors_is_in_sight(window: Browser, service: str) -> None:
    window.look(width=390, height=844, phone=True)
    window.open(f"{service}/calibrations")
    boxes = window.run(
        "return [...document.querySelectorAll('.errors svg')].map((one) => one.getBoundingClientRect())"
        ".map((box) => [box.left, box.right])"
    )
    assert boxes
    assert all(0 <= left < right - 250 and right <= 390 for left, right in boxes)


UNDER_THE_NAME = """
const box = document.querySelector('.curve .now-name').getBoundingClientRect();
const curve = document.querySelector('.curve .needed');
const length = curve.getTotalLength();
const points = [...Array(1001).keys()].map((part) => curve.getPointAtLength(length * part / 1000));
return points.map((one) => one.matrixTransform(curve.getScreenCTM())).map((one) => [one.x, one.y])
  .filter(([x, y]) => x > box.left && x < box.right && y > box.top + 2 && y < box.bottom - 2);
"""
"""Where the curve runs through the name of the job's dot."""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("path", CHARTS.values(), ids=CHARTS)
def test_every_line_of_the_curve_has_its_name_and_no_text_is_on_another(
    window: Browser, service: str, path: str, width: int
) -> None:
    window.look(width=width, height=844, phone=width < 600)
    window.open(f"{service}{path}")
    boxes = window.run(BOXES)
    lines = window.run("return document.querySelectorAll('.card-line').length")
    assert lines == sum(kind == "card-name" for _, kind, *_ in boxes) > 0
    for (one, _, *a), (other, _, *b) in combinations(boxes, 2):
        apart = a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
        assert apart, (one, other)
    card = window.run("const b = document.querySelector('.chart').getBoundingClientRect(); return [b.left, b.right]")
    assert [name for name, _, left, _, right, _ in boxes if left < card[0] - 1 or right > card[1] + 1] == []
    assert window.run(UNDER_THE_NAME) == []


def test_the_badges_of_the_documentation_can_be_read_in_the_dark(window: Browser, service: str) -> None:
    window.look(dark=True)
    window.open(f"{service}/docs")
    window.wait_for_text("#swagger-ui", "/v1/estimates")
    pairs = window.run(
        "return [...document.querySelectorAll('.opblock-summary-method, .version')].map((one) => {"
        "  let back = one;"
        "  while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;"
        "  return [getComputedStyle(one).color, getComputedStyle(back).backgroundColor]; })"
    )
    assert len(pairs) > 10
    for pair in set(map(tuple, pairs)):
        ink, back = ("#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", one)[:3]) for one in pair)
        assert contrast(ink, back) >= 4.5, pair


def test_on_a_phone_the_verdict_stays_in_sight(window: Browser, service: str) -> None:
    window.look(width=390, height=844, phone=True)
    window.open(service)
    box = window.run("return document.getElementById('said').getBoundingClientRect()")
    assert 0 < box["top"] < 844
    assert "Fits" in window.text("#said")
