"""The floor: a script that writes the same final objects without thinking, statuses of our kinds included.

The objects of one finished deployment are the pattern. Copies get another name everywhere, lose what the
API server sets, and are made owner first, since a reference names its owner's uid.
"""

import json
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.world import Admin

Raw = dict[str, Any]
_SERVER_SET = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "selfLink",
    "deletionTimestamp",
)
_CHILDREN = (
    resources.POOLS,
    resources.PODS,
    resources.SERVICES,
    resources.CONFIG_MAPS,
    resources.SERVICE_ACCOUNTS,
    resources.ROLES,
    resources.ROLE_BINDINGS,
    resources.APP_DEPLOYMENTS,
    resources.REVISIONS,
    resources.DISRUPTION_BUDGETS,
)
_STATUS_OF = frozenset({resources.DEPLOYMENTS.kind, resources.POOLS.kind})


@dataclass(frozen=True)
class Pattern:
    """The objects of the deployment `name`, owners before what they own, as JSON with its name in it."""

    name: str
    objects: tuple[tuple[Resource, str], ...]

    @classmethod
    async def of(cls, admin: Admin, namespace: str, name: str) -> "Pattern":
        """What the operator made of a deployment that is Ready."""
        found: list[tuple[Resource, Raw]] = [
            (resources.DEPLOYMENTS, await admin.get(resources.DEPLOYMENTS, namespace, name))
        ]
        selector = f"labelSelector={names.LABEL_DEPLOYMENT}={name}"
        for resource in _CHILDREN:
            listed = await admin.call("GET", f"{resource.path(namespace)}?{selector}")
            # Items of a list do not say their kind.
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            found += [(resource, {**kind, **item}) for item in listed["items"] if _operators_own(item)]
        order = {raw["metadata"]["uid"]: raw["metadata"].get("ownerReferences") or [] for _, raw in found}

        def depth(uid: str) -> int:
            return 1 + max((depth(owner["uid"]) for owner in order.get(uid, [])), default=0)

        found.sort(key=lambda pair: depth(pair[1]["metadata"]["uid"]))
        return cls(name, tuple((resource, json.dumps(raw)) for resource, raw in found))

    async def write(self, admin: Admin, namespace: str, name: str) -> None:
        """One copy under another name."""
        uids: dict[str, str] = {}
        for resource, text in self.objects:
            raw: Raw = json.loads(text.replace(self.name, name))
            status, old = raw.pop("status", None), raw["metadata"].pop("uid")
            for field in _SERVER_SET:
                raw["metadata"].pop(field, None)
            raw["metadata"]["namespace"] = namespace
            for owner in raw["metadata"].get("ownerReferences") or ():
                owner["uid"] = uids[owner["uid"]]
            _forget_placement(raw)
            made = await admin.call("POST", resource.path(namespace), raw)
            uids[old] = made["metadata"]["uid"]
            if raw["kind"] in _STATUS_OF and status:
                path = made["metadata"]["name"]
                await admin.patch(resource, namespace, path, {"status": status}, "status")


def _operators_own(raw: Raw) -> bool:
    """Not what controllers made of it (ReplicaSets' pods, endpoints)."""
    owners = {owner["kind"] for owner in raw["metadata"].get("ownerReferences") or ()}
    return bool(owners & _STATUS_OF)


def _forget_placement(raw: Raw) -> None:
    """What the API server and the scheduler chose for the pattern's own objects."""
    spec = raw.get("spec") or {}
    for field in ("nodeName", "clusterIP", "clusterIPs"):
        if spec.get(field) not in (None, "None", ["None"]):
            spec.pop(field, None)
    if raw["kind"] == resources.PODS.kind:
        token = "kube-api-access-"
        spec["volumes"] = [v for v in spec.get("volumes", []) if not v["name"].startswith(token)]
        for container in spec["containers"]:
            mounts = container.get("volumeMounts", [])
            container["volumeMounts"] = [m for m in mounts if not m["name"].startswith(token)]
