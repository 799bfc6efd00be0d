"""Nodes that run nothing: a scheduler with bounded room, a kubelet, the rolling update of Deployments, and
what LeaderWorkerSet's controller does for one group.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count

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
        self.heard = True

    def pods(self, component: str | None = None) -> list[Raw]:
        found = self._api.of("Pod")
        return [p for p in found if component in (None, p["metadata"]["labels"][names.LABEL_COMPONENT])]

    def fall_silent(self) -> None:
        """The controller-manager hears no node any more: it calls all pods not ready, and says no reason."""
        self.heard = False
        for pod in filter(is_ready, self.pods()):
            self._set_ready(pod, ready=False)

    def speak_again(self) -> None:
        """Every kubelet says what it knows."""
        self.heard = True
        for pod in filter(is_unheard, self.pods()):
            self._set_ready(pod, ready=True)

    def _set_ready(self, pod: Raw, *, ready: bool) -> None:
        def change(raw: Raw) -> None:
            kept = [c for c in raw["status"]["conditions"] if c["type"] != "Ready"]
            raw["status"]["conditions"] = [*kept, self._condition("Ready", ready)]

        self._api.change(("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]), change)

    def moves(self, pod: Raw) -> bool:
        """A pod comes one stage further: scheduled, started, ready (or crashed), gone. True where it did."""
        if not self.heard:
            return False
        place = ("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        status, spec = pod.get("status") or {}, pod["spec"]
        if "deletionTimestamp" in pod["metadata"]:
            needed = self._busy(pod) or self._leader_of(pod) is not None
            if needed and not self.ended(pod):
                return False  # it drains
            self._api.remove(place)
            return True
        if not spec.get("nodeName"):
            return self._schedule(place, pod)
        if not status.get("containerStatuses"):
            self._api.change(place, lambda raw: raw.update(status=self._running(raw, ready=False)))
            return True
        if self._broken(pod):
            container = status["containerStatuses"][0]
            ends = container["restartCount"] + ("lastState" in container)
            if ends >= 4:
                return False
            self._api.change(place, lambda raw: raw.update(status=self._crashed(raw, ends + 1)))
            return True
        if not is_ready(pod) and not self.loads(pod) and self._has_its_group(pod):
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
            "conditions": [
                self._condition("PodScheduled", True),
                self._condition("ContainersReady", ready),
                self._condition("Ready", ready),
            ],
        }

    def _crashed(self, pod: Raw, ends: int) -> Raw:
        status = self._running(pod, ready=False)
        ended = {"exitCode": 1, "reason": "Error", "finishedAt": stamp(self._now())}
        status["containerStatuses"][0] |= {
            "restartCount": ends - 1,  # until it runs again
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": ended},
        }
        return status

    def _condition(self, kind: str, holds: bool) -> Raw:
        return {"type": kind, "status": str(holds), "lastTransitionTime": stamp(self._now())}

    def _leader_of(self, pod: Raw) -> Raw | None:
        """The leader of a worker's group, where there is one that is not on its way itself."""
        if names.LABEL_WORKER_OF not in pod["metadata"]["labels"]:
            return None
        name = names.leader(pod["metadata"]["labels"][names.LABEL_GROUP])
        return self._api.objects.get(("Pod", pod["metadata"]["namespace"], name))

    def _has_its_group(self, pod: Raw) -> bool:
        """Whether the others run: a leader becomes ready by them, they by their leader."""
        group = pod["metadata"]["labels"].get(names.LABEL_GROUP)
        if group is None:
            return True
        if (leader := self._leader_of(pod)) is not None:
            return is_ready(leader)
        sets = [s for s in self._api.of("LeaderWorkerSet") if s["metadata"]["name"] == group]
        members = [p for p in self.pods() if p["metadata"]["labels"].get(names.LABEL_GROUP) == group]
        running = [p for p in members if (p.get("status") or {}).get("phase") == "Running"]
        return bool(sets) and len(running) == sets[0]["spec"]["leaderWorkerTemplate"]["size"]

    def group_controller(self) -> bool:
        """Makes the pods of groups, and sends those away whose group is gone. True where it did."""
        moved, groups = False, {s["metadata"]["name"]: s for s in self._api.of("LeaderWorkerSet")}
        for pod in self.pods():
            group = pod["metadata"]["labels"].get(names.LABEL_GROUP)
            if group is not None and group not in groups and "deletionTimestamp" not in pod["metadata"]:
                self._end(pod)
                moved = True
        for name, group in groups.items():
            template, leader = group["spec"]["leaderWorkerTemplate"], names.leader(name)
            wanted = [(leader, template["leaderTemplate"], 0)]
            if ("Pod", group["metadata"]["namespace"], leader) in self._api.objects:
                wanted += [
                    (f"{leader}-{i}", template["workerTemplate"], i) for i in range(1, template["size"])
                ]
            for pod, body, rank in wanted:
                place = ("Pod", group["metadata"]["namespace"], pod)
                if place not in self._api.objects:
                    own = {names.LABEL_GROUP: name, names.LABEL_GROUP_RANK: str(rank)}
                    labels = {**body["metadata"]["labels"], **own}
                    meta = {"namespace": place[1], "name": pod, "labels": labels}
                    self._api.store(
                        "Pod", {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**body["spec"]}}
                    )
                    moved = True
        return moved

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
        held = {pod["metadata"]["name"] for pod in self.pods()}
        free = (f"{workload['metadata']['name']}-x{i}" for i in count(len(self._api.events["Pod"])))
        self._api.store(
            "Pod",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **meta,
                    "namespace": workload["metadata"]["namespace"],
                    "name": next(name for name in free if name not in held),
                },
                "spec": dict(template["spec"]),
            },
        )

    def garbage_collector(self) -> bool:
        """Ends what belongs to a pool that is gone. True where there was some."""
        pools = {raw["metadata"]["uid"] for raw in self._api.of(names.POOL_KIND)}
        left = []
        for place, raw in self._api.objects.items():
            owners = raw["metadata"].get("ownerReferences") or ()
            lost = any(o["kind"] == names.POOL_KIND and o["uid"] not in pools for o in owners)
            if lost and "deletionTimestamp" not in raw["metadata"]:
                left.append((place, raw))
        for place, raw in left:
            if raw["kind"] == "Pod":
                self._end(raw)
            else:
                self._api.remove(place)
        return bool(left)

    def ended(self, pod: Raw) -> bool:
        """Whether the grace period of a pod that leaves is over."""
        until = pod["metadata"].get("deletionTimestamp")
        return until is not None and self._now() >= _time(until)

    def _end(self, pod: Raw) -> None:
        def leave(raw: Raw) -> None:
            raw["metadata"]["deletionTimestamp"] = stamp(self._now() + timedelta(seconds=90))

        self._api.change(("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"]), leave)


def is_ready(pod: Raw) -> bool:
    """Whether a pod says that it serves."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_unheard(pod: Raw) -> bool:
    """Whether a pod serves, but its node is not heard."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    whole = any(c["type"] == "ContainersReady" and c["status"] == "True" for c in conditions)
    return whole and not is_ready(pod)


def stamp(time: datetime) -> str:
    """A time as the API server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
