"""Nodes that run nothing: a scheduler with bounded room, a kubelet, and the rolling update of Deployments."""

from collections.abc import Callable
from datetime import datetime, timedelta

from stepaudio_operator import names
from tests.unit.rollouts.api import Api, Place, Raw


class Nodes:
    """`room`: how many pods of each component there is room for. `broken` says whether a pod's container
    fails, `busy` whether it has requests in flight.
    """

    def __init__(
        self,
        api: Api,
        now: Callable[[], datetime],
        room: dict[str, int],
        broken: Callable[[Raw], bool],
        busy: Callable[[Raw], bool],
    ) -> None:
        self.room = room
        self._api = api
        self._now = now
        self._broken = broken
        self._busy = busy
        self.loads: Callable[[Raw], bool] = lambda pod: False
        """Whether a pod's container has yet to load its models."""

    def pods(self, component: str | None = None) -> list[Raw]:
        found = self._api.of("Pod")
        return [p for p in found if component in (None, p["metadata"]["labels"][names.LABEL_COMPONENT])]

    def moves(self, pod: Raw) -> bool:
        """A pod comes one stage further: scheduled, started, ready (or crashed), gone. True where it did."""
        place = ("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        status, spec = pod.get("status") or {}, pod["spec"]
        if "deletionTimestamp" in pod["metadata"]:
            if self._busy(pod) and self._now() < _time(pod["metadata"]["deletionTimestamp"]):
                return False  # it drains
            self._api.remove(place)
            return True
        if not spec.get("nodeName"):
            return self._schedule(place, pod)
        if not status.get("containerStatuses"):
            self._api.change(place, lambda raw: raw.update(status=self._running(raw, ready=False)))
            return True
        if self._broken(pod):
            restarts = status["containerStatuses"][0]["restartCount"]
            if restarts >= 4:
                return False
            self._api.change(place, lambda raw: raw.update(status=self._crashed(raw, restarts + 1)))
            return True
        if not is_ready(pod) and not self.loads(pod):
            self._api.change(place, lambda raw: raw.update(status=self._running(raw, ready=True)))
            return True
        return False

    def _schedule(self, place: Place, pod: Raw) -> bool:
        component = pod["metadata"]["labels"][names.LABEL_COMPONENT]
        taken = sum(bool(p["spec"].get("nodeName")) for p in self.pods(component))
        if taken < self.room.get(component, 99):

            def bind(raw: Raw) -> None:
                raw["spec"]["nodeName"] = "n1"
                raw["status"] = {"phase": "Pending", "conditions": [self._condition("PodScheduled", True)]}

            self._api.change(place, bind)
            return True
        if (pod.get("status") or {}).get("conditions"):
            return False
        waits = self._condition("PodScheduled", False)
        waits |= {"reason": "Unschedulable", "message": "0/1 nodes: 1 Insufficient nvidia.com/gpu."}
        self._api.change(place, lambda raw: raw.update(status={"phase": "Pending", "conditions": [waits]}))
        return True

    def _running(self, pod: Raw, ready: bool) -> Raw:
        container = {
            "name": names.CONTAINER,
            "restartCount": 0,
            "state": {"running": {"startedAt": stamp(self._now())}},
        }
        return {
            "phase": "Running",
            "podIP": pod["metadata"]["uid"],
            "startTime": stamp(self._now()),
            "containerStatuses": [container],
            "conditions": [self._condition("PodScheduled", True), self._condition("Ready", ready)],
        }

    def _crashed(self, pod: Raw, restarts: int) -> Raw:
        status = self._running(pod, ready=False)
        ended = {"exitCode": 1, "reason": "Error", "finishedAt": stamp(self._now())}
        status["containerStatuses"][0] |= {
            "restartCount": restarts,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": ended},
        }
        return status

    def _condition(self, kind: str, holds: bool) -> Raw:
        return {"type": kind, "status": str(holds), "lastTransitionTime": stamp(self._now())}

    def deployment_controller(self) -> bool:
        """One move of Kubernetes' own rolling update of the gateway. True where there was one."""
        moved = False
        for workload in self._api.of("Deployment"):
            moved |= self._roll(workload)
        return moved

    def _roll(self, workload: Raw) -> bool:
        place = ("Deployment", workload["metadata"]["namespace"], workload["metadata"]["name"])
        template, replicas = workload["spec"]["template"], workload["spec"]["replicas"]
        wanted = template["metadata"]["labels"][names.LABEL_REVISION]
        live = [p for p in self.pods(names.GATEWAY) if "deletionTimestamp" not in p["metadata"]]
        new = [p for p in live if p["metadata"]["labels"][names.LABEL_REVISION] == wanted]
        old = [p for p in live if p not in new]
        surplus = sum(map(is_ready, live)) > replicas or len(live) > replicas + 1 or not replicas
        moved = True
        if len(new) < replicas and len(live) <= replicas:
            self._make_gateway(workload, template)
        elif old and (surplus or not all(map(is_ready, old))):
            self._end(min(old, key=is_ready))
        elif len(new) > replicas:
            self._end(new[-1])
        else:
            moved = False
        status = {
            "observedGeneration": workload["metadata"]["generation"],
            "replicas": len(live),
            "updatedReplicas": len(new),
            "readyReplicas": sum(map(is_ready, live)),
        }
        if not moved and workload.get("status") != status:
            self._api.change(place, lambda raw: raw.update(status=status))
            return True
        return moved

    def _make_gateway(self, workload: Raw, template: Raw) -> None:
        meta = template["metadata"]
        self._api.store(
            "Pod",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **meta,
                    "namespace": workload["metadata"]["namespace"],
                    "name": f"{workload['metadata']['name']}-x{len(self._api.events['Pod'])}",
                },
                "spec": dict(template["spec"]),
            },
        )

    def _end(self, pod: Raw) -> None:
        def leave(raw: Raw) -> None:
            raw["metadata"]["deletionTimestamp"] = stamp(self._now() + timedelta(seconds=90))

        self._api.change(("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]), leave)


def is_ready(pod: Raw) -> bool:
    """Whether a pod says that it serves."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def stamp(time: datetime) -> str:
    """A time as the API server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
