"""What a pool decides about its rollout: fallback, canary steps, quarantine and the way back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from stepaudio_operator.memory import Memory, Quarantine, Rollout
from stepaudio_operator.plan import CreatePod, DeletePod, PoolTarget, decide, plan_pool
from stepaudio_operator.records import CanaryVerdict, PodRecord, PoolObserved, RevisionRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD, NEW = "0000000a", "0000000b"
REVISIONS = tuple(RevisionRecord("d", f"p-{h}", h, "p", h, n, "", {}) for n, h in enumerate((OLD, NEW), 1))


def pod(revision: str, slot: int = 0, **facts: object) -> PodRecord:
    raw = {"metadata": {"name": f"p-{revision}-{slot}", "uid": f"{revision}-{slot}"}}
    record = replace(
        PodRecord.from_raw(raw), revision=revision, slot=slot, phase="Running", ready=True, scheduled=True
    )
    return replace(record, **facts)  # type: ignore[arg-type]


def target(**facts: object) -> PoolTarget:
    return replace(PoolTarget("p", "tts", NEW, 1), **facts)  # type: ignore[arg-type]


def observed(*pods: PodRecord, rollout: Rollout | None = None) -> PoolObserved:
    return PoolObserved(pods, REVISIONS, None, Memory(OLD, rollout))


SURGE = Rollout(NEW, OLD, "Surge", NOW)


def test_a_rollout_begins_as_a_surge_and_ends_as_good() -> None:
    assert decide(target(), observed(pod(OLD)), NOW) == Memory(OLD, SURGE)
    assert decide(target(), observed(pod(NEW), rollout=SURGE), NOW) == Memory(NEW)


def test_all_pools_go_back_to_one_release_whatever_each_has_noted_as_good() -> None:
    releases = {"0000000a": "first", "0000000b": "third", "0000000c": "second", "0000000d": "second"}
    revisions = tuple(
        RevisionRecord("d", f"p-{h}", h, "p", h, number, "", {}, release)
        for number, (h, release) in enumerate(releases.items(), 1)
    )
    serves, ends = pod("0000000c"), pod(NEW, ready=False, exit_code=1, ends=5)

    def aim(back: str, *pods: PodRecord, good: str = OLD, condemned: bool = False) -> str:
        """Where the rollout goes that a pool decides on."""
        world = PoolObserved(pods, revisions, None, Memory(good))
        asked = target(back=back, condemned=condemned, trial=not condemned)
        rollout = decide(asked, world, NOW).rollout
        assert rollout is not None
        return rollout.revision

    assert aim("", serves, ends) == OLD
    assert aim("second", serves, ends) == "0000000c"
    assert aim("second", ends) == "0000000d"
    assert aim("second", ends, good="0000000c") == "0000000c"
    assert aim("none that is stored", serves, ends) == OLD
    # It has noted the release as good that failed elsewhere.
    assert aim("first", pod(NEW), good=NEW, condemned=True) == OLD


def test_auto_goes_in_place_only_where_an_old_pod_holds_what_lacks() -> None:
    for words, phase in (
        ("3 Insufficient nvidia.com/gpu", "InPlace"),
        ("3 cannot allocate all claims", "InPlace"),
        ("node(s) had taint", "Surge"),
    ):
        waits = pod(NEW, ready=False, scheduled=False, unschedulable=words, unschedulable_since=NOW)
        world = observed(pod(OLD), waits, rollout=SURGE)
        assert decide(target(), world, NOW + timedelta(seconds=299)) == Memory(OLD, SURGE)
        later = NOW + timedelta(seconds=300)
        assert decide(target(), world, later) == Memory(OLD, replace(SURGE, phase=phase))
        assert decide(target(strategy="Surge"), world, later) == Memory(OLD, SURGE)


def test_a_queue_is_relieved_by_pods_of_its_own() -> None:
    held = {"ready": False, "scheduled": False, "queue": "gpus", "unschedulable_since": NOW}
    held["unschedulable"] = "Scheduling is blocked due to non-empty scheduling gates"
    for queue, phase in (("gpus", "InPlace"), ("other", "Surge"), ("", "Surge")):
        world = observed(pod(OLD, queue=queue), pod(NEW, **held), rollout=SURGE)
        later = NOW + timedelta(seconds=300)
        assert decide(target(), world, later) == Memory(OLD, replace(SURGE, phase=phase))


def test_a_crash_loop_is_quarantined_and_the_way_back_starts_from_what_is_stored() -> None:
    broken = pod(NEW, ready=False, ends=3, exit_code=1, exit_reason="Error")
    world = observed(pod(OLD), broken, rollout=SURGE)
    message = f"{broken.name} ends again and again with exit code 1"
    held = Quarantine(NEW, "CrashLoopBackOff", message, NOW, "")
    decided = decide(target(), world, NOW)
    assert decided == Memory(OLD, Rollout(OLD, NEW, "InPlace", NOW, traffic=100), (held,))
    back = replace(world, memory=decided)
    assert plan_pool(target(), back, NOW) == (
        DeletePod(broken.name, broken.uid, f"revision {OLD} replaces it; it does not serve"),
    )
    assert decide(target(ask="other"), replace(back, pods=(pod(OLD),)), NOW) == Memory(OLD, SURGE)


def test_what_is_outside_the_pod_condemns_nothing() -> None:
    late = NOW + timedelta(days=1)
    for facts in (
        {"ends": 9, "exit_code": 75},
        {"ends": 9, "exit_code": 255, "exit_reason": "ContainerStatusUnknown"},
        {"waiting": "ImagePullBackOff"},
        {"running_since": NOW, "ready_changed": NOW + timedelta(seconds=9)},
    ):
        world = observed(pod(OLD), pod(NEW, ready=False, **facts), rollout=SURGE)
        assert decide(target(), world, late).quarantined == ()
    loading = observed(pod(OLD), pod(NEW, ready=False, running_since=NOW), rollout=SURGE)
    (held,) = decide(target(), loading, late).quarantined
    assert held.reason == "ProgressDeadlineExceeded"


def test_a_canary_takes_its_steps_and_a_failed_one_is_quarantined() -> None:
    wanted = target(strategy="Canary", canary=((10, 60), (50, 60)))
    begun = Rollout(NEW, OLD, "Canary", NOW, step=0, traffic=0)
    assert decide(wanted, observed(pod(OLD)), NOW) == Memory(OLD, begun)
    assert plan_pool(wanted, observed(pod(OLD), rollout=begun), NOW) == (
        CreatePod(NEW, 0, 0, "1 replicas are wanted"),
    )
    both = pod(OLD), pod(NEW)
    held = replace(begun, step_started=NOW, traffic=10)
    assert decide(wanted, observed(*both, rollout=begun), NOW) == Memory(OLD, held)
    later = NOW + timedelta(seconds=60)
    second = replace(held, step=1, step_started=None)
    assert decide(wanted, observed(*both, rollout=held), later) == Memory(OLD, second)
    verdict = CanaryVerdict(NEW, "12% of its requests failed, 1% of the others")
    (failed,) = decide(wanted, observed(*both, rollout=held), NOW, verdict).quarantined
    assert (failed.reason, failed.message) == ("CanaryFailed", verdict.message)
