"""Who plays in a world (`world`): one life of the operator, gateways, requests on their way; and what is told
of them.
"""

from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.polling import Answer, Target
from stepaudio_operator.reconcile.core import Outcome
from stepaudio_operator.reconcile.reconciler import Reconciler
from stepaudio_runtime.gateway.routing import Balancer, Path
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.nodes import is_ready, is_unheard


class Asked:
    """What the poller of pods knows: the operator's questions, and the answers so far."""

    def __init__(self) -> None:
        self.targets: dict[Key, dict[str, Target]] = {}
        self.answers: dict[str, Answer] = {}

    def want(self, key: Key, targets: list[Target]) -> None:
        self.targets[key] = {t.uid: t for t in targets}
        asked = {uid for targets in self.targets.values() for uid in targets}
        self.answers = {uid: answer for uid, answer in self.answers.items() if uid in asked}

    def answer(self, uid: str) -> Answer | None:
        return self.answers.get(uid)


@dataclass
class Operator:
    """One life of the operator: what it has seen, and what it wants to do."""

    cluster: Cluster
    reconcile: Reconciler
    asked: Asked
    seen: dict[str, int]
    """How far each kind's watch has come in the events."""
    due: set[Key] = field(default_factory=set)
    timers: dict[Key, datetime] = field(default_factory=dict)


@dataclass
class Request:
    """One request on its way: the pods that it has met."""

    gateway: str
    path: Path
    end: ExitStack
    met: list[tuple[str, str]] = field(default_factory=list)
    """Pod and release, in the order of `STAGES`."""


@dataclass
class Gateway:
    """A gateway pod's own state."""

    balancer: Balancer = field(default_factory=Balancer)


def path_release(request: Request) -> str | None:
    """The release that a request has met so far."""
    return request.met[-1][1] if request.met else None


def serves(pod: Raw) -> bool:
    """Whether a pod does its work, whatever the cluster makes of it."""
    return is_ready(pod) or is_unheard(pod)


def drive(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Runs what never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        result: Outcome = done.value
        return result
    raise AssertionError("a reconcile waited for something that is not there")


def ours(raw: Raw) -> bool:
    labels = raw["metadata"].get("labels") or {}
    return labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
