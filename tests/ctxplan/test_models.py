"""Finding a model's shape: the catalogue, directories, the local cache, and a Hub that may not be there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from ctxplan import hub
from ctxplan.models import models, resolve_model
from estimator.errors import ArchitectureError, UnknownModel
from estimator.families import read_config
from estimator.parameters import parameter_count
from tests.estimator.configs import small_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of this test alone, and an environment that forbids nothing."""
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    return cache


def write_config(directory: Path, config: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def keep_in_cache(cache: Path, repository: str, config: Any) -> None:
    """Lay a config where huggingface_hub's download would leave it."""
    root = cache / f"models--{repository.replace('/', '--')}"
    write_config(root / "snapshots" / COMMIT, config)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)


class TestTheCatalogue:
    def test_lists_each_model_with_its_names(self):
        listed = {model.id: model for model in models()}
        assert len(listed) == 41
        llama = listed["meta-llama/Llama-3.3-70B-Instruct"]
        assert (llama.family, llama.parameters, llama.native_length) == ("llama", 70_553_706_496, 131_072)
        assert "unsloth/Llama-3.3-70B-Instruct-bnb-4bit" in llama.aliases

    def test_answers_to_every_name_that_it_lists(self):
        for model in models():
            for name in (model.id, *model.aliases):
                facts = resolve_model(name, offline=True)
                assert facts.source == "catalogue"
                assert facts.name == model.id
                assert parameter_count(facts.architecture) == model.parameters

    def test_gives_no_name_to_two_models(self):
        names = [name.lower() for model in models() for name in (model.id, *model.aliases)]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize(
        "name",
        [
            "unsloth/Meta-Llama-3.1-8B-Instruct",
            "UNSLOTH/llama-3.1-8b-instruct",
            "meta-llama/Llama-3.1-8B-Instruct",
        ],
    )
    def test_knows_old_names_and_any_case(self, name):
        assert resolve_model(name).name == "meta-llama/Llama-3.1-8B-Instruct"

    def test_a_bnb_4bit_name_is_a_prequantised_checkpoint(self):
        facts = resolve_model("unsloth/Llama-3.3-70B-Instruct-bnb-4bit")
        quantization = facts.architecture.quantization
        assert quantization is not None
        assert (quantization.method, quantization.double_quant) == ("bitsandbytes_4bit", True)
        assert facts.assumptions == ()

    def test_a_dynamic_name_says_that_its_skip_list_is_not_known(self):
        facts = resolve_model("unsloth/Llama-3.3-70B-Instruct-unsloth-bnb-4bit")
        assert facts.architecture.quantization is not None
        assert facts.architecture.unread_4bit == "this dynamic checkpoint"

    def test_a_dynamic_name_uses_a_config_that_was_downloaded(self, empty_cache):
        skipped = {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]}
        name = "unsloth/Qwen3-8B-unsloth-bnb-4bit"
        keep_in_cache(empty_cache, name, small_config("qwen3", quantization_config=skipped))
        facts = resolve_model(name)
        assert (facts.source, facts.revision, facts.assumptions) == ("cache", COMMIT, ())
        assert facts.architecture.quantization is not None
        assert facts.architecture.quantization.skip_modules == ("lm_head", "model.layers.1.mlp")

    def test_a_16_bit_name_tells_which_checkpoint_4_bit_loads(self):
        facts = resolve_model("unsloth/Llama-3.1-8B-Instruct")
        assert "Llama-3.1-8B-Instruct-unsloth-bnb-4bit" in facts.architecture.unread_4bit

    def test_names_that_unsloth_replaces_say_so(self):
        plain = resolve_model("unsloth/Qwen3-32B-unsloth-bnb-4bit")
        assert plain.assumptions == ("Unsloth loads unsloth/Qwen3-32B-bnb-4bit in place of this name",)
        sixteen = resolve_model("unsloth/Qwen3-30B-A3B-bnb-4bit")
        assert sixteen.architecture.quantization is None
        assert "16-bit" in sixteen.assumptions[0]

    def test_unsloths_phi_is_a_llama(self):
        assert resolve_model("unsloth/phi-4-bnb-4bit").architecture.model_type == "llama"
        assert resolve_model("microsoft/phi-4").architecture.model_type == "phi3"

    def test_gpt_oss_is_mxfp4_unless_it_is_the_bf16_copy(self):
        published = resolve_model("unsloth/gpt-oss-20b").architecture.quantization
        assert published is not None
        assert published.method == "mxfp4"
        assert resolve_model("unsloth/gpt-oss-20b-BF16").architecture.quantization is None

    def test_needs_neither_the_network_nor_its_client(self):
        code = (
            "import sys; from ctxplan.models import resolve_model;"
            "resolve_model('unsloth/Qwen3-8B-bnb-4bit');"
            "sys.exit(bool({'huggingface_hub', 'torch', 'pydantic', 'httpx'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestAConfigObject:
    def test_is_read_as_it_is(self):
        facts = resolve_model(small_config("llama"))
        assert (facts.source, facts.name, facts.revision) == ("config", None, None)
        assert facts.architecture == read_config(small_config("llama"))

    def test_that_is_no_shape_is_refused(self):
        with pytest.raises(ArchitectureError):
            resolve_model({})

    @pytest.mark.parametrize("model", [None, 3, [], ""])
    def test_or_a_name_is_needed(self, model):
        with pytest.raises(UnknownModel) as caught:
            resolve_model(model)
        assert caught.value.key == "model"


class TestADirectory:
    def test_is_read(self, tmp_path):
        facts = resolve_model(str(write_config(tmp_path / "model", small_config("qwen2"))))
        assert (facts.source, facts.architecture.model_type) == ("directory", "qwen2")
        assert facts.architecture.stored is None

    def test_may_be_relative(self, tmp_path, monkeypatch):
        write_config(tmp_path / "model", small_config("qwen2"))
        monkeypatch.chdir(tmp_path)
        assert resolve_model("./model").source == "directory"
        assert resolve_model("model").source == "directory"

    def test_without_a_config_says_so(self, tmp_path):
        with pytest.raises(UnknownModel, match=r"has no config\.json") as caught:
            resolve_model(str(tmp_path))
        assert "config object" in str(caught.value.allowed)

    def test_of_an_adapter_asks_for_its_base_model(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(UnknownModel, match="name its base model"):
            resolve_model(str(tmp_path))

    @pytest.mark.parametrize("path", ["./nowhere", "../nowhere", "/nowhere/at/all", "~nobody/at/all"])
    def test_that_is_not_there_is_not_looked_for_on_the_hub(self, path):
        with pytest.raises(UnknownModel, match="is not a directory"):
            resolve_model(path)

    def test_is_not_read_where_that_is_not_allowed(self, tmp_path):
        write_config(tmp_path, small_config("qwen2"))
        with pytest.raises(UnknownModel, match="none is read here"):
            resolve_model(str(tmp_path), allow_local=False)
        for allow_local in (False, True):
            with pytest.raises(UnknownModel) as refused:
                resolve_model("none/such", offline=True, allow_local=allow_local)
            assert ("directory" in str(refused.value.allowed)) == allow_local

    @pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"model_type": ' + "9" * 5000 + "}"])
    def test_with_a_broken_config_is_refused(self, tmp_path, text):
        with pytest.raises(ArchitectureError):
            resolve_model(str(write_config(tmp_path / "model", text)))

    def test_with_a_config_that_is_not_text_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UnknownModel, match="cannot be read"):
            resolve_model(str(tmp_path))

    def test_with_an_endless_config_is_refused(self, tmp_path):
        with pytest.raises(ArchitectureError, match="bytes"):
            resolve_model(str(write_config(tmp_path / "model", " " * (4 * 2**20 + 1))))


class TestTheCache:
    def test_is_read_before_the_hub(self, empty_cache):
        keep_in_cache(empty_cache, "someone/model", small_config("gemma2"))
        facts = resolve_model("someone/model", offline=True)
        assert (facts.source, facts.revision, facts.name) == ("cache", COMMIT, "someone/model")

    def test_answers_for_a_revision(self, empty_cache):
        keep_in_cache(empty_cache, "someone/model", small_config("gemma2"))
        assert resolve_model("someone/model", revision=COMMIT, offline=True).revision == COMMIT
        with pytest.raises(UnknownModel):
            resolve_model("someone/model", revision="other", offline=True)


class TestWithoutANetwork:
    def test_an_unknown_name_is_told_what_to_pass_instead(self):
        with pytest.raises(UnknownModel, match="neither in the catalogue nor in the local cache") as caught:
            resolve_model("someone/model", offline=True)
        assert "config object" in str(caught.value.allowed)

    def test_a_name_near_a_known_one_is_told_it(self):
        with pytest.raises(UnknownModel, match=r"Llama-3\.3-70B-Instruct"):
            resolve_model("unsloth/Llama-3.3-71B-Instruct", offline=True)

    def test_the_environment_can_forbid_it(self, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(UnknownModel, match="HF_HUB_OFFLINE is set"):
            resolve_model("someone/model")

    def test_a_port_that_does_not_answer_is_an_answer_at_once(self, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        started = time.monotonic()
        with pytest.raises(UnknownModel, match="cannot be reached"):
            resolve_model("someone/model")
        assert time.monotonic() - started < 8

    @pytest.mark.parametrize("name", ["a//b", "a/b/c", "a/..", "a b/c", "-a/b", "x" * 200, "a/b\0", "https://a/b"])
    def test_a_name_that_is_no_repository_is_refused_before_asking(self, name):
        with pytest.raises(UnknownModel, match="is not a Hub id"):
            resolve_model(name)

    @pytest.mark.parametrize("revision", ["", "a b", "../x", "x" * 200])
    def test_a_revision_that_is_none_is_refused_before_asking(self, revision):
        with pytest.raises(UnknownModel) as caught:
            resolve_model("someone/model", revision=revision)
        assert caught.value.key == "revision"


HUB_CONFIG = json.dumps(small_config("granite")).encode()
HUB_ERRORS = {
    "gated/model": (403, "GatedRepo"),
    "gone/model": (404, "RepoNotFound"),
    "empty/model": (404, "EntryNotFound"),
    "broken/model": (418, ""),
}


class _Hub(BaseHTTPRequestHandler):
    """The part of the Hub that a download of config.json needs."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        repository = "/".join(self.path.split("/")[1:3])
        status, code = HUB_ERRORS.get(repository, (200, ""))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        content = HUB_CONFIG if status == 200 else b""
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def loopback_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("loopback_hub")
class TestTheHub:
    def test_gives_a_config_pinned_to_its_commit(self):
        facts = resolve_model("someone/model")
        assert (facts.source, facts.revision) == ("hub", COMMIT)
        assert facts.architecture == read_config(small_config("granite"))

    def test_is_not_asked_twice(self):
        resolve_model("someone/model")
        assert resolve_model("someone/model").source == "cache"

    def test_is_asked_where_a_revision_of_a_known_model_is_wanted(self):
        assert resolve_model("Qwen/Qwen3-8B", revision="main").source == "hub"

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("gated/model", "is gated"),
            ("gone/model", "no such repository"),
            ("empty/model", "no such file"),
            ("broken/model", "answered with an error"),
        ],
    )
    def test_that_refuses_is_said_to(self, name, reason):
        with pytest.raises(UnknownModel, match=reason):
            resolve_model(name)


def test_a_hub_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(hub, "_connect", lambda: None)
    never = Event()
    with pytest.raises(UnknownModel, match=r"did not answer within 0\.05 s"):
        hub.ask_hub("someone/model", lambda: never.wait(30), seconds=0.05)
    never.set()
