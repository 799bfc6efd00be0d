"""Raw objects become slim records: what is kept, and that nothing the API server takes breaks it."""

from datetime import UTC, datetime

import pytest

from stepaudio_operator.records import ConditionRecord, PodRecord, PoolRecord, WorkloadRecord


def test_a_pod() -> None:
    raw = {
        "metadata": {
            "name": "prod-chat-1f0c22aa-1",
            "namespace": "d",
            "uid": "u",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "deletionTimestamp": "2026-01-02T03:09:05Z",
            "labels": {
                "stepaudio.io/pool": "prod-chat",
                "stepaudio.io/revision": "1f0c22aa",
                "kueue.x-k8s.io/queue-name": "gpus",
                "app.kubernetes.io/component": "chat",
            },
            "annotations": {"stepaudio.io/slot": "1", "stepaudio.io/attempt": "2"},
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "x", "image": "y"}, {"name": "main", "image": "i:1"}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "startTime": "2026-01-02T03:04:06Z",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:05:00Z"},
            ],
            "containerStatuses": [
                {"name": "injected", "restartCount": 9},
                {
                    "name": "main",
                    "restartCount": 1,
                    "state": {"running": {"startedAt": "2026-01-02T03:04:30Z"}},
                    "lastState": {"terminated": {"exitCode": 78, "reason": "Error", "message": "Bad: x"}},
                },
            ],
        },
    }
    assert PodRecord.from_raw(raw) == PodRecord(
        namespace="d",
        name="prod-chat-1f0c22aa-1",
        uid="u",
        pool="prod-chat",
        component="chat",
        revision="1f0c22aa",
        image="i:1",
        queue="gpus",
        slot=1,
        attempt=2,
        phase="Running",
        ready=True,
        ready_changed=datetime(2026, 1, 2, 3, 5, tzinfo=UTC),
        unheard=False,
        deleting=True,
        delete_by=datetime(2026, 1, 2, 3, 9, 5, tzinfo=UTC),
        node="n1",
        ip="10.0.0.1",
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        scheduled=True,
        unschedulable="",
        unschedulable_since=None,
        waiting="",
        waiting_message="",
        running_since=datetime(2026, 1, 2, 3, 4, 30, tzinfo=UTC),
        exit_code=78,
        exit_reason="Error",
        exit_message="Bad: x",
        ends=1,
        reason="",
        message="",
        finished=None,
        started=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
        folder="",
        awaiting_since=None,
        bound=False,
    )


@pytest.mark.parametrize(
    ("ready", "containers", "unheard"),
    [
        ({"status": "False"}, "True", True),  # as the controller-manager leaves it
        ({"status": "False", "reason": "ReadinessGatesNotReady"}, "True", False),
        ({"status": "False", "reason": "ContainersNotReady"}, "False", False),
        ({"status": "False"}, "False", False),  # it did not serve before either
        ({"status": "True"}, "True", False),
    ],
)
def test_a_pod_of_a_node_that_is_not_heard(ready: dict[str, str], containers: str, unheard: bool) -> None:
    conditions = [{"type": "Ready", **ready}, {"type": "ContainersReady", "status": containers}]
    raw = {"metadata": {"name": "p"}, "status": {"phase": "Running", "conditions": conditions}}
    assert PodRecord.from_raw(raw).unheard is unheard


def test_a_pod_that_ended_knows_when() -> None:
    raw = {
        "metadata": {"name": "p", "annotations": {"stepaudio.io/slot": "none"}},
        "status": {
            "phase": "Failed",
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"}
            ],
        },
    }
    record = PodRecord.from_raw(raw)
    assert (record.failed, record.live, record.slot) == (True, False, -1)
    assert record.finished == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_bare_objects_are_records_too() -> None:
    bare = {"metadata": {"name": "x"}}
    assert PodRecord.from_raw(bare).phase == "Pending"
    assert PoolRecord.from_raw(bare).replicas is None
    assert WorkloadRecord.from_raw(bare).replicas == 1


def test_who_holds_the_replicas_of_a_pool() -> None:
    def pool(manager: str, operation: str) -> PoolRecord:
        fields = {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        return PoolRecord.from_raw({"metadata": {"name": "x", "managedFields": [fields]}})

    assert pool("stepaudio-operator", "Apply").replicas_owned
    assert not pool("kube-controller-manager", "Apply").replicas_owned
    assert not pool("stepaudio-operator", "Update").replicas_owned


def test_a_pools_status() -> None:
    record = PoolRecord.from_raw(
        {
            "metadata": {
                "name": "prod-tts",
                "generation": 3,
            },
            "spec": {"replicas": 0, "runtime": {"version": "1", "registry": ""}},
            "status": {
                "observedGeneration": 2,
                "readyReplicas": 1,
                "revisions": [{"name": "0a", "ready": 1, "replicas": 2}, {"name": "0b"}],
                "conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m"}],
            },
        }
    )
    assert (record.replicas, record.current) == (0, False)
    assert (record.runtime_version, record.runtime_registry) == ("1", "")
    assert record.revisions == {"0a": 1, "0b": 0}
    assert record.ready == ConditionRecord("False", "R", "m")
