"""A nano deployment goes from `kubectl apply` to Ready, then nothing is written, and it goes without a trace.

The operator runs as a process under the chart's ServiceAccount and ClusterRole, for the whole cluster.
"""

import asyncio
import json
import os
from collections import Counter

import pytest

from stepaudio_cluster.api import Cluster
from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import condition, eventually, ready

pytestmark = pytest.mark.api

CALM_S = float(os.environ.get("STEPAUDIO_TEST_CALM_S", "20"))
IDLE_MIB = 150

OWN = (
    resources.POOLS,
    resources.SERVICES,
    resources.CONFIG_MAPS,
    resources.SERVICE_ACCOUNTS,
    resources.ROLES,
    resources.ROLE_BINDINGS,
    resources.APP_DEPLOYMENTS,
    resources.REVISIONS,
    resources.DISRUPTION_BUDGETS,
    resources.PODS,
)


def written_by_operator(cluster: Cluster) -> Counter[str]:
    """Writes of the operators so far, by resource, as the API server's audit log has them; leases apart."""
    counted: Counter[str] = Counter()
    assert cluster.audit_log is not None
    for line in cluster.audit_log.read_text().splitlines():
        entry = json.loads(line)
        who, what = entry["user"]["username"], entry.get("objectRef", {}).get("resource", "")
        changes = entry["verb"] in ("create", "update", "patch", "delete", "deletecollection")
        if changes and who.endswith("-step-audio-operator") and what != "leases":
            counted[what] += 1
    return counted


async def test_from_apply_to_ready_to_calm_to_gone(stage: Stage, api_cluster: Cluster) -> None:
    admin, namespace = stage.admin, stage.namespace

    async def alone() -> bool:
        left = [await admin.all(r, None) for r in (resources.DEPLOYMENTS, resources.POOLS)]
        return not any(left)

    await eventually(alone, "what other tests left, an operator of all namespaces would see to")
    operator = stage.start_operator(everywhere=True, installed=True)
    await stage.deploy("nano")
    async with stage.gateways("nano") as gateways:
        gateways.behind = True

        async def pools_ready() -> bool:
            pools = await admin.all(resources.POOLS, namespace)
            return len(pools) == 4 and all(condition(p, "Ready").get("status") == "True" for p in pools)

        await eventually(pools_ready, "four pools are ready")

        async def asked() -> bool:
            return gateways.asked > 1

        await eventually(asked, "the gateway is asked which routing it serves")
        waiting = await admin.get(resources.DEPLOYMENTS, namespace, "nano")
        assert condition(waiting, "Ready")["status"] == "False"
        assert condition(waiting, "Ready")["reason"] == "RoutingPending"

        gateways.behind = False
        deployment = await eventually(lambda: ready(admin, namespace, "nano"), "the deployment is Ready")

        # What stands in the cluster, by the wire contract's names.
        revisions = {p["component"]: p["revision"] for p in deployment["status"]["pools"]}
        assert list(revisions) == ["chat", "tts", "tokenizer", "gateway"]
        model_pods = sorted(f"nano-{c}-{revisions[c]}-0" for c in names.MODEL_COMPONENTS)
        assert [p for p in await admin.names(resources.PODS, namespace) if "gateway" not in p] == model_pods
        assert await admin.names(resources.REVISIONS, namespace) == sorted(
            f"nano-{component}-{revision}" for component, revision in revisions.items()
        )
        pools = ["nano-chat", "nano-gateway", "nano-tokenizer", "nano-tts"]
        assert await admin.names(resources.POOLS, namespace) == pools
        assert await admin.names(resources.SERVICES, namespace) == pools
        assert await admin.names(resources.DISRUPTION_BUDGETS, namespace) == pools
        assert await admin.names(resources.APP_DEPLOYMENTS, namespace) == ["nano-gateway"]
        stored = await admin.get(resources.CONFIG_MAPS, namespace, "nano-routing")
        routing = json.loads(stored["data"][names.ROUTING_KEY])
        assert routing["generation"] == deployment["status"]["routingGeneration"]
        assert {c: p["revisions"] for c, p in routing["pools"].items()} == {
            c: {revisions[c]: 100} for c in names.MODEL_COMPONENTS
        }
        for resource in OWN:
            for item in await admin.all(resource, namespace):
                labels = item["metadata"].get("labels") or {}
                if labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY:
                    assert any(o.get("controller") for o in item["metadata"]["ownerReferences"]), item

        # kopf leaves nothing on the object: no finalizer, no annotation; nobody wrote its spec.
        assert "finalizers" not in deployment["metadata"]
        assert not deployment["metadata"].get("annotations")
        writers = {(m["manager"], m.get("subresource")) for m in deployment["metadata"]["managedFields"]}
        assert writers == {("somebody", None), (names.FIELD_MANAGER, "status")}

        events = await admin.all(resources.EVENTS, namespace)
        ours = [
            (e["regarding"]["name"], e["type"], e["reason"])
            for e in events
            if e["regarding"]["kind"].startswith("StepAudio")
        ]
        assert ours == [("nano", "Normal", "Ready")]

        # Calm: the operator writes nothing but its lease, and nothing of ours changes.
        await asyncio.sleep(2)
        before = await operator.writes()
        audited = written_by_operator(api_cluster)
        assert sum(audited.values()) >= sum(before.values())
        versions = {
            r.kind: [i["metadata"]["resourceVersion"] for i in await admin.all(r, namespace)] for r in OWN
        }
        await asyncio.sleep(CALM_S)
        assert await operator.writes() == before
        assert written_by_operator(api_cluster) == audited
        assert versions == {
            r.kind: [i["metadata"]["resourceVersion"] for i in await admin.all(r, namespace)] for r in OWN
        }
        rss = operator.rss_mib()
        print(f"operator: {rss:.0f} MiB resident when idle; writes until Ready: {before}")
        assert rss < IDLE_MIB

        # A restart finds everything as it should be: not a single write.
        assert operator.stop() == 0
        again = stage.start_operator("two", everywhere=True)
        await eventually(again.leads, "the next replica leads")
        await asyncio.sleep(5)
        assert await again.writes() == {}

    await admin.delete(resources.DEPLOYMENTS, namespace, "nano")

    async def nothing_left() -> bool:
        left = []
        for resource in OWN:
            for item in await admin.all(resource, namespace):
                labels = item["metadata"].get("labels") or {}
                if labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY:
                    left.append((resource.kind, item["metadata"]["name"]))
        return not left

    await eventually(nothing_left, "everything is garbage collected")
    await asyncio.sleep(2)
    assert await nothing_left()
