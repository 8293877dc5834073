"""A Kubernetes Job: so many pods, each with one GPU and one worker.

Fields: Kubernetes 1.32 and later (``podFailurePolicy`` and ``backoffLimitPerIndex`` of batch/v1). The pods fit the Pod
Security level ``restricted``, and the image is the project's ``probe`` (docs/containers.md), whose user is 10001.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from ctxplan import __version__
from ctxplan.variables import API_KEY
from probes.fleet.errors import FleetOptionError
from probes.fleet.order import Order, check_text, is_loopback

USER = 10001
GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
"""The label by which NVIDIA's GPU feature discovery names the cards of a node."""
INDEX = "batch.kubernetes.io/job-completion-index"
ATTEMPTS_OF_AN_INDEX = 6
CANNOT_GO_ON = 2
"""The worker's exit code where another start would end in the same way."""
KEEP_SECONDS = 86_400
DNS = r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?"
LABEL = r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
LABEL_KEY = r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
SECRET_KEY = r"[A-Za-z0-9_.-]{1,253}"  # noqa: S105 -- the form of a name
IMAGE = r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,400}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """What the cluster wants to know; names as the cluster has them.

    Attributes:
        gpu: the value of the label `PRODUCT`; None: any. secret, secret_key: the Secret that holds the API key, and the
            key in it; secret None: the service asks for none. claim: a PersistentVolumeClaim that many nodes may write,
            for results that outlive a pod; None: they live as long as the pod. seconds: until the Job is ended.

    Raises:
        FleetOptionError: on creation, for what no manifest can carry.
    """

    name: str = "ctxplan-worker"
    namespace: str = "ctxplan"
    image: str = f"ctxplan-probe:{__version__}"
    runtime_class: str | None = None
    gpu: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    secret: str | None = "ctxplan-worker"  # noqa: S105 -- the name of one
    secret_key: str = "api-key"  # noqa: S105 -- a name as well
    claim: str | None = None
    seconds: int | None = None
    cpus: int = 8
    memory_gib: int = 64

    def __post_init__(self) -> None:
        dns = "lower-case letters, digits and -, at most 50"
        check_text("name", self.name, DNS, dns)
        check_text("namespace", self.namespace, DNS, dns)
        check_text("image", self.image, IMAGE, "an image's name")
        check_text("gpu", self.gpu, LABEL, f"a value of the label {PRODUCT}")
        check_text("key_secret", self.secret, r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "the name of a Secret")
        check_text("key_secret_key", self.secret_key, SECRET_KEY, "a key in a Secret")
        check_text("claim", self.claim, r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "the name of a volume claim")
        check_text("runtime_class", self.runtime_class, r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a RuntimeClass")
        for label, text in self.node_selector.items():
            check_text("node_selector", label, LABEL_KEY, "LABEL=VALUE")
            check_text("node_selector", text, LABEL, "LABEL=VALUE")
        bounds = (
            ("time", self.seconds or 1, 31_536_000),
            ("cpus", self.cpus, 1024),
            ("memory", self.memory_gib, 10**5),
        )
        for key, number, most in bounds:
            if not 1 <= number <= most:
                raise FleetOptionError(f"{number} is not accepted", key=key, allowed=f"1 to {most}")


def job_manifest(order: Order, kubernetes: Kubernetes) -> dict[str, Any]:
    """The Job, as the object that it is in YAML; it holds no secret.

    Raises:
        FleetOptionError: a service on loopback, which is in no pod.
    """
    if is_loopback(order.server):
        allowed = "the service's address in the cluster, such as http://ctxplan.ctxplan.svc"
        raise FleetOptionError("means the pod itself", key="server", allowed=allowed)
    labels = {"app.kubernetes.io/name": "ctxplan", "app.kubernetes.io/component": "worker"}
    spec = {
        "completionMode": "Indexed",
        "completions": order.workers,
        "parallelism": order.workers,
        "backoffLimitPerIndex": ATTEMPTS_OF_AN_INDEX,
        # A pod that still ends has its card, and its spool.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        "ttlSecondsAfterFinished": KEEP_SECONDS,
        **({} if kubernetes.seconds is None else {"activeDeadlineSeconds": kubernetes.seconds}),
        "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(order, kubernetes)},
    }
    metadata = {"name": kubernetes.name, "namespace": kubernetes.namespace, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def job_yaml(order: Order, kubernetes: Kubernetes) -> str:
    """The manifest as YAML, for ``kubectl apply``. Raises FleetOptionError, as `job_manifest`."""
    text: str = yaml.safe_dump(job_manifest(order, kubernetes), sort_keys=False, width=120)
    return text


def _failure_rules() -> list[dict[str, Any]]:
    cannot = {"containerName": "worker", "operator": "In", "values": [CANNOT_GO_ON]}
    return [
        # Evicted, preempted, or its node is gone: no fault of the worker's, and started again elsewhere.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": cannot},
    ]


def _pod(order: Order, kubernetes: Kubernetes) -> dict[str, Any]:
    product = {} if kubernetes.gpu is None else {PRODUCT: kubernetes.gpu}
    selector = product | kubernetes.node_selector
    return {
        "restartPolicy": "Never",  # podFailurePolicy wants it
        "terminationGracePeriodSeconds": order.grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({} if kubernetes.runtime_class is None else {"runtimeClassName": kubernetes.runtime_class}),
        **({"nodeSelector": selector} if selector else {}),
        **({} if order.cpu else {"tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(order, kubernetes)],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "spool", **_spool(kubernetes)},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        ],
    }


def _container(order: Order, kubernetes: Kubernetes) -> dict[str, Any]:
    memory = f"{kubernetes.memory_gib}Gi"
    card = {} if order.cpu else {GPU: 1}
    # A claim is shared: the pod that takes an index up again finds what the last one of it kept.
    spool = f"/spool/{kubernetes.name}-$(WORKER_INDEX)"
    return {
        "name": "worker",
        "image": kubernetes.image,
        "args": [*_literally(order.arguments()), "--spool", spool],
        "env": [{"name": "WORKER_INDEX", "valueFrom": _field(f"metadata.annotations['{INDEX}']")}, *_key(kubernetes)],
        "resources": {
            "requests": {"cpu": kubernetes.cpus, "memory": memory, **card},
            "limits": {"memory": memory, **card},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "spool", "mountPath": "/spool"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- the pod's own
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def _key(kubernetes: Kubernetes) -> list[dict[str, Any]]:
    if kubernetes.secret is None:
        return []
    reference = {"name": kubernetes.secret, "key": kubernetes.secret_key}
    return [{"name": API_KEY, "valueFrom": {"secretKeyRef": reference}}]


def _literally(words: list[str]) -> list[str]:
    """Kubernetes reads ``$(NAME)`` in arguments, and ``$$`` as a dollar."""
    return [word.replace("$", "$$") for word in words]


def _field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": path}}


def _spool(kubernetes: Kubernetes) -> dict[str, Any]:
    if kubernetes.claim is None:
        return {"emptyDir": {}}
    return {"persistentVolumeClaim": {"claimName": kubernetes.claim}}
