"""deploy/kubernetes: what Kubernetes takes, with no more rights than it must have."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.cli.serve import STOP_SECONDS
from app.main import create_app
from app.settings import Settings
from ctxplan import __version__
from tests.containers.dockerfile import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VERSIONS = ("1.32", "1.34")


def documents() -> Iterator[dict[str, Any]]:
    for file in MANIFESTS:
        yield from yaml.safe_load_all(file.read_text(encoding="utf-8"))


KUBERNETES = [one for one in documents() if not one["apiVersion"].startswith("kustomize")]
PODS = [
    one["spec"]["template"]["spec"] if one["kind"] == "Deployment" else one["spec"]
    for one in KUBERNETES
    if one["kind"] in ("Deployment", "Pod")
]


def one_of(kind: str) -> dict[str, Any]:
    return next(one for one in KUBERNETES if one["kind"] == kind)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", KUBERNETES, ids=lambda one: f"{one['kind']}/{one['metadata']['name']}")
def test_a_manifest_is_one_that_kubernetes_takes(manifest: dict[str, Any], version: str) -> None:
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_the_kustomization_names_files_that_are_there() -> None:
    kustomization = next(one for one in documents() if one["apiVersion"].startswith("kustomize"))
    assert {DEPLOY / "kubernetes" / name for name in kustomization["resources"]} <= set(MANIFESTS)


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_a_pod_may_do_no_more_than_it_must(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_no_service_of_the_namespace_sets_a_setting(pod: dict[str, Any]) -> None:
    """Of a Service that is called ctxplan, Kubernetes makes CTXPLAN_PORT=tcp://ADDRESS:80."""
    assert one_of("Service")["metadata"]["name"] == "ctxplan"
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_secrets_come_from_a_secret_and_are_in_no_manifest(pod: dict[str, Any]) -> None:
    assert not [one for one in KUBERNETES if one["kind"] == "Secret"]
    container = pod["containers"][0]
    mounted = next(one for one in container["volumeMounts"] if one["name"] == "secrets")
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment.pop("CTXPLAN_SECRETS_DIR") == mounted["mountPath"]
    assert set(environment) <= {"FORWARDED_ALLOW_IPS"}
    assert next(one for one in pod["volumes"] if one["name"] == "secrets")["secret"]["secretName"] == "ctxplan"


def test_what_kubernetes_asks_is_answered_without_a_key() -> None:
    paths = create_app(Settings(allow_hub=False)).openapi()["paths"]
    container = PODS[-1]["containers"][0]
    asked = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {"/healthz", "/readyz"}
    assert all("security" not in paths[path]["get"] for path in asked)


def test_a_pod_has_the_time_to_finish_what_it_answers() -> None:
    pod = one_of("Deployment")["spec"]["template"]["spec"]
    wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > wait + STOP_SECONDS


def test_service_budget_and_network_policy_mean_the_deployments_pods() -> None:
    labels = one_of("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one_of("Deployment")["spec"]["selector"]["matchLabels"],
        one_of("Service")["spec"]["selector"],
        one_of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one_of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_the_network_policy_keeps_the_service_from_the_clusters_own_addresses() -> None:
    policy = one_of("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    assert [block["cidr"] for block in blocks] == ["0.0.0.0/0"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(blocks[0]["except"])


def test_three_kinds_of_pods_reach_the_service_each_by_its_labels_and_no_other_of_their_namespaces() -> None:
    (rule,) = one_of("NetworkPolicy")["spec"]["ingress"]
    found = {}
    for peer in rule["from"]:
        assert set(peer) <= {"namespaceSelector", "podSelector"}, "no address is let in"
        (pod,) = peer["podSelector"]["matchLabels"].values()
        found[pod] = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    assert found == {"ingress-nginx": "ingress-nginx", "prometheus": "monitoring", "worker": None}
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_whose_forwarded_addresses_are_believed_is_one_network_of_pods_and_who_that_is_is_said() -> None:
    container = one_of("Deployment")["spec"]["template"]["spec"]["containers"][0]
    (value,) = [one["value"] for one in container["env"] if one["name"] == "FORWARDED_ALLOW_IPS"]
    network = ip_network(value)
    assert network.is_private
    assert network.prefixlen >= 16
    comment = " ".join((DEPLOY / "kubernetes" / "server.yaml").read_text(encoding="utf-8").replace("#", " ").split())
    assert "network.yaml lets in that controller, Prometheus and workers, and no port tells them apart" in comment


def test_the_versions_of_the_images_are_the_projects_own() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    images = {service["image"] for service in compose["services"].values() if "build" in service}
    images |= {container["image"] for pod in PODS for container in pod["containers"]}
    assert images == {f"ctxplan:{__version__}", f"ctxplan-probe:{__version__}"}
