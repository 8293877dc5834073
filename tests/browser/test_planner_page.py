"""The planner's page in a real browser, against the running service."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.page.words import gib
from tests.browser.driver import Browser, browser
from tests.browser.looking import LOADED, job_of
from tests.probes.common import wait_for


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
