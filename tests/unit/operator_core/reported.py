"""Statuses of a pool, from pods and a spec as the API server has them."""

from datetime import UTC, datetime
from typing import Any

from stepaudio_operator.memory import Memory
from stepaudio_operator.plan import pool_target
from stepaudio_operator.pool_status import pool_status
from stepaudio_operator.records import (
    PodRecord,
    PoolObserved,
    RevisionRecord,
)
from stepaudio_operator.spec.reading import parse_pool

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = "2026-01-02T03:04:05Z"
GOOD, HASH = "0000000a", "0000000b"
NO_NODE = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 1 node(s) had untolerated taint {a: }, 2 Insufficient cpu.",
        }
    ],
}
"""The status of a pod that no node takes."""


def pool_raw(replicas: int | None = 1, component: str = "chat", **spec: Any) -> dict[str, Any]:
    base = {"deployment": "prod", "component": component, "preset": "nano", "runtime": {"version": "1"}}
    if replicas is not None:
        base["replicas"] = replicas
    metadata = {"name": f"prod-{component}", "namespace": "d", "generation": 4}
    return {"metadata": metadata, "spec": base | spec}


def pod(slot: int = 0, revision: str = HASH, **status: Any) -> PodRecord:
    """A pod with the raw `status` of a real one; without any, it is ready."""
    status = status or {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return PodRecord.from_raw(
        {
            "metadata": {
                "name": f"prod-chat-{revision}-{slot}",
                "namespace": "d",
                "uid": f"u{slot}",
                "labels": {"stepaudio.io/pool": "prod-chat", "stepaudio.io/revision": revision},
                "annotations": {"stepaudio.io/slot": str(slot)},
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": f"runtime:{revision}"}]},
            "status": status,
        }
    )


def container(restarts: int = 0, **states: Any) -> dict[str, Any]:
    return {
        "phase": "Running",
        "containerStatuses": [{"name": "main", "restartCount": restarts, **states}],
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"lastState": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}


def pool(*pods: PodRecord, raw: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    raw = raw or pool_raw()
    memory = arguments.pop("memory", Memory())
    revisions = (RevisionRecord("d", "prod-chat-good", "u", "prod-chat", GOOD, 1, "", {}),)
    observed = PoolObserved(pods, revisions, arguments.pop("workload", None), memory)
    spec = parse_pool(raw)
    return pool_status(raw, spec, pool_target("prod-chat", spec, HASH), observed, now=NOW, **arguments)


def said(status: dict[str, Any]) -> tuple[str, str, str]:
    """(which conditions hold, reason, message) of a status."""
    conditions = {c["type"]: c for c in status["conditions"]}
    assert list(conditions) == ["Ready", "Reconciling", "Stalled"]
    holding = [kind for kind, c in conditions.items() if c["status"] == "True"]
    assert len(holding) == 1
    return holding[0], conditions["Ready"]["reason"], conditions["Ready"]["message"]
