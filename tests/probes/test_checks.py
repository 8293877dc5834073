"""What is checked before anything starts: the card, the packages, the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator import parse_job
from estimator.errors import UnknownDevice
from probes.checks import check_checkpoint, located, missing_packages, wrong_gpu
from probes.child.checkpoint import write_safetensors
from probes.child.tensors import checkpoint_tensors
from probes.errors import PointError, ProbeUnavailable
from probes.nvml import Card, find_card
from probes.points import Point, parse_point
from probes.supervise import measure
from tests.probes.children import WELL
from tests.probes.common import JOB, point
from tests.probes.running import run
from tests.probes.tiny import TINY


class TestCard:
    H100 = Card(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", total_bytes=85_520_809_984, free_bytes=0, driver="580")

    def test_the_card_must_be_of_the_jobs_kind(self) -> None:
        assert wrong_gpu(point(), self.H100) is None
        other = Card(uuid="GPU-2", name="NVIDIA H200", total_bytes=150_754_820_096, free_bytes=0, driver="580")
        assert "NVIDIA H200" in str(wrong_gpu(point(), other))

    def test_kinds_that_differ_in_memory_alone_are_told_apart(self) -> None:
        asked = point(job=parse_job({**JOB, "gpu": "A100-40GB"}))
        small = Card(uuid="1", name="NVIDIA A100-SXM4-40GB", total_bytes=42_949_672_960, free_bytes=0, driver="580")
        large = Card(uuid="1", name="NVIDIA A100-SXM4-80GB", total_bytes=85_899_345_920, free_bytes=0, driver="580")
        assert wrong_gpu(asked, small) is None
        assert wrong_gpu(asked, large) is not None

    def test_a_card_that_the_catalogue_lacks_is_known_by_its_name(self) -> None:
        card = Card(uuid="1", name="NVIDIA Quadro 9", total_bytes=2**34, free_bytes=0, driver="580")
        asked = point(job=parse_job({**JOB, "gpu": {"name": "NVIDIA Quadro 9", "total_bytes": 2**34}}))
        assert wrong_gpu(asked, card) is None
        assert wrong_gpu(point(), card) is not None

    def test_a_gpu_that_does_not_exist_is_an_error(self) -> None:
        with pytest.raises(UnknownDevice):
            wrong_gpu(point(job=parse_job({**JOB, "gpu": "H1000"})), self.H100)

    def test_a_cap_needs_a_gpu(self) -> None:
        if find_card() is not None:
            pytest.skip("there is a GPU here")
        with pytest.raises(ProbeUnavailable, match="has none"):
            measure([point(cap_bytes=2**34)])


def test_missing_packages_are_named() -> None:
    assert missing_packages(point()) == ()
    assert missing_packages(point(), lambda _: None) == (
        "torch",
        "transformers",
        "peft",
        "unsloth",
        "unsloth_zoo",
        "trl",
        "datasets",
    )


class TestCheckpoint:
    """A model that is a directory of this machine."""

    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text(json.dumps(TINY))
        return tmp_path / "model"

    def asked(self, model: str) -> Point:
        return parse_point({**JOB, "model": model})

    @pytest.mark.parametrize("model", ["model", "./model", "../{}/model"])
    def test_a_relative_path_reaches_the_process_as_an_absolute_one(
        self, here: Path, tmp_path: Path, model: str
    ) -> None:
        asked = self.asked(model.format(tmp_path.name))
        body = 'tell("model.told", request["points"][0]["job"]["model"])\n' + WELL
        (measured,) = run(tmp_path, body, asked)
        assert Path((tmp_path / "model.told").read_text()) == here
        # What is on record is what was asked, and its digest.
        assert (measured.job["model"], measured.point) == (asked.job.model, asked.digest)

    def test_a_name_of_the_catalogue_and_a_config_object_stay_what_they_are(self, here: Path) -> None:
        for asked in (point(), parse_point({**JOB, "model": TINY})):
            assert located(asked) is asked

    def test_weights_without_a_tokenizer_are_refused_by_the_models_key(self, here: Path) -> None:
        check_checkpoint(self.asked("model"))
        write_safetensors(checkpoint_tensors(TINY), here / "model.safetensors")
        with pytest.raises(PointError, match="has weights and no tokenizer") as refused:
            measure([self.asked("model")])
        assert refused.value.key == "job.model"
        (here / "tokenizer.json").write_text("{}")
        check_checkpoint(self.asked("model"))
