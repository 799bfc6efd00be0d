"""A deployment's status says what its pools, its gateways and its release come to."""

from dataclasses import replace
from typing import Any

import pytest

from stepaudio_operator.conditions import Verdict
from stepaudio_operator.errors import SpecError
from stepaudio_operator.records import (
    ConditionRecord,
    PoolRecord,
    RoutedPool,
    Routing,
)
from stepaudio_operator.spec.reading import parse_deployment
from stepaudio_operator.status import deployment_status
from tests.unit.operator_core.reported import HASH, NOW, said

RAW = {"metadata": {"name": "prod", "namespace": "d", "generation": 2}, "spec": {"preset": "nano"}}
ROUTING = Routing(3, "b1946ac9", True, None, {"tts": RoutedPool("prod-tts", 8000, {HASH: 100})})


def pool_record(component: str, verdict: str = "Ready", **facts: Any) -> PoolRecord:
    held = ConditionRecord("True", "AllReplicasReady", "1 of 1 replicas serve")
    record = PoolRecord.from_raw(
        {
            "metadata": {"name": f"prod-{component}", "generation": 1},
            "spec": {"component": component, "deployment": "prod", "replicas": 1},
            "status": {"observedGeneration": 1, "readyReplicas": 1, "revision": HASH},
        }
    )
    if verdict != "Ready":
        held = ConditionRecord("False", verdict, "because")
    return replace(record, ready=held, **facts)


def pools(**verdicts: str) -> dict[str, PoolRecord]:
    return {
        component: pool_record(component, verdicts.get(component, "Ready"))
        for component in ("chat", "tts", "tokenizer", "gateway")
    }


def whole(
    found: dict[str, PoolRecord],
    routing: Routing | None = ROUTING,
    acks: dict[str, int | None] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    acks = {"g-0": 3} if acks is None else acks
    return deployment_status(
        RAW, parse_deployment(RAW), found, routing=routing, acks=acks, now=NOW, **arguments
    )


def test_the_whole_status_of_a_deployment_that_is_ready() -> None:
    status = whole(pools())
    summary = {"replicas": 1, "readyReplicas": 1, "ready": True, "revision": HASH}
    assert {k: v for k, v in status.items() if k != "conditions"} == {
        "observedGeneration": 2,
        "release": "b1946ac9",
        "routingGeneration": 3,
        "url": "http://prod-gateway.d.svc/v1",
        "pools": [
            {"component": c, "name": f"prod-{c}", **summary, "reason": "AllReplicasReady"}
            for c in ("chat", "tts", "tokenizer", "gateway")
        ],
    }
    assert said(status) == (
        "Ready",
        "Ready",
        "every pool is ready and every gateway serves the current routing",
    )


def test_a_deployment_is_not_ready_before_every_ready_gateway_serves_the_routing() -> None:
    late = ("Reconciling", "RoutingPending", "waits until g-1 serves the current routing")
    assert said(whole(pools(), acks={"g-0": 3, "g-1": 2})) == late
    assert said(whole(pools(), acks={"g-0": 3, "g-1": None})) == late
    assert said(whole(pools(), acks={}))[:2] == ("Reconciling", "RoutingPending")
    assert said(whole(pools(), routing=None))[:2] == ("Reconciling", "RoutingPending")


@pytest.mark.parametrize("reason", ["WaitingForCapacity", "WaitingForQuota", "Unschedulable"])
def test_the_pool_that_gets_no_node_speaks_first(reason: str) -> None:
    found = whole(pools(chat="PodsNotReady", tts=reason))
    assert said(found) == ("Reconciling", reason, "tts: because")


def test_a_deployment_passes_on_what_keeps_its_pools() -> None:
    stalled = ConditionRecord("True", "ModelFileTruncated", "prod-tts-0: it ends early")
    found = pools(chat="PodsNotReady") | {"tts": pool_record("tts", "ModelFileTruncated", stalled=stalled)}
    assert said(whole(found)) == ("Stalled", "ModelFileTruncated", "tts: prod-tts-0: it ends early")


def test_a_pools_old_status_does_not_count() -> None:
    found = pools() | {"chat": replace(pool_record("chat"), generation=2)}
    assert said(whole(found)) == (
        "Reconciling",
        "Reconciling",
        "chat: the pool has yet to take up its newest spec",
    )


def test_a_deployment_waits_for_pools_that_are_missing() -> None:
    found = pools()
    del found["tokenizer"]
    assert said(whole(found)) == ("Reconciling", "Creating", "pools are being made: tokenizer")


def test_refusals_and_invalid_specs_stall_a_deployment() -> None:
    assert said(whole(pools(), problem=("Invalid", "no"))) == ("Stalled", "Invalid", "no")
    invalid = SpecError([("spec.chat", "a"), ("spec.tts", "b")])
    status = deployment_status(RAW, invalid, pools(), routing=None, acks={}, now=NOW)
    assert said(status) == ("Stalled", "InvalidSpec", "spec.chat: a; spec.tts: b")
    assert [p["name"] for p in status["pools"]] == ["prod-chat", "prod-tts", "prod-tokenizer", "prod-gateway"]


def test_a_change_of_release_and_an_outage_are_said() -> None:
    later = Verdict("ReleasePending", "traffic goes over to release b-1 when chat can serve it")
    assert said(whole(pools(), waiting=later)) == ("Reconciling", later.reason, later.message)
    outage = Verdict("DeclaredOutage", "nothing is served until chat can serve release b-1")
    off = replace(ROUTING, serving=False, retry_after_s=90)
    assert said(whole(pools(chat="RollingOut"), off, waiting=outage)) == (
        "Reconciling",
        outage.reason,
        outage.message,
    )


def test_a_paused_deployment_says_what_is_and_that_waiting_does_not_help() -> None:
    paused = parse_deployment({**RAW, "spec": {**RAW["spec"], "paused": True}})

    def when(found: dict[str, PoolRecord], **arguments: Any) -> tuple[str, str, str]:
        acks = {"g-0": 3}
        status = deployment_status(RAW, paused, found, routing=ROUTING, acks=acks, now=NOW, **arguments)
        return said(status)

    assert when(pools()) == (
        "Ready",
        "Paused",
        "as asked for; paused: what changes or fails is left as it is",
    )
    go_on = "paused, set spec.paused to false to go on; "
    assert when(pools(), pending=True) == ("Stalled", "Paused", f"{go_on}the spec asks for changes")
    assert when(pools(chat="PodsNotReady"))[2].startswith(f"{go_on}PodsNotReady: chat: ")
