"""Recovery is bounded: strikes by node, a budget, pauses, forgiveness; a day of faults stays within it."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stepaudio_operator import plan, recovery
from stepaudio_operator.memory import Memory
from stepaudio_operator.plan import CreatePod, DeletePod, PoolTarget, Wait
from stepaudio_operator.records import PodRecord, PoolObserved, RevisionRecord
from stepaudio_operator.strikes import Replacement, Strike, Strikes

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HASH = "0000000a"


def stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(
    uid: str = "u0", node: str = "a", ends: int = 1, said: str = "EngineStalled: x", **more: Any
) -> PodRecord:
    """Whose container runs again after so many ends."""
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": said}}
    states = {"state": {"running": {}}, "lastState": ended}
    status = {
        "phase": "Running",
        "containerStatuses": [{"name": "main", "restartCount": ends, **states}],
        **more,
    }
    metadata = {
        "name": f"prod-chat-{HASH}-{uid[1:]}",
        "uid": uid,
        "labels": {"stepaudio.io/pool": "prod-chat", "stepaudio.io/revision": HASH},
        "annotations": {"stepaudio.io/slot": uid[1:]},
    }
    return PodRecord.from_raw({"metadata": metadata, "spec": {"nodeName": node}, "status": status})


def after(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


ONE = Strike("a", "u0", 1, "EngineStalled", NOW)
TWO = Strike("a", "u0", 2, "EngineStalled", after(1))


def test_a_failure_counts_once_and_the_second_one_takes_the_pod_away() -> None:
    first = recovery.decide(Strikes(), [pod()], NOW)
    assert first == Strikes(strikes=(ONE,))
    assert recovery.decide(first, [pod()], after(5)) == first, "the same end is not counted again"
    second = recovery.decide(first, [pod(ends=2)], after(1))
    assert second == Strikes((ONE, TWO), (Replacement("u0", after(1)),))
    assert recovery.steps(first, [pod()], NOW) == []
    assert recovery.steps(second, [pod(ends=2)], after(1)) == [
        DeletePod(f"prod-chat-{HASH}-0", "u0", "it fails on a: another one is made elsewhere")
    ]
    assert (recovery.avoided(first), recovery.avoided(second)) == ((), ("a",))


def test_one_end_is_one_strike_in_every_state_that_the_kubelet_shows_of_it() -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "EngineStalled: x"}}
    shown: list[tuple[int, dict[str, Any]]] = [
        (0, {"state": ended}),
        (0, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}),
        (1, {"state": {"running": {}}, "lastState": ended}),
    ]
    strikes = Strikes()
    for count, states in shown:
        container = {"name": "main", "restartCount": count, **states}
        strikes = recovery.decide(strikes, [pod(containerStatuses=[container])], NOW)
        assert strikes == Strikes((ONE,))
    again = {"name": "main", "restartCount": 1, "state": ended, "lastState": ended}
    assert recovery.decide(strikes, [pod(containerStatuses=[again])], after(1)).strikes == (ONE, TWO)


@pytest.mark.parametrize(
    "harmless",
    [
        pod(said="ModelFileTruncated: a.safetensors ends early"),
        pod(said="EngineFailed: vLLM exited with status 1: Boom"),
        pod(node=""),
    ],
)
def test_what_no_other_node_would_cure_is_no_strike(harmless: PodRecord) -> None:
    assert recovery.decide(Strikes(), [harmless], NOW) == Strikes()


def test_a_pod_that_serves_again_stays_and_so_does_one_that_never_failed_there() -> None:
    ready = pod(ends=2, conditions=[{"type": "Ready", "status": "True"}])
    assert recovery.decide(Strikes((ONE,)), [ready], after(1)).replaced == ()
    lost = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    unheard = pod(ends=2, conditions=lost)
    assert recovery.decide(Strikes((ONE,)), [unheard], after(1)).replaced == ()
    other = pod("u1", ends=0, said="")
    struck = Strikes((ONE, replace(TWO, uid="u9")))
    assert recovery.decide(struck, [other], after(1)) == struck


def test_strikes_expire_and_can_be_forgiven() -> None:
    struck = Strikes((ONE, TWO))
    assert recovery.avoided(recovery.decide(struck, [], after(359))) == ("a",)
    assert recovery.decide(struck, [], after(360)) == Strikes((TWO,))
    forgiven = recovery.decide(struck, [pod(ends=2)], after(2), forgive="yes")
    assert recovery.avoided(forgiven) == ()
    assert recovery.decide(forgiven, [pod(ends=2)], after(3), forgive="yes") == forgiven
    again = recovery.decide(forgiven, [pod(ends=3)], after(4), forgive="yes")
    assert (recovery.avoided(again), again.replaced) == ((), ()), "the first new strike of two"


def test_between_two_there_is_a_pause_that_doubles_and_the_budget_ends_it() -> None:
    now, strikes, gaps = NOW, Strikes(), []
    last = NOW
    for number in range(recovery.BUDGET):
        struck = tuple(replace(ONE, uid=f"u{number}", end=n, at=now) for n in (1, 2))
        strikes = replace(strikes, strikes=struck)
        failing = pod(f"u{number}", ends=2)
        while not (decided := recovery.decide(strikes, [failing], now)).replaced[number:]:
            (wait,) = recovery.steps(strikes, [failing], now)
            assert isinstance(wait, Wait)
            now += timedelta(seconds=wait.seconds)
        strikes = decided
        gaps.append((now - last).total_seconds())
        last = now
    assert gaps == [0, 30, 60, 120, 240, 480]
    assert recovery.is_spent(strikes, now)
    assert recovery.allowed_from(strikes, now) == NOW + recovery.WINDOW
    assert not recovery.is_spent(strikes, NOW + recovery.WINDOW)


def test_what_is_stored_is_read_back_and_nonsense_is_not_remembered() -> None:
    strikes = Strikes((ONE, TWO), (Replacement("u0", NOW),), "yes")
    assert Strikes.from_status(strikes.to_status()) == strikes
    assert Memory.from_status(Memory(strikes=strikes).to_status()) == Memory(strikes=strikes)
    assert Strikes.from_status({"strikes": [{"node": "a"}, {"at": "x"}], "replaced": [{}]}) == Strikes()


# --- a day -----------------------------------------------------------------------------------------------

REPLICAS = 4
FAULTS = (
    "EngineStalled: x",
    "GpuFault: XID 79 on GPU 0",
    "NCCL error: unhandled cuda error, ncclUnhandledCudaError",
    "EngineFailed: vLLM exited with status 1: torch.OutOfMemoryError: CUDA out of memory",
    "OOM",
    "Evicted",
    "Lost",
)


@dataclass
class Played:
    """A pod as the kubelet sees it."""

    name: str
    uid: str
    slot: int
    attempt: int
    node: str
    began: datetime
    avoid: tuple[str, ...] = ()
    ends: int = 0
    said: str = ""
    oom: bool = False
    down_until: datetime | None = None
    ended: datetime | None = None
    gone_at: datetime | None = None

    def record(self, now: datetime) -> PodRecord:
        reason = "OOMKilled" if self.oom else "Error"
        ended = {"exitCode": 137 if self.oom else 1, "reason": reason, "message": self.said}
        up = self.down_until is None and self.ended is None
        # The kubelet counts a restart when the container runs again, not when it has ended.
        container: dict[str, Any] = {"name": "main", "restartCount": self.ends - (not up and self.ends > 0)}
        container["state"] = {"running": {"startedAt": stamp(self.began)}} if up else {"waiting": {}}
        if self.ends:
            container["lastState"] = {"terminated": ended}
        since = self.ended or self.began
        raw: dict[str, Any] = {
            "metadata": {
                "name": self.name,
                "uid": self.uid,
                "labels": {"stepaudio.io/pool": "prod-chat", "stepaudio.io/revision": HASH},
                "annotations": {
                    "stepaudio.io/slot": str(self.slot),
                    "stepaudio.io/attempt": str(self.attempt),
                },
                "creationTimestamp": stamp(self.began),
            },
            "spec": {"nodeName": self.node},
            "status": {
                "phase": "Failed" if self.ended else "Running",
                "startTime": stamp(self.began),
                "containerStatuses": [container],
                "conditions": [
                    {"type": "Ready", "status": str(up), "lastTransitionTime": stamp(since)},
                ],
            },
        }
        if self.ended:
            raw["status"] |= {"reason": self.said, "message": "the node was low on memory"}
        if self.gone_at:
            raw["metadata"]["deletionTimestamp"] = stamp(self.gone_at)
        return PodRecord.from_raw(raw)


@dataclass
class Day:
    """A pool, its nodes and a clock. A reconcile stores its memory before it acts, as the operator does."""

    rng: random.Random
    nodes: tuple[str, ...] = ("a", "b", "c", "d", "e")
    now: datetime = NOW
    memory: Memory = field(default_factory=lambda: Memory(good=HASH))
    pods: list[Played] = field(default_factory=list)
    made: int = 0
    reconciles: int = 0
    taken: list[tuple[datetime, str]] = field(default_factory=list)
    due: datetime | None = None

    def reconcile(self) -> bool:
        """One; False where it changed nothing."""
        self.reconciles += 1
        records = tuple(p.record(self.now) for p in self.pods)
        revisions = (RevisionRecord("d", "r", "u", "prod-chat", HASH, 1, "", {}),)
        observed = PoolObserved(records, revisions, None, self.memory)
        target = PoolTarget("prod-chat", "chat", HASH, REPLICAS)
        decided = replace(
            plan.decide(target, observed, self.now),
            strikes=recovery.decide(self.memory.strikes, records, self.now),
        )
        decided = Memory.from_status(decided.to_status())  # as it comes back from the API server
        if decided != self.memory:
            self.memory = decided
            return True
        steps = [
            *plan.plan_pool(target, observed, self.now),
            *recovery.steps(self.memory.strikes, records, self.now),
        ]
        acted = False
        for step in steps:
            if isinstance(step, CreatePod):
                self.create(step)
            elif isinstance(step, DeletePod):
                self.delete(step)
            acted |= not isinstance(step, Wait)
        waits = [step.seconds for step in steps if isinstance(step, Wait)]
        self.due = self.now + timedelta(seconds=min(waits)) if waits else None
        return acted

    def create(self, step: CreatePod) -> None:
        self.made += 1
        avoid = recovery.avoided(self.memory.strikes)
        used = [p.node for p in self.pods if not p.ended]
        free = [n for n in self.nodes if n not in used] or list(self.nodes)
        node = self.rng.choice([n for n in free if n not in avoid] or free)
        name = f"prod-chat-{HASH}-{step.slot}"
        assert all(p.slot != step.slot for p in self.pods)
        self.pods.append(Played(name, f"u{self.made}", step.slot, step.attempt, node, self.now, avoid))
        holding = [p for p in self.pods if not p.ended]
        assert len(holding) <= REPLICAS, "GPUs are held by a pod too many"

    def delete(self, step: DeletePod) -> None:
        (found,) = [p for p in self.pods if p.uid == step.uid]
        if found.ended:
            self.pods.remove(found)
        elif found.gone_at is None:
            assert any(entry.uid == step.uid for entry in self.memory.strikes.replaced), "not stored before"
            self.taken.append((self.now.replace(microsecond=0), found.node))
            found.gone_at = self.now + timedelta(seconds=10)

    def settle(self) -> None:
        """Reconcile until nothing is left to do. A loop that never ends is a hot one."""
        for _ in range(12):
            if not self.reconcile():
                return
        raise AssertionError("it does not come to rest")

    def fault(self, victim: Played) -> None:
        said = self.rng.choice(FAULTS)
        if said in ("Evicted", "Lost"):
            victim.ended, victim.said = self.now, "Evicted" if said == "Evicted" else "NodeLost"
            return
        self.crash(victim, said)

    def crash(self, victim: Played, said: str) -> None:
        victim.ends += 1
        victim.said, victim.oom = said, said == "OOM"
        victim.down_until = self.now + timedelta(seconds=min(10 * 2 ** min(victim.ends, 5), 300))

    def tick(self) -> None:
        """Time goes on to the next thing that happens by itself."""
        times = [p.down_until for p in self.pods if p.down_until] + [
            p.gone_at for p in self.pods if p.gone_at
        ]
        times += [self.due] if self.due else []
        self.now = max(min(times, default=self.now), self.now + timedelta(seconds=1))
        self.pods = [p for p in self.pods if p.gone_at is None or p.gone_at > self.now]
        for played in self.pods:
            if played.down_until is not None and played.down_until <= self.now:
                played.down_until, played.began = None, self.now


@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_with_more_than_500_faults(seed: int) -> None:
    day = Day(random.Random(seed))
    bad = "b"  # a node on which nothing stays up for long
    faults = 0
    day.settle()
    while day.now < NOW + timedelta(hours=24):
        until = day.now + timedelta(seconds=day.rng.uniform(30, 240))
        up = [p for p in day.pods if not p.ended and p.down_until is None and p.gone_at is None]
        for victim in up:
            if victim.node == bad:
                day.crash(victim, "EngineStalled: x")
                faults += 1
        if up and day.rng.random() < 0.9:
            day.fault(day.rng.choice(up))
            faults += 1
        day.settle()
        while day.now < until and any((day.due, *(p.down_until or p.gone_at for p in day.pods))):
            day.tick()
            day.settle()
        day.now = max(day.now, until)
    assert faults >= 500
    for at, _ in day.taken:
        window = [t for t, _ in day.taken if at <= t < at + recovery.WINDOW]
        assert len(window) <= recovery.BUDGET
    assert day.taken, "nothing was recovered: the day proves nothing"
    assert day.reconciles < 40 * faults, "a hot loop"
    for played in day.pods:  # calm comes: no fault any more, and every replica serves
        played.down_until = played.down_until and day.now
    for _ in range(400):
        serving = [p for p in day.pods if not p.ended and p.down_until is None and p.gone_at is None]
        if len(serving) == REPLICAS:
            return
        day.tick()
        day.settle()
    raise AssertionError("the replicas do not come back")
