"""Reads a cluster for `doctor`. What may not be read is noted, never fatal; nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from stepaudio_operator.doctor.facts import (
    Facts,
    NodeFact,
    OperatorFact,
    Permission,
    QuotaFact,
    StorageFact,
    WebhookFact,
)
from stepaudio_operator.errors import ClusterError, NotFound
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.resources import Resource

Raw = dict[str, Any]
T = TypeVar("T")
_NONE: frozenset[str] = frozenset()
NODES = Resource("", "v1", "nodes", "Node", _NONE)
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", _NONE)
STORAGE = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", _NONE)
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", _NONE)
REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", _NONE)
_HOOK_GROUP = "admissionregistration.k8s.io"
HOOKS = (
    Resource(_HOOK_GROUP, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", _NONE),
    Resource(_HOOK_GROUP, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", _NONE),
)
_OPERATOR = "app.kubernetes.io/name=step-audio-operator"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_PAGE = 500


async def look(client: Client, namespace: str) -> Facts:
    """Everything that `findings` judges; quotas are those of `namespace`."""
    unreadable: dict[str, str] = {}

    async def read(what: str, reader: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await reader()
        except ClusterError as error:
            unreadable[what] = str(error)
            return None

    version = await read("version", lambda: _version(client))
    crds = await read("crds", lambda: _crds(client))
    nodes = await read("nodes", lambda: _nodes(client))
    storage = await read("storage", lambda: _storage(client))
    operators = await read("operator", lambda: _operators(client))
    permissions = None
    if operators:
        permissions = await read("permissions", lambda: _permissions(client, operators[0]))
    return Facts(
        namespace=namespace,
        version=version,
        crds=crds,
        nodes=nodes,
        storage=storage,
        operators=operators,
        permissions=permissions,
        webhooks=await read("webhooks", lambda: _webhooks(client)),
        quotas=await read("quotas", lambda: _quotas(client, namespace)),
        unreadable=unreadable,
    )


async def _all(
    client: Client, resource: Resource, namespace: str | None = None, selector: str = ""
) -> list[Raw]:
    found: list[Raw] = []
    proceed = ""
    while True:
        page = await client.list_page(resource, namespace, selector=selector, limit=_PAGE, proceed=proceed)
        found += page["items"]
        proceed = (page.get("metadata") or {}).get("continue") or ""
        if not proceed:
            return found


async def _version(client: Client) -> tuple[int, int]:
    said = await client.version()
    return int(said["major"]), int("".join(c for c in said["minor"] if c.isdigit()))


async def _crds(client: Client) -> Mapping[str, frozenset[str]]:
    found = {}
    for resource in resources.OURS:
        name = f"{resource.plural}.{resource.group}"
        try:
            raw = await client.get(CRDS, None, name)
        except NotFound:
            continue
        held = {c["type"]: c["status"] for c in (raw.get("status") or {}).get("conditions") or ()}
        if held.get("Established") == "True":
            schema = raw["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            found[name] = frozenset(schema["properties"]["spec"].get("properties") or ())
    return found


async def _nodes(client: Client) -> tuple[NodeFact, ...]:
    return tuple(_node(raw) for raw in await _all(client, NODES))


def _node(raw: Raw) -> NodeFact:
    status, labels = raw.get("status") or {}, raw["metadata"].get("labels") or {}
    allocatable = status.get("allocatable") or {}
    ready = {c["type"]: c["status"] for c in status.get("conditions") or ()}.get("Ready")
    memory = labels.get("nvidia.com/gpu.memory", "")
    driver = labels.get("nvidia.com/cuda.driver-version.major") or labels.get(
        "nvidia.com/cuda.driver.major", ""
    )
    return NodeFact(
        name=raw["metadata"]["name"],
        ready=ready == "True",
        runtime=(status.get("nodeInfo") or {}).get("containerRuntimeVersion", ""),
        gpus={k: int(v) for k, v in allocatable.items() if k.startswith("nvidia.com/") and str(v).isdigit()},
        product=labels.get("nvidia.com/gpu.product", ""),
        memory_mib=int(memory) if memory.isdigit() else None,
        driver_major=int(driver) if driver and driver.isdigit() else None,
    )


async def _storage(client: Client) -> tuple[StorageFact, ...]:
    return tuple(
        StorageFact(
            raw["metadata"]["name"],
            raw["provisioner"],
            (raw["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true",
        )
        for raw in await _all(client, STORAGE)
    )


async def _operators(client: Client) -> tuple[OperatorFact, ...]:
    found = await _all(client, resources.APP_DEPLOYMENTS, selector=_OPERATOR)
    return tuple(
        OperatorFact(
            namespace=raw["metadata"]["namespace"],
            name=raw["metadata"]["name"],
            account=raw["spec"]["template"]["spec"].get("serviceAccountName", "default"),
            image=raw["spec"]["template"]["spec"]["containers"][0]["image"],
            ready=int((raw.get("status") or {}).get("readyReplicas") or 0),
            wanted=int(raw["spec"].get("replicas", 1)),
        )
        for raw in found
    )


async def _permissions(client: Client, operator: OperatorFact) -> tuple[Permission, ...]:
    """Asks the API server, as it would judge the operator's own calls in its own namespace."""
    user = f"system:serviceaccount:{operator.namespace}:{operator.account}"

    async def ask(resource: Resource, subresource: str, verb: str) -> Permission:
        attributes = {
            "group": resource.group,
            "resource": resource.plural,
            "subresource": subresource,
            "verb": verb,
            "namespace": operator.namespace,
        }
        if resource is resources.LEASES and verb != "create":
            attributes["name"] = operator.name
        groups = ["system:serviceaccounts", "system:authenticated"]
        spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
        body = {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, "metadata": {}, "spec": spec}
        answer = await client.create(REVIEWS, body)
        return Permission(resource.group, resource.plural, subresource, verb, answer["status"]["allowed"])

    questions = [
        ask(resource, subresource, verb)
        for resource in resources.ALL
        for subresource, verbs in (("", resource.verbs), ("status", resource.status_verbs))
        for verb in sorted(verbs)
    ]
    return tuple(await asyncio.gather(*questions))


async def _webhooks(client: Client) -> tuple[WebhookFact, ...]:
    found = []
    for resource in HOOKS:
        for raw in await _all(client, resource):
            for hook in raw.get("webhooks") or ():
                if hook.get("failurePolicy") != "Ignore" and _asks_about_pods(hook.get("rules") or ()):
                    found.append(await _webhook(client, hook))
    return tuple(found)


def _asks_about_pods(rules: Iterable[Raw]) -> bool:
    return any(
        {"", "*"} & set(rule.get("apiGroups") or ())
        and {"pods", "*", "*/*"} & set(rule.get("resources") or ())
        and {"CREATE", "*"} & set(rule.get("operations") or ())
        for rule in rules
    )


async def _webhook(client: Client, hook: Raw) -> WebhookFact:
    service = (hook.get("clientConfig") or {}).get("service")
    if service is None:
        return WebhookFact(hook["name"], "", answers=True)
    selector = f"kubernetes.io/service-name={service['name']}"
    slices = await _all(client, resources.ENDPOINT_SLICES, service["namespace"], selector)
    endpoints = [endpoint for raw in slices for endpoint in raw.get("endpoints") or ()]
    answers = any((endpoint.get("conditions") or {}).get("ready", True) for endpoint in endpoints)
    return WebhookFact(hook["name"], f"{service['namespace']}/{service['name']}", answers)


async def _quotas(client: Client, namespace: str) -> tuple[QuotaFact, ...]:
    found = []
    for raw in await _all(client, QUOTAS, namespace):
        status = raw.get("status") or {}
        used = status.get("used") or {}
        for resource, hard in sorted((status.get("hard") or raw["spec"].get("hard") or {}).items()):
            found.append(
                QuotaFact(raw["metadata"]["name"], resource, str(hard), str(used.get(resource, "0")))
            )
    return tuple(found)
