"""From what was read to findings, each with its cure. Ordered checks, pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from stepaudio_operator import crd, names
from stepaudio_operator.doctor.facts import Facts, NodeFact

OLDEST = (1, 31)
IMAGE_VOLUMES = (1, 33)
OLDEST_DRIVER = 580
"""Major version of the NVIDIA driver that CUDA 13 needs, for which the runtime-cuda image is built."""
# Provisioners whose volumes several nodes can write to; of others nobody can say from outside.
_SHARED = ("nfs", "efs", "cephfs", "file.csi.azure", "filestore", "longhorn", "juicefs", "lustre", "weka")


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was found. `cure` is empty where nothing is to be done."""

    level: Level
    subject: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        tail = f"; {self.cure}" if self.cure else ""
        return f"{self.level:8} {self.subject}: {self.what}{tail}"


def findings(facts: Facts) -> list[Finding]:
    """Everything that was found, in the order in which it matters."""
    return [finding for check in _CHECKS for finding in check(facts)]


def _version(facts: Facts) -> Iterator[Finding]:
    if facts.version is None:
        return
    text = f"Kubernetes {facts.version[0]}.{facts.version[1]}"
    if facts.version < OLDEST:
        cure = f"upgrade the cluster to {OLDEST[0]}.{OLDEST[1]} or newer"
        yield Finding(Level.PROBLEM, "version", f"{text} is older than this operator is made for", cure)
    else:
        yield Finding(Level.OK, "version", text)
        if facts.version < IMAGE_VOLUMES:
            what = "models.source.image.reference needs Kubernetes 1.33: use another source of models"
            yield Finding(Level.NOTE, "version", what)


@cache
def _own_fields() -> dict[str, frozenset[str]]:
    """By the name of each CRD, the fields of its spec."""
    return {own["metadata"]["name"]: frozenset(_spec_of(own)) for own in crd.definitions()}


def _crds(facts: Facts) -> Iterator[Finding]:
    if facts.crds is None:
        return
    for name, fields in _own_fields().items():
        if name not in facts.crds:
            cure = "install the chart with crds.install=true, or apply `stepaudio-operator crd`"
            yield Finding(Level.PROBLEM, "crds", f"{name} is not installed (or not established yet)", cure)
        elif lacking := sorted(fields - facts.crds[name]):
            what = f"{name} is older than this operator: it does not know {', '.join(lacking)}"
            yield Finding(Level.PROBLEM, "crds", what, "upgrade the chart, or apply `stepaudio-operator crd`")
        else:
            yield Finding(Level.OK, "crds", f"{name} is installed")


def _spec_of(definition: dict[str, Any]) -> dict[str, Any]:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return fields


def _operator(facts: Facts) -> Iterator[Finding]:
    if facts.operators is None:
        return
    if not facts.operators:
        yield Finding(Level.PROBLEM, "operator", "is not installed", "helm install it from charts/step-audio")
    for found in facts.operators:
        place = f"{found.namespace}/{found.name} ({found.image})"
        if found.wanted == 0:
            yield Finding(Level.PROBLEM, "operator", f"{place} has no replicas", "scale it to 1 or 2")
        elif found.ready == 0:
            cure = f"kubectl -n {found.namespace} describe pods -l app.kubernetes.io/name=step-audio-operator"
            yield Finding(Level.PROBLEM, "operator", f"{place} has no ready replica", cure)
        else:
            yield Finding(Level.OK, "operator", f"{place}: {found.ready} of {found.wanted} ready")
    if len(facts.operators) > 1:
        what = f"{len(facts.operators)} installations: they must not serve the same namespace"
        yield Finding(Level.WARNING, "operator", what, "set watchNamespace in each, or remove all but one")


def _permissions(facts: Facts) -> Iterator[Finding]:
    if facts.permissions is None:
        return
    lacking: dict[tuple[str, str], list[str]] = {}
    for held in facts.permissions:
        if not held.allowed:
            name = f"{held.resource}/{held.subresource}" if held.subresource else held.resource
            lacking.setdefault((held.group, name), []).append(held.verb)
    for (group, name), verbs in sorted(lacking.items()):
        what = f"the operator may not {', '.join(sorted(verbs))} {name}{f'.{group}' if group else ''}"
        yield Finding(Level.PROBLEM, "permissions", what, "upgrade the chart: its ClusterRole grants this")
    if facts.permissions and not lacking:
        yield Finding(
            Level.OK, "permissions", f"the operator may do all {len(facts.permissions)} things it does"
        )


def _gpus(facts: Facts) -> Iterator[Finding]:
    if facts.nodes is None:
        return
    if not any(node.ready for node in facts.nodes):
        yield Finding(Level.PROBLEM, "nodes", "no node is ready", "add nodes, or look at `kubectl get nodes`")
    with_gpus = [node for node in facts.nodes if any(node.gpus.values())]
    if not with_gpus:
        cure = "install NVIDIA's GPU operator or device plugin; the preset nano needs no GPU"
        yield Finding(Level.WARNING, "gpus", "no node offers a GPU", cure)
        return
    kinds = Counter((_gpu_kind(node), sum(node.gpus.values())) for node in with_gpus if node.ready)
    for (kind, count), nodes in sorted(kinds.items()):
        yield Finding(Level.OK, "gpus", f"{nodes} node{'s' * (nodes > 1)} with {count} x {kind}")
    if any(node.memory_mib is None for node in with_gpus):
        unnamed = ", ".join(node.name for node in with_gpus if node.memory_mib is None)
        cure = "install GPU feature discovery, so that pods can be placed by product and memory"
        yield Finding(Level.WARNING, "gpus", f"the size of the GPUs of {unnamed} is not known", cure)
    if not any(_fits_chat(node) for node in with_gpus if node.ready):
        what = "no ready node has four GPUs of 80 GB, which the chat model in bf16 needs"
        cure = "set chat.enabled: false for speech alone, or see what fits with `stepaudio-operator plan`"
        yield Finding(Level.NOTE, "gpus", what, cure)


def _gpu_kind(node: NodeFact) -> str:
    resources = "/".join(sorted(name for name, count in node.gpus.items() if count))
    return f"{node.product or resources}" + (f" ({node.memory_mib} MiB)" if node.memory_mib else "")


def _fits_chat(node: NodeFact) -> bool:
    # 80 GB cards report from 79,000 MiB (A800) on; nobody is turned away for want of a label.
    large = node.memory_mib is None or node.memory_mib >= 79_000
    return node.gpus.get(names.GPU_RESOURCE, 0) >= 4 and large


def _drivers(facts: Facts) -> Iterator[Finding]:
    for node in facts.nodes or ():
        if not any(node.gpus.values()):
            continue
        if node.driver_major is None:
            what = f"the driver of {node.name} is not known"
            yield Finding(Level.NOTE, "drivers", what, "GPU feature discovery would label it")
        elif node.driver_major < OLDEST_DRIVER:
            what = f"{node.name} has driver {node.driver_major}, CUDA 13 needs {OLDEST_DRIVER}"
            cure = f"upgrade its driver to {OLDEST_DRIVER} or newer"
            yield Finding(Level.PROBLEM, "drivers", what, cure)


def _storage(facts: Facts) -> Iterator[Finding]:
    if facts.storage is None:
        return
    if not facts.storage:
        cure = "install a provisioner; until then use models.source.pvc or image"
        yield Finding(
            Level.WARNING, "storage", "there is no storage class: models cannot be downloaded", cure
        )
        return
    for found in facts.storage:
        shared = any(word in found.provisioner for word in _SHARED)
        modes = "ReadWriteMany" if shared else "whether it has ReadWriteMany is not known"
        text = f"{found.name}{' (default)' if found.is_default else ''}: {found.provisioner}, {modes}"
        yield Finding(Level.OK, "storage", text)
    defaults = [found for found in facts.storage if found.is_default]
    if not defaults:
        yield Finding(
            Level.WARNING, "storage", "no storage class is the default", "set models.cache.storageClassName"
        )
    if len(defaults) > 1:
        listed = ", ".join(found.name for found in defaults)
        yield Finding(Level.WARNING, "storage", f"several classes are the default: {listed}", "leave one")
    if not any(word in found.provisioner for found in facts.storage for word in _SHARED):
        what = "no class is known to share a volume between nodes, and cache.accessMode is ReadWriteMany"
        cure = "with one node, or pods that fit one, set models.cache.accessMode: ReadWriteOnce"
        yield Finding(Level.NOTE, "storage", what, cure)


def _webhooks(facts: Facts) -> Iterator[Finding]:
    for hook in facts.webhooks or ():
        if not hook.answers:
            what = (
                f"{hook.name} is asked about every pod and its Service {hook.service} has no ready endpoint"
            )
            cure = "bring that Service back, or remove the webhook: until then no pod can be made"
            yield Finding(Level.PROBLEM, "webhooks", what, cure)


def _quotas(facts: Facts) -> Iterator[Finding]:
    for quota in facts.quotas or ():
        text = f"{quota.quota} in {facts.namespace} leaves {quota.resource} {quota.used} of {quota.hard}"
        if quota.used == quota.hard:
            cure = "raise the quota, or free what uses it up"
            yield Finding(Level.PROBLEM, "quotas", f"{text}: used up", cure)
        else:
            yield Finding(Level.OK, "quotas", text.replace("leaves", "has in use"))


def _unread(facts: Facts) -> Iterator[Finding]:
    for what, why in sorted(facts.unreadable.items()):
        cure = "run doctor with a kubeconfig that may read them"
        yield Finding(Level.WARNING, what, f"could not be looked at: {why}", cure)


_CHECKS: Sequence[Callable[[Facts], Iterator[Finding]]] = (
    _version,
    _crds,
    _operator,
    _permissions,
    _gpus,
    _drivers,
    _storage,
    _webhooks,
    _quotas,
    _unread,
)
