"""What each worker of a fleet is told, and what is told to none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from estimator import find_device
from estimator.device import DEVICES
from estimator.errors import CtxplanError
from probes.fleet.accelerators import RAY_NAMES, accelerator_type
from probes.fleet.errors import FleetOptionError, SubmitFailed, ToolMissing
from probes.fleet.order import Order
from probes.fleet.submit import submit

DRIVER_NAMES = (
    "NVIDIA B200",
    "NVIDIA H200",
    "NVIDIA H100 NVL",
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H100 PCIe",
    "NVIDIA A100-SXM4-80GB",
    "NVIDIA A100 80GB PCIe",
    "NVIDIA A100-SXM4-40GB",
    "NVIDIA L40S",
    "NVIDIA L4",
    "NVIDIA A10G",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "NVIDIA RTX A6000",
    "NVIDIA GeForce RTX 5090",
    "NVIDIA GeForce RTX 4090",
    "NVIDIA GeForce RTX 3090",
    "Tesla V100-SXM2-32GB",
    "Tesla V100-SXM2-16GB",
    "Tesla T4",
)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("server", {"server": "http://user:word@host"}),
        ("server", {"server": "http://host/?key=ctxp_abcdefghijkl"}),
        ("server", {"server": "http://host/ctxp_abcdefghijkl"}),
        ("base_url", {"server": "host"}),
        ("workers", {"workers": 0}),
        ("workers", {"workers": 1001}),
        ("grace", {"grace_seconds": 5}),
        ("max_jobs", {"max_jobs": 0}),
        ("idle_exit", {"idle_exit_seconds": -1.0}),
        ("idle_exit", {"idle_exit_seconds": float("nan")}),
    ],
)
def test_what_cannot_be_ordered_is_refused_by_name_and_no_password_is_shown(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CtxplanError) as refused:
        Order(**{"server": "http://host", **changes})
    assert refused.value.key == key
    assert "word" not in str(refused.value).replace("password", "")
    assert "ctxp_abc" not in str(refused.value)


def test_every_gpu_of_the_catalogue_has_rays_name_as_ray_itself_finds_it() -> None:
    ray = pytest.importorskip("ray._private.accelerators.nvidia_gpu")
    name_of = ray.NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type
    assert set(RAY_NAMES) == {device.name for device in DEVICES}
    covered = set()
    for driver in DRIVER_NAMES:
        device = find_device(driver)
        covered.add(device.name)
        assert RAY_NAMES[device.name] == name_of(driver), driver
    assert covered == set(RAY_NAMES)


def test_rays_names_are_those_of_its_constants_where_it_has_one() -> None:
    constants = vars(pytest.importorskip("ray.util.accelerators"))
    known = {name for key, name in constants.items() if key.startswith("NVIDIA_")}
    assert {"H100", "A100", "L4", "A10G", "V100", "T4"} <= known & set(RAY_NAMES.values())


@pytest.mark.parametrize(("given", "ray"), [("H100-80GB", "H100"), ("A100", "A100"), ("nvidia l40s", "L40S")])
def test_a_gpu_is_named_as_in_the_catalogue_or_as_in_ray(given: str, ray: str) -> None:
    assert accelerator_type(given) == ray
    assert accelerator_type("MI300X") == "MI300X"
    with pytest.raises(FleetOptionError):
        accelerator_type("no name")


def tool(folder: Path, body: str) -> tuple[str, ...]:
    file = folder / "tool"
    file.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    file.chmod(0o755)
    return (str(file), "-")


def test_the_tool_gets_the_text_and_the_key_only_where_it_hands_on_its_environment(tmp_path: Path) -> None:
    command = tool(tmp_path, 'print(sys.stdin.read() + os.environ.get("CTXPLAN_API_KEY", "none"))')
    around = {**os.environ, "CTXPLAN_API_KEY": "secret"}
    assert submit(command, "text ", keep_key=True, environment=around) == "text secret"
    assert submit(command, "text ", keep_key=False, environment=around) == "text none"


def test_a_tool_that_is_missing_refuses_or_hangs_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="no-such-tool is not installed"):
        submit(["no-such-tool"], "", keep_key=False)
    with pytest.raises(SubmitFailed, match="exit code 3: invalid partition"):
        submit(tool(tmp_path, 'sys.exit(print("invalid partition", file=sys.stderr) or 3)'), "", keep_key=False)
    with pytest.raises(SubmitFailed, match="no answer"):
        submit(tool(tmp_path, "import time; time.sleep(60)"), "", keep_key=False, timeout_seconds=0.2)
