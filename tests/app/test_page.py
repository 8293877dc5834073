"""What the pages show is what the planner says, drawn to scale, and readable by everybody."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
import yaml
from starlette.testclient import TestClient

from app.main import create_app
from app.page.answer import Answer, answer_of
from app.page.query import FIRST_JOB, job_of_query
from app.pages import POLICY, STATIC
from app.settings import Settings
from ctxplan import Planner
from tests.app.test_problems import problem_of

HTML = {"accept": "text/html"}
SMALL = "model=Qwen/Qwen3-8B&gpu=L40S-48GB&max_seq_length=20000"
PAGES = (
    "/",
    f"/?{SMALL}",
    f"/?{SMALL}&whole=1",
    "/?model=none/such",
    "/docs",
    "/tiers",
    "/tiers/llama-3.3-70b-qlora-89k",
    "/tiers/llama-3.3-70b-qlora-longest-125gib-host",
    "/tiers/none",
    "/calibrations",
    "/calibrations/shipped",
    "/calibrations/none",
    "/problems/unknown-model",
    "/jobs",
    "/jobs?state=failed",
    "/jobs/1",
    "/campaigns",
    "/workers",
    "/sign-in",
)
VOID = {"meta", "link", "input", "br", "hr", "img"}
SVG_LEAVES = {"rect", "line", "circle", "polygon", "polyline", "path"}


class Reader(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order; attributes are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID | SVG_LEAVES, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> in the wrong place"

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(offline=True)


@pytest.fixture(scope="module")
def first(planner: Planner) -> Answer:
    job = job_of_query([])
    return answer_of(job, planner, planner.facts(job.model), address="http://host")


@pytest.fixture(params=PAGES)
def shown(request: pytest.FixtureRequest, client: TestClient) -> Reader:
    return Reader(client.get(request.param, headers=HTML).text)


def test_a_page_is_well_formed_and_its_ids_are_its_own(shown: Reader) -> None:
    ids = [attributes["id"] for _, attributes in shown.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in shown.elements:
        for name in ("aria-labelledby", "aria-controls", "aria-describedby", "for"):
            for target in (attributes.get(name) or "").split():
                assert target in ids, f"{name} names {target}, which is not there"


def test_a_page_has_no_style_and_no_script_of_its_own(shown: Reader) -> None:
    for tag, attributes in shown.elements:
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag != "style"
        assert tag != "script" or attributes.get("src")


def test_every_field_of_a_page_has_a_name_that_is_spoken(shown: Reader) -> None:
    labelled = {attributes["for"] for attributes in shown.all("label")}
    for field in shown.all("input", "select"):
        if field.get("type") != "hidden":
            assert field.get("id") in labelled or field.get("aria-label"), field
    assert all(one.get("aria-label") or one.get("aria-labelledby") for one in shown.all("nav", "form"))
    pictures = [one for one in shown.all("svg") if "viewbox" not in one]
    assert all(one.get("aria-hidden") or one.get("aria-labelledby") or one.get("aria-label") for one in pictures)


def test_nothing_is_said_in_a_tooltip_alone(shown: Reader) -> None:
    assert [(tag, attributes) for tag, attributes in shown.elements if "title" in attributes and tag != "time"] == []


def test_a_field_with_a_hint_names_it_and_one_that_was_refused_its_fault_too(client: TestClient) -> None:
    response = client.get("/?model=Qwen/Qwen3-8B&host_ram_gib=much", headers=HTML)
    fields = {str(one.get("id")): one.get("aria-describedby") for one in Reader(response.text).all("input", "select")}
    assert fields["host_ram_gib"] == "host_ram_gib-hint fault"
    assert fields["unsloth_tiled_mlp"] == "unsloth_tiled_mlp-hint"
    assert fields["r"] is None
    hints = dict(re.findall(r'<p class="hint" id="([\w-]+)">([^<]+)</p>', response.text))
    assert hints["host_ram_gib-hint"] == "Empty: never a limit"
    assert set(hints) == {name for names in fields.values() if names for name in names.split() if name != "fault"}


def test_why_a_card_has_no_number_can_be_read(client: TestClient) -> None:
    asked = "model=Qwen/Qwen3-8B&attn_implementation=flash_attention_2"
    text = client.get(f"/page/more?{asked}").text
    found = re.search(r'<th scope="row">T4-16GB</th>\s*<td class="why" colspan="3">([^<]+)</td>', text)
    assert found
    assert "too old for FlashAttention 2" in found[1]


def test_the_terms_of_the_margin_are_on_the_page(client: TestClient) -> None:
    text = re.sub(r"\s+", " ", client.get("/", headers=HTML).text)
    for group, formula in (
        ("rounding", "64 MiB, or what fragmentation"),
        ("margin", "of the tensors at the peak"),
    ):
        part = text.partition(f'data-keep="{group}">')[2].partition("</details>")[0]
        assert formula in part
        assert "estimator/calibration/" in part


def test_a_page_has_a_language_a_title_one_main_part_and_one_first_heading(shown: Reader) -> None:
    assert shown.all("html")[0]["lang"] == "en"
    assert [len(shown.all(tag)) for tag in ("title", "main")][1] == 1
    assert len(shown.all("h1")) <= 1


@pytest.mark.parametrize("path", PAGES)
def test_every_page_forbids_whatever_is_not_the_services_own(client: TestClient, path: str) -> None:
    headers = client.get(path, headers=HTML).headers
    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("page", "document"),
    [
        ("/", "/planner.json"),
        (f"/?{SMALL}", f"/planner.json?{SMALL}"),
        ("/tiers", "/tiers.json"),
        ("/tiers/llama-3.3-70b-qlora-89k", "/tiers/llama-3.3-70b-qlora-89k.json"),
        ("/calibrations", "/calibrations.json"),
        ("/calibrations/shipped", "/calibrations/shipped.json"),
        ("/problems/unknown-model", "/problems/unknown-model.json"),
        ("/docs", "/openapi.json"),
    ],
)
def test_every_page_has_its_json(client: TestClient, page: str, document: str) -> None:
    found = client.get(document, headers=HTML)
    assert found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    assert found.json()
    links = [str(one.get("href")) for one in Reader(client.get(page, headers=HTML).text).all("a")]
    link = next(link for link in links if re.search(r"\.json(\?|$)", link))
    assert client.get(link).json() == found.json()


def test_the_page_says_what_the_interface_answers(client: TestClient) -> None:
    body = {"model": "Qwen/Qwen3-8B", "gpu": "L40S-48GB", "max_seq_length": 20_000}
    estimate, longest = (client.post(f"/v1/{what}", json=body).json() for what in ("estimates", "max-context"))
    text = client.get(f"/?{SMALL}", headers=HTML).text
    assert f"{longest['max_seq_length']['safe']:,}" in text
    for term in estimate["terms"]:
        assert f"<code>{term['name']}</code>" in text
    document = client.get(f"/planner.json?{SMALL}").json()
    assert document["estimate"] == estimate
    assert document["max_context"] == longest
    assert document["plan"] == client.post("/v1/plans", json=body).json()


@pytest.mark.parametrize("path", ["/?model=none/such", "/?model=&r=4", "/?model=Qwen/Qwen3-8B&r=0", "/?x=1"])
def test_a_question_that_has_no_answer_keeps_what_was_typed(client: TestClient, path: str) -> None:
    response = client.get(path, headers=HTML)
    assert response.status_code == 422
    assert 'role="alert"' in response.text
    assert client.get(path.replace("/?", "/page/answer?")).status_code == 200
    assert client.get(path.replace("/?", "/page/more?")).text.strip() == ""
    assert client.get(path.replace("/?", "/planner.json?")).headers["content-type"] == "application/problem+json"


def test_an_unknown_parameter_is_named_and_the_form_keeps_what_was_not_given(client: TestClient) -> None:
    response = client.get("/?gpu=A100-80GB&utm=1&max_seq_len=2", headers=HTML)
    assert response.status_code == 422
    fields = {one.get("id"): one.get("value") for one in Reader(response.text).all("input")}
    assert fields["model"] == FIRST_JOB["model"]
    assert fields["max_seq_length"] == "89389"
    assert '<option value="A100-80GB" selected>' in response.text
    assert "<code>utm</code>, <code>max_seq_len</code> are no parameters" in response.text
    assert "/?gpu=A100-80GB" in [one.get("href") for one in Reader(response.text).all("a")]
    text = client.get("/?gpu=A100-80GB", headers=HTML).text
    assert "Llama-3.3-70B-Instruct-bnb-4bit · 89,389 tokens · A100-80GB" in text
    only = client.get("/?utm=1", headers=HTML).text
    assert '<a href="/">Plan without it</a>' in only


def test_what_an_unknown_model_may_be_instead_is_what_the_service_reads(client: TestClient) -> None:
    text = client.get("/?model=none/such", headers=HTML).text
    assert "the config object itself" in text
    assert "directory" not in text
    assert "directory" not in client.post("/v1/estimates", json={"model": "none/such"}).text
    with TestClient(create_app(Settings(allow_hub=False, log_level="error", allow_local_models=True))) as local:
        assert "a directory with its config.json" in local.get("/?model=none/such", headers=HTML).text


def test_lengths_that_do_not_fit_are_no_warning_to_who_asks_for_another(client: TestClient) -> None:
    text = re.sub(r"\s+", " ", client.get("/", headers=HTML).text)
    assert re.search(r'class="proof aside">Your length is not one of those from [\d,]+ to [\d,]+ tokens', text)
    assert "proof gap" not in text
    first = client.get("/planner.json").json()["max_context"]["does_not_fit"][0]["first"]
    inside = client.get(f"/?max_seq_length={first}", headers=HTML).text
    assert 'class="proof gap">This length is one of those' in inside


def test_a_tiers_numbers_name_their_counter(client: TestClient) -> None:
    text = client.get("/tiers/llama-3.3-70b-qlora-89k", headers=HTML).text
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th>', text)
    counters = ("allocated", "allocated", "allocated", "reserved", "device")
    assert [row.split()[-1] for row in rows[:5]] == list(counters)
    assert "torch.cuda.max_memory_reserved" in text


@pytest.fixture(scope="module")
def made() -> Iterator[TestClient]:
    app = create_app(Settings(allow_hub=False, log_level="error"))
    with TestClient(app) as client:
        yield client


class TestAddresses:
    @pytest.mark.parametrize("path", ["/none", "/v1/none", "/%3Cscript%3E", "/%ff", f"/{'x' * 3000}"])
    def test_that_nothing_has_are_a_page_to_a_browser_and_a_problem_to_a_program(
        self, made: TestClient, path: str
    ) -> None:
        response = made.get(path, headers=HTML)
        assert response.status_code == 404
        assert response.headers["content-security-policy"] == POLICY
        assert {"/", "/tiers", "/jobs"} <= {str(one.get("href")) for one in Reader(response.text).all("a")}
        problem_of(made.get(path), 404, "not-found")
        problem_of(made.get(path, headers={"accept": "application/json"}), 404, "not-found")

    def test_of_things_that_are_not_there_stay_what_they_were(self, made: TestClient) -> None:
        problem_of(made.get("/v1/probe-jobs/99", headers=HTML), 404, "unknown-job")
        problem_of(made.delete("/tiers", headers=HTML), 405, "method-not-allowed")

    @pytest.mark.parametrize("path", ["/", "/tiers", "/jobs", "/docs", "/problems/not-found", "/tiers/none"])
    def test_are_looked_at_by_head_as_by_get_without_a_body(self, made: TestClient, path: str) -> None:
        found, looked = made.get(path, headers=HTML), made.head(path, headers=HTML)
        assert looked.status_code == found.status_code
        assert looked.headers["content-type"] == found.headers["content-type"]
        assert looked.content == b""


def test_names_from_outside_are_text_and_never_markup(client: TestClient) -> None:
    evil = "</title><script>alert(1)</script>"
    for path in (f"/?model={evil}", f"/?model=Qwen/Qwen3-8B&gpu={evil}", f"/?{evil}=1", f"/tiers/{evil}"):
        assert "<script>alert" not in client.get(path, headers=HTML).text


def test_a_described_card_is_planned_like_any_other(client: TestClient) -> None:
    card = '{"name":"my card","total_bytes":50000000000}'
    text = client.get("/", params={"model": "Qwen/Qwen3-8B", "gpu": card, "whole": "1"}, headers=HTML).text
    assert "my card (as given)" in text
    assert "· my card</p>" in text


def test_the_copied_request_gives_the_same_estimate(client: TestClient, first: Answer) -> None:
    curl = shlex.split(next(copy.text for copy in first.copies if copy.key == "curl").replace("\\\n", ""))
    assert curl[:3] == ["curl", "-s", "http://host/v1/estimates"]
    assert client.post("/v1/estimates", json=json.loads(curl[-1])).json() == first.estimate.to_json()


def test_the_copied_yaml_is_a_job_for_the_preflight(client: TestClient, first: Answer, planner: Planner) -> None:
    text = next(copy.text for copy in first.copies if copy.key == "yaml")
    assert planner.estimate(yaml.safe_load(text)).to_json() == first.estimate.to_json()
    checked = client.post("/v1/preflight", json={"config": text}).json()
    assert checked["verdict"] == first.estimate.verdict
    assert checked["job"]["max_seq_length"] == 89_389


def test_the_copied_script_is_python(first: Answer) -> None:
    text = next(copy.text for copy in first.copies if copy.key == "python")
    compile(text, "script.py", "exec")
    assert "89389" in text


def test_the_confirmed_run_is_named_only_for_its_own_job(first: Answer, planner: Planner) -> None:
    assert first.tier
    assert first.tier["name"] == "llama-3.3-70b-qlora-89k"
    other = job_of_query([("model", str(first.asked.model)), ("max_seq_length", "89389"), ("r", "64")])
    assert answer_of(other, planner, planner.facts(other.model), address="").tier is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_eyes_need(scheme: str) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for parts of pictures."""
    colours = colours_of(scheme)
    backs = ("back", "surface", "sunk")
    texts = [(text, back) for text in ("ink", "muted", "accent") for back in backs]
    texts += [(text, back) for text in ("fits", "short", "unsure") for back in ("surface", "sunk", f"{text}-back")]
    texts += [("ink", "fits-back"), ("ink", "unsure-back"), ("on-accent", "accent"), ("surface", "short")]
    for text, back in texts:
        assert contrast(colours[text], colours[back]) >= 4.5, (scheme, text, back)
    parts = (
        "weights",
        "training",
        "mlp",
        "attention",
        "hidden-states",
        "loss",
        "buffers",
        "curve",
        "card-line",
        "focus",
    )
    for part in parts:
        assert contrast(colours[part], colours["surface"]) >= 3, (scheme, part)


def test_the_vendored_htmx_is_the_one_of_its_manifest() -> None:
    folder = STATIC / "htmx"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {file.name for file in folder.iterdir()} == {*manifest["files"], "manifest.json"}


def test_our_own_styles_and_scripts_name_no_other_host() -> None:
    for name in ("page.css", "page.js", "live.js", "icon.svg"):
        text = (STATIC / "page" / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]", text), name


def colours_of(scheme: str) -> dict[str, str]:
    css = (STATIC / "page" / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return light if scheme == "light" else {**light, **dark}


def contrast(one: str, other: str) -> float:
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
