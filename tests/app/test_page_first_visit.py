"""What a first visitor of the pages would trip over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.keys.form import new_key
from app.main import create_app
from app.settings import Settings
from tests.app.jobs import MODEL
from tests.app.measuring import JOBS, lease, service
from tests.app.test_keys_over_http import SECRET, bearer, key
from tests.app.test_page import HTML, Reader


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(allow_hub=False, log_level="error"))) as one:
        yield one


def text_of(client: TestClient, address: str) -> str:
    """What a person reads, without the elements."""
    without = re.sub(r"<[^>]*>", " ", client.get(address, headers=HTML).text)
    return re.sub(r"\s+([.,:])", r"\1", " ".join(unescape(without).split()))


class TestWhatAFirstVisitorTripsOver:
    def test_a_proposal_says_what_it_takes_of_the_host(self, client: TestClient) -> None:
        found = text_of(client, "/page/more?model=Qwen/Qwen3-8B&gpu=B200-180GB&max_seq_length=8192")
        assert re.search(r"safe to [\d,]+ tokens · [\d.]+ GiB more of the host's RAM", found)
        assert "osts nothing" not in found

    @pytest.mark.parametrize(("length", "is_said"), [(89389, True), (115000, True), (119000, False)])
    def test_only_before_lengths_that_do_not_fit_is_it_told_how_to_go_longer(
        self, client: TestClient, length: int, is_said: bool
    ) -> None:
        model = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
        found = text_of(client, f"/page/answer?model={model}&load_in_4bit=true&r=32&max_seq_length={length}")
        assert ("which do not fit although some longer ones do" in found) is is_said

    @pytest.mark.parametrize(("length", "is_said"), [(40960, False), (40961, True)])
    def test_beyond_the_models_own_context_the_answer_says_so(
        self, client: TestClient, length: int, is_said: bool
    ) -> None:
        found = text_of(client, f"/page/answer?model=Qwen/Qwen3-8B&max_seq_length={length}")
        assert ("The model's own context is 40,960 tokens. Beyond the native length: Unsloth" in found) is is_said

    def test_a_first_page_without_an_answer_has_its_json_too(self, client: TestClient) -> None:
        page = Reader(client.get("/?model=nobody/nothing", headers=HTML).text)
        (link,) = [one["href"] for one in page.all("a") if one.get("id") == "json"]
        answer = client.get(str(link))
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-model")

    def test_what_is_code_in_an_explanation_is_code_on_the_page(self, client: TestClient) -> None:
        html = client.get("/problems/missing-scope", headers=HTML).text
        assert "<code>measure</code>" in html
        assert "`" not in html

    def test_a_suggestion_is_no_sentence_twice(self, client: TestClient) -> None:
        found = text_of(client, "/page/answer?modle=Qwen/Qwen3-8B")
        assert "?." not in found


class TestTheQueue:
    NOBODY = "No worker is there to measure them"

    def test_where_nobody_measures_the_pages_say_so_until_a_worker_is_heard_of(self, tmp_path: Path) -> None:
        with service(f"sqlite:///{tmp_path}/x.db", tmp_path) as client:
            assert self.NOBODY not in text_of(client, "/jobs")
            number = client.post(JOBS, json={"calibrate": MODEL}).json()["campaign"]
            pages = ("/jobs", "/campaigns", f"/campaigns/{number}")
            assert all(self.NOBODY in text_of(client, page) for page in pages)
            lease(client)
            assert not any(self.NOBODY in text_of(client, page) for page in pages)

    def test_commands_to_copy_name_the_key_that_they_need(self, tmp_path: Path) -> None:
        url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
        with service(url, tmp_path, require_keys=True, keys_secret=SECRET) as client:
            client.get("/v1/models", headers=bearer(new_key()))
            client.headers.update(bearer(key(url, "measure").key))
            assert "CTXPLAN_API_KEY=ctxp_… # a key with the scope work ctxplan worker" in text_of(client, "/workers")
            assert "# a key with the scope measure ctxplan calibrate start" in text_of(client, "/jobs")
            told = {page: text_of(client, f"/sign-in?next={page}") for page in ("/", "/jobs")}
        assert "--scope plan." in told["/"]
        assert "--scope plan --scope measure." in told["/jobs"]

    def test_where_no_key_is_needed_none_is_named(self, tmp_path: Path) -> None:
        with service(f"sqlite:///{tmp_path}/x.db", tmp_path) as client:
            assert "CTXPLAN_API_KEY" not in text_of(client, "/workers")
