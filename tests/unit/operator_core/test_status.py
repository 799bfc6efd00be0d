"""Statuses say what is so: the reason that helps, kstatus conditions, and nothing that moves by itself."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from stepaudio_operator.conditions import last_words
from stepaudio_operator.errors import SpecError
from stepaudio_operator.memory import Memory, Quarantine, Rollout
from stepaudio_operator.plan import pool_target
from stepaudio_operator.pool_status import pool_status
from stepaudio_operator.records import (
    ConditionRecord,
    PodRecord,
    PoolObserved,
    RevisionRecord,
    WorkloadRecord,
)
from stepaudio_operator.spec.reading import parse_pool

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = "2026-01-02T03:04:05Z"
GOOD, HASH = "0000000a", "0000000b"


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


def test_the_whole_status_of_a_pool_that_is_ready() -> None:
    assert pool(pod()) == {
        "observedGeneration": 4,
        "replicas": 1,
        "readyReplicas": 1,
        "updatedReplicas": 1,
        "selector": "app.kubernetes.io/managed-by=stepaudio-operator,stepaudio.io/pool=prod-chat",
        "revisions": [{"name": HASH, "replicas": 1, "ready": 1}],
        "revision": HASH,
        "wantedRevision": HASH,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "observedGeneration": 4,
                "lastTransitionTime": STAMP,
                "reason": "AllReplicasReady",
                "message": "1 of 1 replicas serve",
            },
            {
                "type": "Reconciling",
                "status": "False",
                "observedGeneration": 4,
                "lastTransitionTime": STAMP,
                "reason": "Settled",
                "message": "",
            },
            {
                "type": "Stalled",
                "status": "False",
                "observedGeneration": 4,
                "lastTransitionTime": STAMP,
                "reason": "Progressing",
                "message": "",
            },
        ],
    }


TRUNCATED = "ModelFileTruncated: /models/Step-Audio-Chat/a.safetensors ends early; copy it again"
STALLED = "EngineStalled: 1 requests in flight and no step"
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
UNHEARD = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]
NAME = f"prod-chat-{HASH}-0"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            container(**waiting("CrashLoopBackOff"), **terminated(78, message=TRUNCATED)),
            (
                "Stalled",
                "ModelFileTruncated",
                f"{NAME}: /models/Step-Audio-Chat/a.safetensors ends early; copy it again",
            ),
        ),
        (
            container(**waiting("ErrImagePull", "rpc error")),
            (
                "Stalled",
                "ImagePullBackOff",
                f"{NAME}: image runtime:{HASH} cannot be pulled: check runtime.version,"
                " runtime.registry and podTemplate.imagePullSecrets",
            ),
        ),
        (
            container(**waiting("CreateContainerConfigError", 'secret "keys" not found')),
            ("Stalled", "CreateContainerConfigError", f'{NAME}: secret "keys" not found'),
        ),
        (
            container(restarts=2, **waiting("CrashLoopBackOff"), **terminated(1, message="boom\nmore")),
            ("Stalled", "CrashLoopBackOff", f"{NAME} ends again and again with exit code 1: boom"),
        ),
        (
            # Between two crashes the kubelet says Running; the status stays what it was.
            container(restarts=3, state={"running": {}}, **terminated(1, message="boom")),
            ("Stalled", "CrashLoopBackOff", f"{NAME} ends again and again with exit code 1: boom"),
        ),
        (
            container(restarts=1, state={"running": {}}, **terminated(137, reason="OOMKilled")),
            (
                "Stalled",
                "OutOfMemory",
                f"{NAME}: the container used more main memory than its limit and was killed; raise"
                " podTemplate.resources.limits.memory",
            ),
        ),
        (
            # It is being made anew: nobody has to do anything yet.
            container(restarts=1, state={"running": {}}, **terminated(1, message=STALLED)),
            (
                "Reconciling",
                "EngineStalled",
                f"{NAME}: 1 requests in flight and no step; none is needed where it does not come back; else"
                " look at the node's GPUs and links",
            ),
        ),
        (
            {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. ",
            },
            (
                "Reconciling",
                "DiskFull",
                f"{NAME} has ended and will be replaced: Pod ephemeral local storage usage exceeds the total"
                " limit of containers 1Ki.",
            ),
        ),
        (
            # Evicted, drained in peace: the kubelet's status says no more.
            {"phase": "Succeeded", **terminated(0)},
            (
                "Reconciling",
                "Evicted",
                f"{NAME} was taken away by its node and will be replaced: its events say why",
            ),
        ),
        (
            container(state={"running": {}}),
            ("Reconciling", "PodsNotReady", f"waits until {NAME} can serve"),
        ),
        (
            # It has been ill before; that is over.
            container(restarts=1, state={"running": {}}, **terminated(1, message=STALLED))
            | {"conditions": UNHEARD},
            (
                "Reconciling",
                "NodeNotReady",
                f"the cluster does not hear the node of {NAME} on n1, which served when it last did and is"
                " asked on; it is replaced when Kubernetes evicts it",
            ),
        ),
        (
            NO_NODE,
            (
                "Reconciling",
                "WaitingForCapacity",
                "no node has room for a replica: the scheduler's words are in the pods' events",
            ),
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            (
                "Reconciling",
                "Evicted",
                f"{NAME} has ended and will be replaced: The node was low on memory.",
            ),
        ),
    ],
)
def test_a_pool_says_what_keeps_it(status: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert said(pool(pod(**status))) == expected


def test_a_pod_of_an_older_revision_is_named_with_its_own_image() -> None:
    lost = pod(1, GOOD, **container(**waiting("ImagePullBackOff")))
    assert said(pool(pod(), lost))[2].startswith(f"prod-chat-{GOOD}-1: image runtime:{GOOD} cannot be pulled")


def test_a_pool_that_a_queue_holds_back_says_so() -> None:
    gated = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }
    held = pod(phase="Pending", conditions=[gated])
    queue = {"podTemplate": {"queue": {"name": "gpus"}}}
    assert said(pool(held, raw=pool_raw(**queue)))[1:] == (
        "WaitingForQuota",
        f"{NAME}: held back by queue gpus",
    )
    assert said(pool(held))[1:] == ("WaitingForQuota", f"{NAME}: held back by its scheduling gates")


def test_a_pool_without_room_says_what_a_replica_needs() -> None:
    raw = pool_raw(gpu={"count": 4, "memory": "80GB"})
    assert said(pool(pod(**NO_NODE), raw=raw))[1:] == (
        "WaitingForCapacity",
        "a replica needs 4x80GB on one node and no node has that free: the scheduler's words are in the pods'"
        " events",
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            '0/3 nodes are available: persistentvolumeclaim "typo" not found. not found',
            "claim typo is not there: make it, or correct its name in models.source, voices.store or"
            " podTemplate.volumes",
        ),
        (
            "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
            "a claim that it mounts has no volume yet: the claim's events say why",
        ),
        (
            "0/3 nodes are available: 3 node(s) had volume node affinity conflict.",
            "a volume that it mounts can be used on none of the nodes where it may be: choose others with"
            " podTemplate.nodeSelector, or a claim that nodes share",
        ),
        (
            "0/3 nodes are available: 1 node(s) had untolerated taint {a: }, 2 node(s) didn't match Pod's"
            " node affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not helpful for"
            " scheduling.",
            "nodes do not match podTemplate.nodeSelector, podTemplate.affinity, gpu.products or"
            " gpu.requireMemory: correct these, or label a node; nodes have taints that"
            " podTemplate.tolerations does not name: name them there",
        ),
        (
            "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints.",
            "podTemplate.topologySpreadConstraints keep it off nodes: allow more skew, or ScheduleAnyway",
        ),
        (
            "0/1 nodes are available: 1 node(s) were unschedulable.",
            "nodes are cordoned: uncordon one",
        ),
        ("words of a later version", "the scheduler finds none"),
    ],
)
def test_a_pool_that_no_room_would_help_says_what_would(words: str, why: str) -> None:
    (condition,) = NO_NODE["conditions"]
    unplaced = {**NO_NODE, "conditions": [{**condition, "message": words}]}
    raw = pool_raw(gpu={"count": 4, "memory": "80GB"})
    assert said(pool(pod(**unplaced), raw=raw)) == (
        "Reconciling",
        "Unschedulable",
        f"no node may take a replica: {why}; the scheduler's own words are in the pods' events",
    )


B = Quarantine(HASH, "CrashLoopBackOff", "prod-chat-0000000b-0 ends again and again", NOW, "")


def test_a_quarantine_is_said_and_stored_and_the_good_revision_is_what_counts() -> None:
    status = pool(pod(revision=GOOD), memory=Memory(GOOD, None, (B,)))
    assert said(status) == (
        "Stalled",
        "RevisionQuarantined",
        f"revision {HASH} has failed (CrashLoopBackOff: prod-chat-0000000b-0 ends again and again);"
        f" revision {GOOD} takes its place: change the spec, or set the annotation stepaudio.io/retry to"
        " another value",
    )
    stored = {key: status[key] for key in ("revision", "wantedRevision", "goodRevision", "quarantined")}
    assert stored == {
        "revision": GOOD,
        "wantedRevision": HASH,
        "goodRevision": GOOD,
        "quarantined": [
            {
                "revision": HASH,
                "reason": "CrashLoopBackOff",
                "message": "prod-chat-0000000b-0 ends again and again",
                "at": STAMP,
                "ask": "",
            }
        ],
    }
    assert (status["readyReplicas"], status["updatedReplicas"]) == (1, 0)


def test_a_rollout_says_how_it_goes() -> None:
    pods = pod(revision=GOOD), pod(slot=1, revision=GOOD)
    begun = Rollout(HASH, GOOD, "Canary", NOW, step=1, step_started=NOW, traffic=30)
    for rollout, how in (
        (None, ""),
        (replace(begun, phase="Surge"), ""),
        (replace(begun, phase="InPlace"), " in place"),
        (begun, ", step 2 of the canary, 30% of the requests"),
    ):
        words = said(pool(*pods, raw=pool_raw(2), memory=Memory(GOOD, rollout)))
        assert words == ("Reconciling", "RollingOut", f"pods are being replaced by revision {HASH}{how}")


def test_old_pods_that_serve_do_not_make_a_pool_ready() -> None:
    status = pool(pod(revision="0000000a"))
    assert said(status) == ("Reconciling", "RollingOut", f"pods are being replaced by revision {HASH}")
    assert (status["readyReplicas"], status["updatedReplicas"]) == (1, 0)
    assert status["revisions"] == [{"name": "0000000a", "replicas": 1, "ready": 1}]


def test_pods_that_are_going_do_not_count() -> None:
    status = pool(pod(0), replace(pod(1), deleting=True))
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert said(status) == ("Reconciling", "Scaling", "the pool is on its way to 1 replicas")


def test_replicas_nobody_decided_and_zero_replicas() -> None:
    assert said(pool(raw=pool_raw(replicas=None)))[:2] == ("Reconciling", "ReplicasUndecided")
    assert said(pool(raw=pool_raw(replicas=0)))[:2] == ("Ready", "ScaledToZero")


def test_a_refused_write_and_an_invalid_spec_stall() -> None:
    assert said(pool(pod(), problem=("Forbidden", "pods is forbidden"))) == (
        "Stalled",
        "Forbidden",
        "pods is forbidden",
    )
    raw = pool_raw() | {"status": {"revision": HASH}}
    invalid = SpecError([("spec.preset", "this field is required: add it")])
    status = pool_status(raw, invalid, None, PoolObserved((pod(),)), now=NOW)
    assert said(status) == ("Stalled", "InvalidSpec", "spec.preset: this field is required: add it")
    assert (status["revision"], status["readyReplicas"]) == (HASH, 1)


class TestGatewayPool:
    WORK = WorkloadRecord("d", "prod-gateway", "u", "prod-gateway", HASH, 2, 2, 1, 1, 1, 1, None, None)

    def of(self, workload: WorkloadRecord | None) -> tuple[str, str, str]:
        return said(pool(pod(), raw=pool_raw(component="gateway"), workload=workload))

    def test_it_is_ready_with_its_deployment(self) -> None:
        assert self.of(self.WORK)[:2] == ("Ready", "AllReplicasReady")

    def test_it_waits_for_its_deployment(self) -> None:
        assert self.of(None)[:2] == ("Reconciling", "Creating")
        for other in (
            {"observed_generation": 1},
            {"revision": "0000000a"},
            {"replicas": 2},
            {"total_replicas": 2},
            {"updated_replicas": 0},
        ):
            changed = replace(self.WORK, **other)  # type: ignore[arg-type]
            assert self.of(changed)[:2] == ("Reconciling", "RollingOut")

    def test_it_stalls_with_its_deployment(self) -> None:
        late = ConditionRecord("False", "ProgressDeadlineExceeded", "timed out")
        assert self.of(replace(self.WORK, progressing=late))[:2] == ("Stalled", "ProgressDeadlineExceeded")
        refused = ConditionRecord("True", "FailedCreate", "quota\nexceeded")
        assert self.of(replace(self.WORK, replica_failure=refused)) == ("Stalled", "FailedCreate", "quota")


def test_a_transition_time_moves_only_when_the_status_flips() -> None:
    raw = pool_raw() | {
        "status": {
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"},
                {"type": "Stalled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
            ]
        }
    }
    status = pool(pod(**NO_NODE), raw=raw)
    times = {c["type"]: c["lastTransitionTime"] for c in status["conditions"]}
    assert times == {"Ready": "2025-01-01T00:00:00Z", "Reconciling": STAMP, "Stalled": STAMP}


def test_a_steady_state_says_the_same_at_any_time() -> None:
    raw = pool_raw()
    first = pool(pod(), raw=raw)
    spec = parse_pool(raw)
    later = pool_status(
        raw | {"status": first},
        spec,
        pool_target("prod-chat", spec, HASH),
        PoolObserved((pod(),)),
        now=NOW.replace(year=2030),
    )
    assert later == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ModelShapeMismatch: a: b; c\nlog", ("ModelShapeMismatch", "a: b; c")),
        ("\n\nno reason here", ("ConfigurationError", "no reason here")),
        ("key error: x", ("ConfigurationError", "key error: x")),
        ("Ошибка: x", ("ConfigurationError", "Ошибка: x")),
        (f"{'A' * 300}: x", ("ConfigurationError", f"{'A' * 300}: x")),
        ("", ("ConfigurationError", "the pod ended for a reason of configuration: see its log")),
    ],
)
def test_last_words(text: str, expected: tuple[str, str]) -> None:
    assert last_words(text) == expected
