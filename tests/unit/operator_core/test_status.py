"""Statuses say what is so: the reason that helps, kstatus conditions, and nothing that moves by itself."""

from dataclasses import replace

import pytest

from stepaudio_operator.conditions import last_words
from stepaudio_operator.errors import SpecError
from stepaudio_operator.memory import Memory, Quarantine, Rollout
from stepaudio_operator.plan import pool_target
from stepaudio_operator.pool_status import pool_status
from stepaudio_operator.records import (
    ConditionRecord,
    PoolObserved,
    WorkloadRecord,
)
from stepaudio_operator.spec.reading import parse_pool
from tests.unit.operator_core.reported import GOOD, HASH, NO_NODE, NOW, STAMP, pod, pool, pool_raw, said


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
