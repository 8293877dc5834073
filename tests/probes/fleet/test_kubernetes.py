"""The Job of Kubernetes: what its own schemas take, no more rights than it must have, and no secret."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from ctxplan import __version__
from probes.fleet.errors import FleetOptionError
from probes.fleet.kubernetes import Kubernetes, job_manifest, job_yaml
from probes.fleet.order import Order

SERVER = "http://ctxplan.ctxplan.svc"
VERSIONS = ("1.32", "1.34", "1.37")
ORDERS = [
    Order(server=SERVER),
    Order(server=f"{SERVER}:8000", workers=16, max_jobs=3, idle_exit_seconds=90.5, grace_seconds=600),
    Order(server=SERVER, workers=2, cpu=True),
]
CLUSTERS: list[dict[str, Any]] = [
    {},
    {"gpu": "NVIDIA-H100-80GB-HBM3", "node_selector": {"pool": "a", "topology.kubernetes.io/zone": "z-1"}},
    {"secret": None, "claim": "spools", "seconds": 7200, "runtime_class": "nvidia"},
    {"name": "w", "namespace": "gpu", "image": "registry.example:5000/team/probe@sha256:" + 64 * "a"},
]


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", ORDERS, ids=["plain", "all", "cpu"])
@pytest.mark.parametrize("cluster", CLUSTERS, ids=["plain", "nodes", "claim", "image"])
def test_it_is_one_that_kubernetes_takes(order: Order, cluster: dict[str, Any], version: str) -> None:
    manifest = yaml.safe_load(job_yaml(order, Kubernetes(**cluster)))
    assert manifest == job_manifest(order, Kubernetes(**cluster))
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_the_schemas_would_see_a_mistake() -> None:
    manifest = job_manifest(ORDERS[0], Kubernetes())
    manifest["spec"]["paralelism"] = 4
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_each_index_is_a_worker_with_a_whole_gpu_and_the_time_to_leave() -> None:
    manifest = job_manifest(ORDERS[1], Kubernetes(gpu="NVIDIA-H200"))
    spec, pod = manifest["spec"], manifest["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 16, 16)
    assert container(manifest)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert pod["terminationGracePeriodSeconds"] == 600
    words = container(manifest)["args"]
    assert words[: len(ORDERS[1].arguments())] == ORDERS[1].arguments()
    assert int(words[words.index("--drain-timeout") + 1]) < 600
    assert "nvidia.com/gpu" not in container(job_manifest(ORDERS[2], Kubernetes()))["resources"]["limits"]


def test_a_pod_may_do_no_more_than_it_must() -> None:
    manifest = job_manifest(ORDERS[0], Kubernetes())
    pod = manifest["spec"]["template"]["spec"]
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, 10001, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(manifest)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {one["name"]: one["mountPath"] for one in container(manifest)["volumeMounts"]}
    assert mounted == {"data": "/data", "spool": "/spool", "tmp": "/tmp", "shm": "/dev/shm"}
    assert {one["name"] for one in pod["volumes"]} == set(mounted)
    assert container(manifest)["image"] == f"ctxplan-probe:{__version__}"


def test_the_key_comes_from_a_secret() -> None:
    variables = container(job_manifest(ORDERS[0], Kubernetes(secret="work", secret_key="key")))["env"]
    (key,) = [one for one in variables if one["name"] == "CTXPLAN_API_KEY"]
    assert key["valueFrom"] == {"secretKeyRef": {"name": "work", "key": "key"}}
    assert all("value" not in one for one in variables)
    without = container(job_manifest(ORDERS[0], Kubernetes(secret=None)))["env"]
    assert [one["name"] for one in without] == ["WORKER_INDEX"]


def test_results_that_wait_are_kept_for_each_index_and_outlive_a_pod_on_a_claim() -> None:
    manifest = job_manifest(ORDERS[0], Kubernetes(claim="spools", name="w"))
    volumes = {one["name"]: one for one in manifest["spec"]["template"]["spec"]["volumes"]}
    assert volumes["spool"]["persistentVolumeClaim"] == {"claimName": "spools"}
    words = container(manifest)["args"]
    assert words[words.index("--spool") + 1] == "/spool/w-$(WORKER_INDEX)"
    # A pod that takes the index up again has the folder to itself.
    assert manifest["spec"]["podReplacementPolicy"] == "Failed"


def test_what_cannot_go_on_is_not_started_again_and_what_was_disrupted_is() -> None:
    rules = job_manifest(ORDERS[0], Kubernetes())["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailIndex"]
    assert rules[1]["onExitCodes"]["values"] == [2]


@pytest.mark.parametrize(
    ("key", "cluster"),
    [
        ("name", {"name": "Big"}),
        ("name", {"name": "a" * 51}),
        ("namespace", {"namespace": "a/b"}),
        ("image", {"image": "a b"}),
        ("gpu", {"gpu": "NVIDIA H100"}),
        ("node_selector", {"node_selector": {"a b": "c"}}),
        ("node_selector", {"node_selector": {"a": "c d"}}),
        ("key_secret", {"secret": "A"}),
        ("key_secret_key", {"secret_key": "a/b"}),
        ("claim", {"claim": "A"}),
        ("runtime_class", {"runtime_class": "A"}),
        ("time", {"seconds": -1}),
        ("cpus", {"cpus": 0}),
        ("memory", {"memory_gib": 0}),
    ],
)
def test_what_no_manifest_can_carry_is_refused_by_name(key: str, cluster: dict[str, Any]) -> None:
    with pytest.raises(FleetOptionError) as refused:
        Kubernetes(**cluster)
    assert refused.value.key == key


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
def test_a_service_on_loopback_is_in_no_pod(host: str) -> None:
    with pytest.raises(FleetOptionError, match="the pod itself"):
        job_manifest(Order(server=f"http://{host}"), Kubernetes())
