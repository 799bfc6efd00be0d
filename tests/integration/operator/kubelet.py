"""A scheduler and a kubelet that obey: they write the status that real ones would, and run nothing."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.world import GATEWAY_HOST, POD_HOST, Admin, Raw, Refused


class Kubelet:
    """Makes every pod of a namespace Running and Ready, unless told what becomes of it."""

    def __init__(self, admin: Admin, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace
        self.hold: Callable[[Raw], bool] = lambda pod: False
        """Pods for which this is true stay as they are."""
        self.failing: dict[str, tuple[int, str]] = {}
        """Component -> exit code and termination message with which its pods end."""
        self.fails: Callable[[Raw], bool] = lambda pod: True
        """Which pods of those components do."""
        self.room: dict[str, int] = {}
        """Component -> how many pods of it the nodes hold; any number where it is not named."""
        self.place: Callable[[Raw], str] = lambda pod: ""
        """The node that a pod is put on; "" where it does not matter."""
        self.waits: Callable[[Raw], bool] = lambda pod: False
        """Whether a pod's first container has yet to end."""

    async def run(self) -> None:
        while True:
            with contextlib.suppress(Refused, httpx.HTTPError):
                await self._round(await self._admin.all(resources.PODS, self._namespace))
            await asyncio.sleep(0.2)

    async def _round(self, pods: list[Raw]) -> None:
        running = Counter(_component(pod) for pod in pods if pod["status"].get("phase") == "Running")
        for pod in pods:
            component = _component(pod)
            if "deletionTimestamp" in pod["metadata"] and pod["spec"].get("nodeName"):
                await self._end(pod)
                continue
            if pod["status"].get("phase") != "Pending" or self.hold(pod):
                continue
            if not pod["spec"].get("nodeName") and (node := self.place(pod)):
                await self._bind(pod, node)
            elif self.waits(pod):
                await self._begin(pod)
            elif running[component] < self.room.get(component, 1000):
                running[component] += 1
                await self._start(pod)
            elif not pod["status"].get("conditions"):
                await self._refuse(pod)

    async def _end(self, pod: Raw) -> None:
        """A pod that is to go from its node has drained."""
        path = resources.PODS.path(self._namespace, pod["metadata"]["name"])
        with contextlib.suppress(Refused):  # it is gone
            await self._admin.call("DELETE", f"{path}?gracePeriodSeconds=0")

    async def _bind(self, pod: Raw, node: str) -> None:
        path = resources.PODS.path(self._namespace, pod["metadata"]["name"], "binding")
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
        await self._admin.call("POST", path, {**body, "target": target})

    async def _begin(self, pod: Raw) -> None:
        """Its first container runs."""
        if pod["status"].get("initContainerStatuses"):
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        first = {
            "name": pod["spec"]["initContainers"][0]["name"],
            "image": "x",
            "imageID": "",
            "restartCount": 0,
            "ready": False,
            "state": {"running": {"startedAt": now}},
        }
        status = {"phase": "Pending", "initContainerStatuses": [first]}
        await self._admin.patch(
            resources.PODS, self._namespace, pod["metadata"]["name"], {"status": status}, "status"
        )

    async def _refuse(self, pod: Raw) -> None:
        """The scheduler finds no node."""
        waits = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        await self._admin.patch(
            resources.PODS,
            self._namespace,
            pod["metadata"]["name"],
            {"status": {"phase": "Pending", "conditions": [waits]}},
            "status",
        )

    async def _start(self, pod: Raw) -> None:
        component = _component(pod)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        container: Raw = {"name": names.CONTAINER, "image": "x", "imageID": "", "restartCount": 0}
        if component in self.failing and self.fails(pod):
            code, message = self.failing[component]
            ended = {
                "exitCode": code,
                "reason": "Error",
                "message": message,
                "startedAt": now,
                "finishedAt": now,
            }
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
            container |= {
                "ready": False,
                "restartCount": 0,
                "state": {"waiting": waiting},
                "lastState": {"terminated": ended},
            }
            ready = "False"
        else:
            container |= {"ready": True, "started": True, "state": {"running": {"startedAt": now}}}
            ready = "True"
        ip = GATEWAY_HOST if component == names.GATEWAY else POD_HOST
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": now,
            "containerStatuses": [container],
            "initContainerStatuses": None,
            "conditions": [
                {"type": kind, "status": value, "lastTransitionTime": now}
                for kind, value in (("PodScheduled", "True"), ("ContainersReady", ready), ("Ready", ready))
            ],
        }
        await self._admin.patch(
            resources.PODS, self._namespace, pod["metadata"]["name"], {"status": status}, "status"
        )


def _component(pod: Raw) -> str:
    return pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT, "")
