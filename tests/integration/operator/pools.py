"""What tests of rollouts ask of the deployment `nano` of a stage."""

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import Raw, eventually, ready


class Pools:
    """What a test asks of one stage's deployment."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def pods(self, component: str) -> dict[str, str]:
        """The pods of a component: name -> uid."""
        found = await self.stage.admin.all(resources.PODS, self.stage.namespace)
        return {
            p["metadata"]["name"]: p["metadata"]["uid"]
            for p in found
            if p["metadata"]["labels"].get(names.LABEL_COMPONENT) == component
        }

    async def all_pods(self) -> list[Raw]:
        return await self.stage.admin.all(resources.PODS, self.stage.namespace)

    async def pool(self, component: str) -> Raw:
        return await self.stage.admin.get(resources.POOLS, self.stage.namespace, f"nano-{component}")

    async def is_ready(self) -> None:
        await eventually(lambda: ready(self.stage.admin, self.stage.namespace, "nano"), "Ready")

    async def annotate(self, **annotations: str) -> None:
        said = {f"stepaudio.io/{key}": value for key, value in annotations.items()}
        body = {"metadata": {"annotations": said}}
        await self.stage.admin.patch(resources.DEPLOYMENTS, self.stage.namespace, "nano", body)

    async def at(self, component: str, revision: str, count: int) -> None:
        """Exactly the pods of this revision are there, and the pool knows it to be good."""
        wanted = [f"nano-{component}-{revision}-{slot}" for slot in range(count)]
        assert sorted(await self.pods(component)) == wanted
        status = (await self.pool(component))["status"]
        assert status["goodRevision"] == status["revision"] == status["wantedRevision"] == revision
        assert status["revisions"] == [{"name": revision, "ready": count, "replicas": count}]
        assert "rollout" not in status


def revision_of(pods: dict[str, str]) -> str:
    (revision,) = {name.split("-")[-2] for name in pods}
    return revision
