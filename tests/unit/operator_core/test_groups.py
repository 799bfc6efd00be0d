"""A replica on several nodes: what is rendered of it, what its pods come to together, when it has to go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.foresight import preview
from stepaudio_operator.plan import CreatePod, DeletePod, PoolTarget, Wait, plan_pool
from stepaudio_operator.records import GroupRecord, PodRecord, PoolObserved, RevisionRecord, replicas
from stepaudio_operator.render import pool
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_deployment, parse_pool
from stepaudio_runtime import contract
from tests.unit.operator_core.test_gpus import MODELS, pool_raw, stored

Raw = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TWO = {"count": 4, "nodes": 2}
REV = "1f0c22aa"
GROUP = f"prod-chat-{REV}-0"


# --- what is rendered -----------------------------------------------------------------------------------


def test_it_is_a_set_of_one_group_whose_pods_differ_in_one_label() -> None:
    raw = pool_raw("chat", gpu=TWO, podTemplate={"queue": {"name": "gpus", "priorityClass": "high"}})
    made = pool.replica(raw, record := stored(raw), slot=3, attempt=1, avoid=["n7"])
    template = made["spec"].pop("leaderWorkerTemplate")
    leader, worker = template.pop("leaderTemplate"), template.pop("workerTemplate")
    ours = {
        "app.kubernetes.io/name": "step-audio",
        "app.kubernetes.io/instance": "prod",
        "app.kubernetes.io/managed-by": "stepaudio-operator",
        "app.kubernetes.io/component": "chat",
        "stepaudio.io/deployment": "prod",
        "stepaudio.io/revision": record.hash8,
    }
    owner = {"apiVersion": "stepaudio.io/v1alpha1", "kind": "StepAudioPool", "name": "prod-chat"}
    queue = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high"}
    assert made == {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {
            "name": f"prod-chat-{record.hash8}-3",
            "namespace": "speech",
            "labels": {**ours, "stepaudio.io/pool": "prod-chat", **queue},
            "annotations": {"stepaudio.io/slot": "3", "stepaudio.io/attempt": "1"},
            "ownerReferences": [{**owner, "uid": "p-uid", "controller": True}],
        },
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",
            "networkConfig": {"subdomainPolicy": "Shared"},
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"partition": 0, "maxUnavailable": 1, "maxSurge": 0},
            },
        },
    }
    assert template == {"size": 2, "restartPolicy": "None"}
    assert leader["metadata"]["labels"] == {**ours, "stepaudio.io/pool": "prod-chat"}
    assert worker["metadata"]["labels"] == {**ours, "stepaudio.io/worker-of": "prod-chat"}
    assert leader["spec"] == worker["spec"]
    away = leader["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert away[0]["preference"]["matchFields"][0]["values"] == ["n7"]


def test_each_pod_has_its_share_and_knows_its_place() -> None:
    alone, shared = pool_raw("chat", gpu={"count": 4}), pool_raw("chat", gpu=TWO)
    one = pool.replica(alone, stored(alone), slot=0)["spec"]
    made = pool.replica(shared, stored(shared), slot=0)["spec"]
    two = made["leaderWorkerTemplate"]["leaderTemplate"]["spec"]
    (container,), (other,) = two["containers"], one["containers"]
    assert {k for k in two if two[k] != one[k]} == {"containers"}
    assert {k for k in container if container[k] != other[k]} == {"env", "resources"}
    for side in ("requests", "limits"):
        assert container["resources"][side] == {**other["resources"][side], "nvidia.com/gpu": "2"}
    theirs = [v for v in other["env"] if v["name"] != names.ENV_REVISION]
    rank = {"apiVersion": "v1", "fieldPath": "metadata.labels['leaderworkerset.sigs.k8s.io/worker-index']"}
    assert [v for v in container["env"] if v not in theirs and v["name"] != names.ENV_REVISION] == [
        {"name": "STEPAUDIO_NODES", "value": "2"},
        {"name": "STEPAUDIO_LEADER_ADDRESS", "value": "$(LWS_LEADER_ADDRESS)"},
        {"name": "STEPAUDIO_NODE_RANK", "valueFrom": {"fieldRef": rank}},
    ]
    assert {"name": "STEPAUDIO_TENSOR_PARALLEL", "value": "4"} in container["env"]


def test_a_claim_asks_for_the_gpus_of_one_pod() -> None:
    raw = pool_raw("chat", gpu={**TWO, "claim": {"deviceClass": "gpu.nvidia.com"}})
    (request,) = stored(raw).data["claimTemplate"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2


def test_a_budget_counts_every_pod_of_a_group_and_the_service_calls_leaders_alone() -> None:
    deployment = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "prod", "namespace": "speech"},
        "spec": {"preset": "step-audio", "models": MODELS, "chat": {"gpu": TWO, "replicas": 1}},
    }
    made = {
        (p.body["kind"], p.body["metadata"]["name"]): p.body
        for p in preview.objects(deployment, ImageDefaults("1.0.0", ""))
    }
    (group,) = (body for (kind, _), body in made.items() if kind == "LeaderWorkerSet")
    template = group["spec"]["leaderWorkerTemplate"]
    leader, worker = (template[k]["metadata"]["labels"] for k in ("leaderTemplate", "workerTemplate"))
    budget = made["PodDisruptionBudget", "prod-chat"]["spec"]["selector"]["matchLabels"]
    service = made["Service", "prod-chat"]["spec"]["selector"]
    assert [budget.items() <= labels.items() for labels in (leader, worker)] == [True, True]
    assert [service.items() <= labels.items() for labels in (leader, worker)] == [True, False]


def test_gateways_know_the_revision_of_leaders_and_of_nobody_else_in_a_group() -> None:
    leader = names.leader(names.pod("prod-chat", REV, 12))
    assert contract.pod_revision(leader, "prod-chat") == REV
    assert contract.pod_revision(f"{leader}-1", "prod-chat") is None
    assert contract.pod_revision(f"{leader[:-2]}-1", "prod-chat") is None


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ({"nodes": 2}, "count is the GPUs of all nodes together"),
        ({"count": 2, "nodes": 4}, "count is the GPUs of all nodes together"),
        ({"count": 4, "nodes": 3}, "must be one of 1, 2, 4, 8"),
    ],
)
def test_nodes_that_cannot_share_the_gpus_are_refused(gpu: Raw, words: str) -> None:
    spec = {"preset": "step-audio", "models": MODELS, "chat": {"gpu": gpu}}
    with pytest.raises(SpecError) as refused:
        parse_deployment({"metadata": {"name": "prod"}, "spec": spec})
    ((path, message),) = refused.value.problems
    assert path == "spec.chat.gpu.nodes"
    assert words in message


def test_names_of_a_groups_pods_have_room_in_labels() -> None:
    spec = {"preset": "step-audio", "models": MODELS, "chat": {"gpu": TWO}}
    longest = "d" * names.GROUP_DEPLOYMENT_NAME_LIMIT
    parse_deployment({"metadata": {"name": longest}, "spec": spec})
    workers = names.leader(names.pod(names.pool(longest, "chat"), REV, 9999))  # a StatefulSet's name
    assert len(f"{workers}-0123456789") == names.NAME_LIMIT
    with pytest.raises(SpecError, match="31 characters"):
        parse_deployment({"metadata": {"name": longest + "d"}, "spec": spec})
    raw = pool_raw("tts", gpu={"count": 1, "nodes": 1})
    with pytest.raises(SpecError, match="one node"):
        parse_pool(raw)


# --- what its pods come to ------------------------------------------------------------------------------


def group(**facts: Any) -> GroupRecord:
    metadata = {
        "name": GROUP,
        "namespace": "speech",
        "uid": "g-uid",
        "labels": {names.LABEL_POOL: "prod-chat", names.LABEL_REVISION: REV, names.LABEL_COMPONENT: "chat"},
        "annotations": {"stepaudio.io/slot": "0", "stepaudio.io/attempt": "2"},
        "creationTimestamp": "2026-01-02T03:00:00Z",
    }
    raw = {"metadata": metadata, "spec": {"leaderWorkerTemplate": {"size": 2}}}
    return replace(GroupRecord.from_raw(raw), **facts)


def member(rank: int = 0, **facts: Any) -> PodRecord:
    name = names.leader(GROUP) + (f"-{rank}" if rank else "")
    own = names.LABEL_WORKER_OF if rank else names.LABEL_POOL
    labels = {own: "prod-chat", names.LABEL_REVISION: REV, names.LABEL_GROUP: GROUP}
    raw = {"metadata": {"name": name, "namespace": "speech", "uid": f"uid-{rank}", "labels": labels}}
    fine = {"phase": "Running", "ready": True, "node": f"n{rank}", "ip": f"10.0.0.{rank}", "scheduled": True}
    since = {"running_since": NOW - timedelta(minutes=9 - rank), "created": NOW}
    return replace(PodRecord.from_raw(raw), **{**fine, **since, **facts})


def whole(*members: PodRecord, **facts: Any) -> PodRecord:
    (replica,) = replicas([group(**facts)], members)
    return replica


def test_a_group_is_unheard_where_the_rest_serves() -> None:
    lost, loads = member(ready=False, unheard=True), member(1, ready=False)
    found = whole(lost, member(1)), whole(lost, loads), whole(lost), whole(member(), member(1))
    assert [(replica.ready, replica.unheard) for replica in found] == [
        (False, True), (False, False), (False, False), (True, False),
    ]  # fmt: skip


def test_a_whole_group_is_one_replica_that_is_called_at_its_leader() -> None:
    replica = whole(member(), member(1))
    assert replica == replace(
        member(),
        name=GROUP,
        uid="g-uid",
        slot=0,
        attempt=2,
        created=datetime(2026, 1, 2, 3, tzinfo=UTC),
        running_since=NOW - timedelta(minutes=8),  # the last to start
    )
    assert (replica.pool, replica.revision, replica.ip, replica.live) == ("prod-chat", REV, "10.0.0.0", True)


def test_it_serves_only_whole() -> None:
    assert not whole(member(), member(1, ready=False)).ready
    assert not whole(member(ready=False), member(1)).ready
    assert not whole(member()).ready
    assert not whole().ready
    assert whole().live
    leaving = whole(member(), member(1, deleting=True, delete_by=NOW))
    assert (leaving.ready, leaving.live, leaving.delete_by) == (False, True, NOW)


def test_of_what_is_wrong_it_has_what_the_pod_in_trouble_says() -> None:
    broken = {"ready": False, "exit_code": 78, "exit_message": "ModelFileMissing: x", "ends": 2}
    said = whole(member(ready=False, ends=1), member(1, **broken))
    assert (said.exit_code, said.exit_message, said.ends, said.node) == (
        78,
        "ModelFileMissing: x",
        3,
        "n1",
    )
    ended = {"ready": False, "exit_code": 1}
    consequences = (
        member(**ended, exit_message="EngineFailed: x"),
        member(1, **ended, exit_message="LeaderGone: x"),
    )
    assert whole(*consequences).exit_message == "EngineFailed: x"
    cause = member(1, ready=False, exit_code=137, exit_reason="OOMKilled")
    assert whole(consequences[0], cause).exit_reason == "OOMKilled"
    waiting = whole(member(ready=False), member(1, ready=False, waiting="ImagePullBackOff"))
    assert waiting.waiting == "ImagePullBackOff"
    nowhere = {"ready": False, "scheduled": False, "node": "", "unschedulable": "0/2", "running_since": None}
    half = whole(member(ready=False), member(1, **nowhere))
    assert (half.unschedulable, half.scheduled, half.node, half.running_since) == ("0/2", False, "n0", None)


def test_a_group_whose_set_is_gone_holds_its_place_until_its_last_pod_has() -> None:
    (left,) = replicas([], [member(1)])
    assert (left.name, left.live, left.deleting, left.slot) == (GROUP, False, True, -1)
    plain = replace(member(), group="", name="prod-chat-1f0c22aa-7")
    assert replicas([], [plain]) == (plain,)


# --- when it has to go ----------------------------------------------------------------------------------


def steps(*groups_: PodRecord, wanted: int = 1) -> list[Any]:
    target = PoolTarget("prod-chat", "chat", REV, wanted, surge_timeout_s=300)
    revision = RevisionRecord("speech", f"prod-chat-{REV}", "r", "prod-chat", REV, 1, "i", {})
    return list(plan_pool(target, PoolObserved(pods=groups_, revisions=(revision,)), NOW))


def half(minutes: float) -> PodRecord:
    since = NOW - timedelta(minutes=minutes)
    nowhere = {"ready": False, "scheduled": False, "node": "", "unschedulable": "0/2"}
    return whole(member(ready=False), member(1, **nowhere, unschedulable_since=since))


def test_half_a_group_is_taken_away_when_a_rollout_has_had_its_time() -> None:
    assert steps(whole(member(), member(1))) == []
    (wait,) = steps(half(5.5))
    assert isinstance(wait, Wait)
    assert wait.seconds == 30
    (gone,) = steps(half(6))
    assert gone == DeletePod(GROUP, "g-uid", "a part of it found no node for 360 s, the rest holds GPUs")
    nothing = {"ready": False, "scheduled": False, "node": "", "unschedulable": "0/2"}
    since = NOW - timedelta(hours=1)
    assert steps(whole(member(**nothing, unschedulable_since=since))) == []  # it holds none


def test_a_group_goes_once_where_one_of_its_pods_does_and_its_place_is_filled_afterwards() -> None:
    leaving = whole(member(), member(1, deleting=True, delete_by=NOW))
    assert steps(leaving) == [DeletePod(GROUP, "g-uid", "one of its pods is taken away, and all go with it")]
    assert [s.name for s in steps(leaving, wanted=0)] == [GROUP]
    (draining,) = replicas([], [member(delete_by=NOW + timedelta(minutes=5), deleting=True)])
    assert steps(draining) == []
    (made,) = steps()
    assert isinstance(made, CreatePod)
