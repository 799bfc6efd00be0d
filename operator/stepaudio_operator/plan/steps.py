"""What goes into a plan and what comes out: the target of a pool, and the steps."""

from __future__ import annotations

from dataclasses import dataclass

from stepaudio_operator.spec.rollout import AUTO, Strategy


@dataclass(frozen=True)
class PoolTarget:
    """What a pool should be. `replicas` is None while nobody has decided it: then nothing is scaled."""

    name: str
    component: str
    wanted: str
    """Revision that the spec asks for."""
    replicas: int | None
    strategy: Strategy = AUTO
    max_unavailable: int = 1
    surge_timeout_s: int = 300
    progress_deadline_s: int = 2700
    auto_rollback: bool = True
    history_limit: int = 10
    """Revisions kept beside those in use."""
    canary: tuple[tuple[int, int], ...] = ()
    """Steps of a canary: per cent of the traffic, seconds."""
    watched: bool = True
    """Whether somebody sees what becomes of a canary's requests; its steps do not pass unseen."""
    ask: str = ""
    """Digest of what lifts a quarantine when it changes."""
    keep: tuple[str, ...] = ()
    """Revisions that alone serve and go on doing so, while a change of release is prepared."""
    condemned: bool = False
    """Whether the wanted revision belongs to a release that failed in another pool, or is given up."""
    local_models: bool = False
    """Whether the models lie on the nodes' own disks."""
    trial: bool = False
    """Whether it belongs to a release that has yet to take over the traffic: it is not good before that."""
    back: str = ""
    """Release to go back to where the wanted one fails; "" where nobody has said: the last good revision."""


@dataclass(frozen=True)
class CreateRevision:
    """Store the revision that the spec asks for; `number` is its order in the pool."""

    hash8: str
    number: int
    reason: str


@dataclass(frozen=True)
class CreatePod:
    """Make the pod of `hash8` in `slot`, from the stored revision; `bound`: only where its models are."""

    hash8: str
    slot: int
    attempt: int
    reason: str
    bound: bool = False


@dataclass(frozen=True)
class DeletePod:
    """Delete the pod with this uid; it drains by itself."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class ApplyWorkload:
    """Apply the gateway's Deployment at `hash8`, from the stored revision."""

    hash8: str
    replicas: int
    reason: str


@dataclass(frozen=True)
class DeleteRevision:
    """Delete a stored revision that nothing uses."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `seconds` have passed; then plan again."""

    seconds: float
    reason: str


Step = CreateRevision | CreatePod | DeletePod | ApplyWorkload | DeleteRevision | Wait
