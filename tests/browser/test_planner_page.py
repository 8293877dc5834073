"""The planner's page in a real browser, against the running service."""

from __future__ import annotations

import os
import re
from itertools import combinations
from pathlib import Path
from time import monotonic
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.page.words import gib
from tests.app.test_page import contrast
from tests.browser.driver import Browser, browser
from tests.probes.common import wait_for

ANSWER_MS = 100
PATIENCE_SECONDS = 6.0
TIMED_CHANGE = """
const [key, text, kind] = arguments;
const field = document.getElementById(key);
const answered = new Promise((settled) => document.body.addEventListener('htmx:afterSettle', function heard(event) {
  if (event.detail.target.id !== 'answer') return;
  document.body.removeEventListener('htmx:afterSettle', heard);
  requestAnimationFrame(() => setTimeout(() => settled(performance.now()), 0));
}));
const start = performance.now();
field.value = text;
field.dispatchEvent(new Event(kind, {bubbles: true}));
return answered.then((end) => end - start);
"""
"""Changes a field, and gives the milliseconds until its answer has been painted."""

CHANGES = {
    "max_seq_length": ("20000", "64000", "89389"),
    "model": ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"),
    "gpu": ("A100-40GB", "B200-180GB", "H100-80GB"),
    "r": ("8", "64", "32"),
    "per_device_train_batch_size": ("2", "4", "1"),
    "use_gradient_checkpointing": ("true", "false", "unsloth"),
    "optim": ("adamw_torch", "sgd", "adamw_8bit"),
    "packing": ("true", "false"),
    "unsloth_tiled_mlp": ("true", "false"),
    "framework": ("transformers", "unsloth"),
    "mode": ("generate", "train"),
    "host_ram_gib": ("64", ""),
}

LOADED = "return !!document.getElementById('cards')"


def job_of(url: str) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(urlsplit(url).query).items()}


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


def overflow(window: Browser) -> int:
    """Pixels by which the page is wider than the window."""
    return int(window.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_a_first_visitor_sees_the_answer_its_picture_and_the_longest_context(window: Browser, service: str) -> None:
    window.open(service)
    estimate = httpx.get(f"{service}/planner.json").json()
    assert window.text("#verdict") == "Fits"
    assert "89,389 tokens · H100-80GB" in window.text(".verdict-card")
    assert f"{estimate['max_context']['max_seq_length']['safe']:,} tokens" in window.text(".figures")
    pictures = window.run("return ['.bar', '.curve'].map((css) => document.querySelector(css).getBoundingClientRect())")
    assert all(box["width"] > 500 and box["height"] > 50 for box in pictures)
    above = window.run("return document.querySelector('.figures').getBoundingClientRect().bottom < innerHeight")
    assert above, "the longest context is not in the first window"


def test_the_bar_is_as_long_as_what_it_says(window: Browser, service: str) -> None:
    window.open(service)
    estimate = httpx.get(f"{service}/planner.json").json()["estimate"]
    widths = window.run(
        "const room = document.querySelector('.limit').getBoundingClientRect().left - "
        "document.querySelector('.bar').getBoundingClientRect().left;"
        "const parts = [...document.querySelectorAll('.bar .seg:not(.free, .margin, .rounding)')];"
        "return [room, parts.reduce((sum, one) => sum + Number(one.getAttribute('width').slice(0, -1)), 0)"
        " * document.querySelector('.bar').getBoundingClientRect().width / 100]"
    )
    shown, true = widths[1] / widths[0], estimate["peak_allocated_bytes"]["expected"] / estimate["room_bytes"]
    assert shown == pytest.approx(true, rel=0.01)


def test_a_model_is_found_as_it_is_typed_and_chosen_with_the_keyboard(window: Browser, service: str) -> None:
    window.open(service)
    window.type("#model", "qwen3 8b")
    window.wait("return document.querySelector('#models:not([hidden]) [data-value=\"Qwen/Qwen3-8B\"]')")
    assert window.run("return document.getElementById('model').getAttribute('aria-expanded')") == "true"
    window.press("Down")
    assert window.run("return document.activeElement.getAttribute('aria-activedescendant')") == "model-1"
    window.press("Enter")
    window.wait_for_text(".verdict-card .eyebrow", "Qwen3-8B")
    assert window.run("return document.getElementById('models').hidden")
    assert job_of(window.url)["model"] == "Qwen/Qwen3-8B"


def test_escape_closes_the_list_and_asks_nothing(window: Browser, service: str) -> None:
    window.open(service)
    window.type("#model", "gemma")
    window.wait("return !document.getElementById('models').hidden")
    window.press("Escape")
    assert window.run("return document.getElementById('models').hidden")
    assert "Llama-3.3-70B" in window.text(".verdict-card .eyebrow")


def test_another_card_answers_at_once_and_the_address_follows(window: Browser, service: str) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(
        "const f = document.getElementById('gpu'); f.value = 'A100-40GB'; "
        "f.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    window.wait_for_text("#verdict", "Does not fit")
    assert job_of(window.url)["gpu"] == "A100-40GB"
    assert window.run("return document.title").startswith("Does not fit")
    window.wait_for_text("#more .here", "A100-40GB")
    assert "A100-40GB" in window.run("return document.getElementById('json').href")


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_is_answered_within_a_tenth_of_a_second(window: Browser, service: str, key: str) -> None:
    """The quickest of some: what the page takes, and not what else the machine was doing. A miss says nothing where
    more wants to run than there are cores: a browser, its service and a test are three already."""
    window.open(service)
    window.wait(LOADED)
    is_typed = window.run("return document.getElementById(arguments[0]).matches('input[data-live]')", key)
    times: list[float] = []
    end = monotonic() + PATIENCE_SECONDS
    while not times or (min(times) >= ANSWER_MS and monotonic() < end):
        for text in CHANGES[key]:
            times.append(window.run(TIMED_CHANGE, key, text, "input" if is_typed else "change"))
    if min(times) >= ANSWER_MS and os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip(f"the machine is too busy to say: {min(times):.0f} ms at the best")
    assert min(times) < ANSWER_MS, times


def test_the_slider_and_the_field_say_the_same(window: Browser, service: str) -> None:
    window.open(service)
    window.run("const s = document.getElementById('slide'); s.value = 15; s.dispatchEvent(new Event('input'))")
    window.wait_for_text(".verdict-card .eyebrow", "32,800 tokens")
    assert job_of(window.url)["max_seq_length"] == "32800"
    window.type("#max_seq_length", "65,536")
    window.wait_for_text(".verdict-card .eyebrow", "65,536 tokens")
    assert float(window.run("return document.getElementById('slide').value")) == 16


def test_a_proposal_is_applied_by_a_click_and_the_way_back_works(window: Browser, service: str) -> None:
    window.open(service)
    window.wait(LOADED)
    title = window.text(".changes li h3")
    window.click(".changes li .button")
    window.wait("return document.readyState === 'complete' && document.querySelector('.verdict-card')")
    assert window.text("#verdict") == "Fits"
    assert f"{int(job_of(window.url)['max_seq_length']):,}" in title
    window.run("history.back()")
    window.wait_for_text(".verdict-card .eyebrow", "89,389 tokens")


def test_a_cell_of_the_cards_plans_that_card_and_mode(window: Browser, service: str) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(
        "const rows = [...document.querySelectorAll('.cards tr')];"
        "rows.find((row) => row.innerText.startsWith('H200')).querySelectorAll('a')[1].click()"
    )
    window.wait("return document.readyState === 'complete' && location.search.includes('H200')")
    assert job_of(window.url)["use_gradient_checkpointing"] == "true"
    assert window.run("return document.getElementById('use_gradient_checkpointing').value") == "true"


@pytest.mark.parametrize(("kind", "start"), [("python", '"""Fine-tune'), ("yaml", "model: "), ("curl", "curl -s ")])
def test_what_is_copied_is_what_is_shown(window: Browser, service: str, kind: str, start: str) -> None:
    window.open(service)
    window.wait(LOADED)  # what comes later moves what is below it
    allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    window.devtools("Browser.grantPermissions", origin=service, permissions=allowed)
    window.click(f"label[for=tab-{kind}]")
    window.click(f"[data-copy=copy-{kind}]")
    window.wait_for_text(f"[data-copy=copy-{kind}]", "Copied")
    copied = window.run("return navigator.clipboard.readText()")
    assert copied.startswith(start)
    assert copied == window.run("return document.getElementById(arguments[0]).textContent", f"copy-{kind}")


def test_the_link_to_share_gives_the_same_page_to_somebody_else(window: Browser, service: str) -> None:
    window.open(
        f"{service}/?model=Qwen/Qwen3-8B&gpu=L40S-48GB&max_seq_length=20000&weights=load_in_16bit&r=64&packing=true"
    )
    link, said = window.run("return document.getElementById('share').value"), window.text(".verdict-card .lead")
    window.open("about:blank")
    window.open(link)
    assert window.text(".verdict-card .lead") == said
    assert window.run("return ['r', 'weights', 'packing'].map((id) => document.getElementById(id).value)") == [
        "64",
        "load_in_16bit",
        "true",
    ]


def test_a_wrong_value_is_explained_at_its_field_and_mends_itself(window: Browser, service: str) -> None:
    window.open(service)
    window.type("#r", "many")
    window.wait_for_text("#answer [role=alert]", '"many" is not accepted')
    assert window.run("return document.getElementById('r').getAttribute('aria-invalid')") == "true"
    window.wait("return !document.querySelector('#more .card') && !document.querySelector('#take .card')")
    window.type("#r", "16")
    window.wait_for_text("#verdict", "Fits")
    assert window.run("return document.getElementById('r').getAttribute('aria-invalid')") is None


def test_a_mistyped_model_is_offered_as_it_was_meant(window: Browser, service: str) -> None:
    window.open(service)
    window.type("#model", "lama-3.2-1b")
    window.wait("return document.querySelector('#models:not([hidden]) [data-value^=\"meta-llama/Llama-3.2-1B\"]')")


def test_a_model_that_is_not_known_is_answered_with_the_nearest(window: Browser, service: str) -> None:
    window.open(service)
    window.type("#model", "Qwen/Qwen3-8")
    window.wait("return !document.getElementById('models').hidden")
    window.press("Escape", "Tab")
    window.wait_for_text("#answer", "This model is not known here")
    window.click("#answer [data-set]")
    window.wait_for_text(".verdict-card .eyebrow", "Qwen3-8B")


def test_a_part_that_a_busy_service_refused_is_asked_for_again(window: Browser, service: str) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(
        "window.refused = 0;"
        "const open = XMLHttpRequest.prototype.open;"
        "XMLHttpRequest.prototype.open = function (method, url, ...rest) {"
        "  const busy = window.refused < 2 && url.startsWith('/page/') && ++window.refused;"
        "  return open.call(this, method, busy ? '/none' : url, ...rest); };"
        "Object.defineProperty(XMLHttpRequest.prototype, 'status', {get() {"
        "  return this.responseURL.endsWith('/none') ? 503 : 200; }});"
        "const get = XMLHttpRequest.prototype.getResponseHeader;"
        "XMLHttpRequest.prototype.getResponseHeader = function (name) {"
        "  return name === 'retry-after' ? '0.05' : get.call(this, name); };"
    )
    window.type("#max_seq_length", "30000")
    window.wait_for_text(".verdict-card .eyebrow", "30,000 tokens")
    window.wait("return document.getElementById('lost').hidden")
    assert window.run("return window.refused") == 2
    window.complaints()


def test_open_groups_stay_open_when_the_answer_changes(window: Browser, service: str) -> None:
    window.open(service)
    window.click("#answer details.group summary")
    assert "Base weights" in window.text("#answer details.group[open]")
    assert "functional.py quantize_4bit" in window.text("#answer details.group[open]")
    window.type("#max_seq_length", "50000")
    window.wait_for_text(".verdict-card .eyebrow", "50,000 tokens")
    assert "Base weights" in window.text("#answer details.group[open]")


def test_pointing_at_the_curve_tells_its_numbers_and_a_click_takes_the_length(window: Browser, service: str) -> None:
    window.open(service)
    window.run("document.querySelector('.pointing').scrollIntoView({block: 'center'})")
    box = window.run("return document.querySelector('.pointing').getBoundingClientRect()")
    window.point(box["left"] + box["width"] * 0.25, box["top"] + box["height"] / 2)
    told = str(window.wait("return document.querySelector('.tip.shown text')?.textContent"))
    length = int(told.partition(" ")[0].replace(",", ""))
    curve = httpx.get(f"{service}/planner.json").json()["curve"]["points"]
    found = next(one for one in curve if one["tokens"] == length)
    assert told == f"{length:,} tokens: {gib(found['expected'])} to {gib(found['upper'])} GiB"
    window.point(box["left"] + box["width"] * 0.25, box["top"] + box["height"] / 2, press=True)
    window.wait_for_text(".verdict-card .eyebrow", f"{length:,} tokens")


def test_a_screen_reader_is_told_the_new_verdict(window: Browser, service: str) -> None:
    window.open(service)
    assert window.run("return document.getElementById('said').getAttribute('aria-live')") == "polite"
    window.type("#max_seq_length", "400000")
    window.wait("return document.getElementById('said').textContent.includes('Does not fit')")


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


def test_the_documentation_page_shows_the_interface(window: Browser, service: str) -> None:
    window.open(f"{service}/docs")
    window.wait_for_text("#swagger-ui", "/v1/estimates")


def test_the_page_works_without_javascript(tmp_path: Path, service: str) -> None:
    with browser(tmp_path, javascript=False) as plain:
        asked = f"{service}/?model=Qwen/Qwen3-8B&gpu=A100-40GB&max_seq_length=30000"
        plain.open(asked)
        wait_for(lambda: "Qwen3-8B · 30,000 tokens · A100-40GB" in plain.source, "the answer is on the page")
        button = plain.command("POST", "/element", {"using": "css selector", "value": "form button[type=submit]"})
        plain.command("POST", f"/element/{next(iter(button.values()))}/click")
        wait_for(lambda: plain.url != asked, "the form was sent")
        wait_for(lambda: "Longest context on other cards" in plain.source, "the whole answer is on the page")
        assert "What to change" in plain.source
        assert job_of(plain.url)["gpu"] == "A100-40GB"
