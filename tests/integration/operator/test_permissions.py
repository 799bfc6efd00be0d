"""The chart grants what the operator uses and nothing else, and losing it is waited out."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.identity import chart_rbac, grant
from tests.integration.operator.world import LONG_LEASE, eventually, ready

pytestmark = pytest.mark.api

Granted = dict[tuple[str, str], set[str]]


def granted(objects: list[dict[str, Any]]) -> Granted:
    """(group, resource) -> verbs over all rules of all roles."""
    verbs: Granted = defaultdict(set)
    for body in objects:
        for rule in body.get("rules") or ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    verbs[(group, resource)] |= set(rule["verbs"])
    return dict(verbs)


def test_the_chart_grants_exactly_what_the_operator_declares() -> None:
    declared: Granted = {}
    for resource in resources.ALL:
        declared[(resource.group, resource.plural)] = set(resource.verbs)
        if resource.status_verbs:
            declared[(resource.group, f"{resource.plural}/status")] = set(resource.status_verbs)
    assert granted(chart_rbac("any")) == declared


async def test_lost_permissions_are_waited_out_and_said(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        roles = [body for body in chart_rbac(namespace) if body["kind"] == "ClusterRole"]
        emptied = [{**body, "rules": []} for body in roles]
        await grant(admin, emptied)

        pod = next(n for n in await admin.names(resources.PODS, namespace) if n.startswith("nano-tts-"))
        await admin.delete(resources.PODS, namespace, pod)

        async def forbidden() -> bool:
            found = await operator.metrics()
            return any(name.startswith("stepaudio_operator_errors") and "Forbidden" in name for name in found)

        await eventually(forbidden, "the metrics say what is missing")
        assert "Forbidden" in operator.log.read_text()
        await asyncio.sleep(3)
        assert operator.process.poll() is None

        await grant(admin, roles)

        async def back() -> bool:
            return pod in await admin.names(resources.PODS, namespace)

        await eventually(back, "the pod is made again", within_s=90)
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        assert operator.process.poll() is None
