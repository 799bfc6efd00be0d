"""What keeps a pool from being ready is said in words: whose doing it is, and what to do about it."""

from typing import Any

import pytest

from tests.unit.operator_core.reported import (
    GOOD,
    HASH,
    NO_NODE,
    container,
    pod,
    pool,
    pool_raw,
    said,
    terminated,
    waiting,
)

TRUNCATED = "ModelFileTruncated: /models/Step-Audio-Chat/a.safetensors ends early; copy it again"
STALLED = "EngineStalled: 1 requests in flight and no step"
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
