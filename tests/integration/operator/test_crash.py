"""The operator is killed in the middle of its work at several stages; what it leaves is always completed."""

import asyncio

import pytest

from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import eventually, ready

pytestmark = pytest.mark.api

SHORT_LEASE = {"LEASE_DURATION_S": "4", "LEASE_RENEW_S": "3"}  # the heir waits for its end
CHILDREN = (
    resources.SERVICE_ACCOUNTS,
    resources.SERVICES,
    resources.POOLS,
    resources.DISRUPTION_BUDGETS,
    resources.REVISIONS,
    resources.PODS,
    resources.CONFIG_MAPS,
)


async def test_killed_at_every_stage_it_converges_without_duplicates(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    reference = stage.start_operator("reference")
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        expected = await _census(stage)
        assert reference.stop() == 0
        await admin.delete(resources.DEPLOYMENTS, namespace, "nano")

        async def empty() -> bool:
            return not any((await _census(stage)).values())

        await eventually(empty, "collected")

        for stop_at in (1, 5, 10, 15):
            operator = stage.start_operator(f"victim-{stop_at}", **SHORT_LEASE)
            # Only then is it watched closely: many lists a second would slow down its start.
            await eventually(operator.leads, f"victim-{stop_at} leads")
            await stage.deploy("nano")

            async def made(count: int = stop_at) -> bool:
                return sum(map(len, (await _census(stage)).values())) >= count

            await eventually(made, f"{stop_at} children exist", every_s=0.005)
            operator.kill()
            left = sum(map(len, (await _census(stage)).values()))
            stage.start_operator(f"heir-{stop_at}")
            await eventually(
                lambda: ready(admin, namespace, "nano"), f"Ready after a kill with {left} children"
            )
            assert await _census(stage) == expected
            print(f"killed with {left} children, converged")
            assert stage.operators[-1].stop() == 0
            await admin.delete(resources.DEPLOYMENTS, namespace, "nano")
            await eventually(empty, "collected")
            await asyncio.sleep(0.2)


async def _census(stage: Stage) -> dict[str, list[str]]:
    """Names of all children by kind, without the pods that the gateway's Deployment names at random."""
    found: dict[str, list[str]] = {}
    for resource in CHILDREN:
        names = [n for n in await stage.admin.names(resource, stage.namespace) if n.startswith("nano")]
        if resource is resources.PODS:
            names = [n for n in names if not n.startswith("nano-gateway")]
        found[resource.kind] = names
    return found
