"""What a plan does in each situation, step by step, and what it never does in any."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_operator.memory import Memory, Rollout
from stepaudio_operator.plan import (
    ApplyWorkload,
    CreatePod,
    CreateRevision,
    DeletePod,
    DeleteRevision,
    PoolTarget,
    Step,
    Wait,
    plan_pool,
)
from stepaudio_operator.records import PodRecord, PoolObserved, RevisionRecord, WorkloadRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD, NEW = "0000000a", "0000000b"


def pod(revision: str = NEW, slot: int = 0, **facts: object) -> PodRecord:
    name = f"prod-tts-{revision}-{slot}"
    raw = {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}}
    record = replace(
        PodRecord.from_raw(raw), pool="prod-tts", component="tts", revision=revision, slot=slot,
        phase="Running", ready=True, created=NOW - timedelta(hours=1), started=NOW - timedelta(hours=1),
    )  # fmt: skip
    return replace(record, **facts)  # type: ignore[arg-type]


def ended(slot: int, *, ago_s: float, attempt: int = 0, ran_s: float = 1) -> PodRecord:
    finished = NOW - timedelta(seconds=ago_s)
    return pod(
        slot=slot, phase="Failed", ready=False, reason="UnexpectedAdmissionError", attempt=attempt,
        finished=finished, started=finished - timedelta(seconds=ran_s),
    )  # fmt: skip


def revision(hash8: str, number: int) -> RevisionRecord:
    return RevisionRecord(
        "default", f"prod-tts-{hash8}", f"uid-{hash8}", "prod-tts", hash8, number, "inputs", {}
    )


def target(replicas: int | None, **facts: object) -> PoolTarget:
    return replace(PoolTarget("prod-tts", "tts", NEW, replicas), **facts)  # type: ignore[arg-type]


def plan(replicas: int | None, *pods: PodRecord, **facts: object) -> tuple[Step, ...]:
    observed = PoolObserved(pods=pods, revisions=(revision(OLD, 1), revision(NEW, 2)))
    return plan_pool(target(replicas, **facts), observed, NOW)


def deletion(record: PodRecord, reason: str) -> DeletePod:
    return DeletePod(record.name, record.uid, reason)


REPLACED = f"revision {NEW} replaces it"


class TestScaling:
    def test_a_new_pool_stores_its_revision_and_then_makes_its_pods(self) -> None:
        assert plan_pool(target(2), PoolObserved(), NOW) == (
            CreateRevision(NEW, 1, "the spec asks for a revision that is not stored"),
            CreatePod(NEW, 0, 0, "2 replicas are wanted"),
            CreatePod(NEW, 1, 0, "2 replicas are wanted"),
        )

    def test_nothing_is_scaled_while_nobody_has_decided_the_replicas(self) -> None:
        assert plan(None, pod()) == ()
        assert plan(None) == ()

    def test_a_pool_that_is_right_is_left_alone(self) -> None:
        assert plan(2, pod(slot=0), pod(slot=1, ready=False)) == ()

    def test_new_pods_take_the_lowest_free_slots(self) -> None:
        assert plan(3, pod(slot=1)) == (
            CreatePod(NEW, 0, 0, "3 replicas are wanted"),
            CreatePod(NEW, 2, 0, "3 replicas are wanted"),
        )

    def test_a_pod_whose_label_somebody_changed_holds_its_place_all_the_same(self) -> None:
        changed = replace(pod(slot=0), revision="0000000c")
        assert plan(1, changed) == (CreatePod(NEW, 1, 0, "1 replicas are wanted"),)

    def test_surplus_pods_go_those_that_do_not_serve_first(self) -> None:
        pods = pod(slot=0), pod(slot=1, ready=False), pod(slot=2), pod(OLD, slot=0)
        reason = "1 replicas are wanted"
        # One pod more than replicas may stay while an old one is left.
        assert plan(1, *pods) == (deletion(pods[1], reason), deletion(pods[3], reason))
        assert plan(1, pods[0], pods[2]) == (deletion(pods[2], reason),)

    def test_scaling_to_zero_removes_everything(self) -> None:
        assert plan(0, pod(), ended(1, ago_s=1)) == (
            deletion(pod(), "0 replicas are wanted"),
            deletion(ended(1, ago_s=1), "nothing has to replace it"),
        )


class TestReplacingPods:
    def test_a_pod_that_is_going_keeps_its_place_until_its_grace_is_over(self) -> None:
        leaving = pod(deleting=True, delete_by=NOW + timedelta(seconds=60))
        assert plan(1, leaving) == ()
        stuck = replace(leaving, delete_by=NOW - timedelta(seconds=31))
        assert plan(1, stuck) == (CreatePod(NEW, 1, 0, "1 replicas are wanted"),)

    def test_a_failed_pod_is_replaced_after_a_delay_that_doubles(self) -> None:
        wait = "a failed pod is replaced when its delay is over"
        assert plan(1, ended(0, ago_s=4)) == (Wait(6.0, wait),)
        assert plan(1, ended(0, ago_s=14, attempt=1)) == (Wait(6.0, wait),)
        assert plan(1, ended(0, ago_s=0, attempt=40)) == (Wait(300.0, wait),)

    def test_its_successor_carries_the_count_and_exists_before_it_goes(self) -> None:
        failed = ended(0, ago_s=20, attempt=1)
        assert plan(1, failed) == (
            CreatePod(NEW, 1, 2, f"{failed.name} has ended: UnexpectedAdmissionError"),
            deletion(failed, "it has ended (UnexpectedAdmissionError) and is replaced"),
        )

    def test_a_pod_that_ran_for_long_starts_a_new_count(self) -> None:
        failed = ended(0, ago_s=10, attempt=7, ran_s=600)
        assert plan(1, failed)[0] == CreatePod(
            NEW, 1, 1, f"{failed.name} has ended: UnexpectedAdmissionError"
        )

    def test_a_failed_pod_that_was_replaced_before_a_crash_is_removed(self) -> None:
        failed, successor = ended(0, ago_s=1), pod(slot=1, attempt=1)
        assert plan(1, failed, successor) == (deletion(failed, "it has ended and is replaced"),)


class TestInPlace:
    def in_place(self, replicas: int, *pods: PodRecord, **facts: object) -> tuple[Step, ...]:
        return plan(replicas, *pods, strategy="InPlace", **facts)

    def test_with_one_replica_the_old_pod_goes_first(self) -> None:
        assert self.in_place(1, pod(OLD)) == (deletion(pod(OLD), REPLACED),)

    def test_old_pods_go_one_at_a_time(self) -> None:
        old = [pod(OLD, slot) for slot in range(3)]
        assert self.in_place(3, *old) == (deletion(old[2], REPLACED),)

    def test_the_next_goes_only_when_the_new_one_is_ready(self) -> None:
        loading = pod(slot=0, ready=False)
        assert self.in_place(2, pod(OLD, 0), loading) == ()
        assert self.in_place(2, pod(OLD, 0), replace(loading, ready=True)) == (
            deletion(pod(OLD, 0), REPLACED),
        )

    def test_an_old_pod_that_does_not_serve_goes_first_and_alone(self) -> None:
        old = pod(OLD, 0), pod(OLD, 1, ready=False), pod(OLD, 2, ready=False)
        assert self.in_place(3, *old) == (deletion(old[2], f"{REPLACED}; it does not serve"),)

    def test_an_old_pod_whose_node_is_not_heard_goes_only_while_enough_others_serve(self) -> None:
        old = pod(OLD, 0), pod(OLD, 1, ready=False, unheard=True)
        assert self.in_place(2, *old) == (deletion(old[1], f"{REPLACED}; it does not serve"),)
        lost = replace(old[0], ready=False, unheard=True), old[1]
        assert self.in_place(2, *lost) == ()

    def test_what_is_missing_is_made_before_anything_old_goes(self) -> None:
        assert self.in_place(2, pod(OLD, 0, ready=False)) == (CreatePod(NEW, 0, 0, "2 replicas are wanted"),)

    def test_a_larger_budget_replaces_more_at_once(self) -> None:
        old = [pod(OLD, slot) for slot in range(3)]
        assert self.in_place(3, *old, max_unavailable=2) == (
            deletion(old[2], REPLACED),
            deletion(old[1], REPLACED),
        )

    def test_a_revert_keeps_the_pods_that_serve(self) -> None:
        # The rollout to OLD had begun with one pod, which loads; now NEW is wanted again.
        loading = pod(OLD, 0, ready=False)
        serving = pod(slot=0), pod(slot=1)
        assert self.in_place(3, *serving, loading) == (deletion(loading, f"{REPLACED}; it does not serve"),)


class TestKeeping:
    """Another revision is kept whole while a complete set of the new one is made beside it."""

    def test_a_complete_set_is_made_beside_the_kept_one(self) -> None:
        kept = pod(OLD, 0), pod(OLD, 1)
        made = tuple(CreatePod(NEW, slot, 0, "2 replicas are wanted") for slot in range(2))
        assert plan(2, *kept, keep=(OLD,)) == made
        assert plan(2, *kept, pod(slot=0), pod(slot=1), keep=(OLD,)) == ()

    def test_the_kept_set_stays_whole(self) -> None:
        evicted = replace(ended(1, ago_s=60), revision=OLD, name=pod(OLD, 1).name, uid=pod(OLD, 1).uid)
        assert plan(2, pod(OLD, 0), evicted, pod(slot=0), pod(slot=1), keep=(OLD,)) == (
            CreatePod(OLD, 2, 1, f"{evicted.name} has ended: UnexpectedAdmissionError"),
            deletion(evicted, "it has ended (UnexpectedAdmissionError) and is replaced"),
        )

    def test_it_goes_when_it_need_not_be_kept(self) -> None:
        kept = pod(OLD, 0), pod(OLD, 1)
        assert plan(2, *kept, pod(slot=0), pod(slot=1)) == (deletion(kept[1], "2 replicas are wanted"),)
        assert plan(2, kept[0], pod(slot=0), pod(slot=1)) == (deletion(kept[0], REPLACED),)

    def test_of_two_releases_each_keeps_a_set_of_its_own(self) -> None:
        # Requests are still on their way through the first when the change from the second begins.
        first, second = "0000000c", OLD
        pods = tuple(pod(hash8, slot) for hash8 in (first, second) for slot in range(2))
        stored = replace(revision(first, 1), release="a-1"), replace(revision(second, 2), release="b-1")
        observed = PoolObserved(pods=pods, revisions=(*stored, revision(NEW, 3)))
        assert plan_pool(target(2, keep=(first, second)), observed, NOW) == tuple(
            CreatePod(NEW, slot, 0, "2 replicas are wanted") for slot in range(2)
        )

    def test_what_is_neither_kept_nor_wanted_serves_nobody_and_makes_room(self) -> None:
        # A change to OLD is taken back half-way, to another revision of what it came from.
        left, kept = pod("0000000c"), (pod(OLD, 0), pod(OLD, 1))  # of another release, which is not stored
        waiting = pod(slot=0, ready=False, scheduled=False), pod(slot=1, ready=False, scheduled=False)
        goes = (deletion(left, REPLACED),)
        assert plan(2, *kept, left, *waiting, keep=(OLD,), strategy="Surge") == goes
        assert plan(2, kept[0], left, *waiting, keep=(OLD,), strategy="InPlace") == goes

    def test_what_is_not_there_cannot_be_kept(self) -> None:
        assert plan(1, keep=(OLD,)) == (CreatePod(NEW, 0, 0, "1 replicas are wanted"),)


class TestHistory:
    def test_revisions_beyond_the_limit_go_the_oldest_first_but_none_in_use(self) -> None:
        revisions = (*(revision(f"0000000{n}", n) for n in range(1, 5)), revision(NEW, 9))
        observed = PoolObserved(pods=(pod("00000001"),), revisions=revisions)
        steps = plan_pool(target(None, history_limit=1), observed, NOW)
        assert [s.name for s in steps if isinstance(s, DeleteRevision)] == [
            "prod-tts-00000002",
            "prod-tts-00000003",
        ]

    def test_the_good_revision_and_those_of_a_rollout_stay(self) -> None:
        revisions = (*(revision(f"0000000{n}", n) for n in range(1, 5)), revision(NEW, 9))
        rollout = Rollout("00000003", "00000002", "Surge", NOW)
        observed = PoolObserved(revisions=revisions, memory=Memory("00000001", rollout))
        steps = plan_pool(target(None, history_limit=0), observed, NOW)
        assert [s.name for s in steps if isinstance(s, DeleteRevision)] == ["prod-tts-00000004"]

    def test_a_revision_that_is_stored_is_not_stored_again(self) -> None:
        observed = PoolObserved(revisions=(revision(OLD, 4),))
        assert plan_pool(target(0), observed, NOW) == (
            CreateRevision(NEW, 5, "the spec asks for a revision that is not stored"),
        )


class TestGateway:
    def workload(self, hash8: str, replicas: int) -> WorkloadRecord:
        return WorkloadRecord(
            "default", "prod-gateway", "u", "prod-gateway", hash8, 1, 1, replicas, replicas, replicas,
            replicas, None, None,
        )  # fmt: skip

    def steps(self, workload: WorkloadRecord | None, replicas: int | None = 2) -> tuple[Step, ...]:
        desired = target(replicas, name="prod-gateway", component="gateway")
        return plan_pool(desired, PoolObserved((pod(),), (revision(NEW, 1),), workload), NOW)

    def test_the_deployment_is_applied_when_it_is_not_as_it_should_be(self) -> None:
        assert self.steps(None) == (ApplyWorkload(NEW, 2, "there is no Deployment yet"),)
        assert self.steps(self.workload(OLD, 2)) == (
            ApplyWorkload(NEW, 2, f"the Deployment is at revision {OLD}"),
        )
        assert self.steps(self.workload(NEW, 1)) == (ApplyWorkload(NEW, 2, "the Deployment has 1 replicas"),)

    def test_it_is_left_alone_otherwise(self) -> None:
        assert self.steps(self.workload(NEW, 2)) == ()
        assert self.steps(self.workload(OLD, 1), replicas=None) == ()


# --- worlds


@st.composite
def worlds(draw: st.DrawFn) -> tuple[PoolTarget, tuple[PodRecord, ...]]:
    """A target and pods of two revisions in any mix of states."""
    pods = []
    for hash8 in (OLD, NEW):
        for slot in draw(st.sets(st.integers(0, 5), max_size=4)):
            kind = draw(st.sampled_from(["ready", "loading", "leaving", "stuck", "failed"]))
            attempt = draw(st.integers(0, 8))
            if kind == "failed":
                failed = ended(slot, ago_s=draw(st.integers(0, 400)), attempt=attempt)
                pods.append(
                    replace(failed, revision=hash8, name=pod(hash8, slot).name, uid=pod(hash8, slot).uid)
                )
                continue
            by = {"leaving": NOW + timedelta(seconds=30), "stuck": NOW - timedelta(minutes=5)}.get(kind)
            pods.append(pod(hash8, slot, ready=kind == "ready", deleting=by is not None, delete_by=by))
    budget, replicas = draw(st.integers(1, 3)), draw(st.integers(0, 5))
    strategy = draw(st.sampled_from(["Auto", "Surge", "InPlace"]))
    desired = target(replicas, max_unavailable=budget, strategy=strategy)
    return desired, tuple(draw(st.permutations(pods)))


def observe(pods: tuple[PodRecord, ...]) -> PoolObserved:
    return PoolObserved(pods=pods, revisions=(revision(OLD, 1), revision(NEW, 2)))


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_no_plan_goes_below_the_budget_or_uses_a_slot_twice(
    world: tuple[PoolTarget, tuple[PodRecord, ...]],
) -> None:
    desired, pods = world
    replicas = desired.replicas or 0
    steps = plan_pool(desired, observe(pods), NOW)
    deleted = {s.uid for s in steps if isinstance(s, DeletePod)}
    serving = [p for p in pods if p.live and p.ready]
    left = [p for p in serving if p.uid not in deleted]
    if len(left) < len(serving):  # it took pods that serve: only as many as it may
        floor = replicas - desired.max_unavailable if desired.strategy == "InPlace" else replicas
        assert len(left) >= min(len(serving), floor)
    created = [(s.hash8, s.slot) for s in steps if isinstance(s, CreatePod)]
    assert len(set(created)) == len(created)
    assert not set(created) & {(p.revision, p.slot) for p in pods}
    assert all(hash8 == NEW for hash8, _ in created)
    live_after = sum(p.live and p.uid not in deleted for p in pods) + len(created)
    assert live_after <= max(replicas + 1, sum(p.live for p in pods))


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_a_plan_depends_on_nothing_but_its_arguments(
    world: tuple[PoolTarget, tuple[PodRecord, ...]],
) -> None:
    desired, pods = world
    assert plan_pool(desired, observe(pods), NOW) == plan_pool(desired, observe(pods[::-1]), NOW)


def act(pods: tuple[PodRecord, ...], steps: tuple[Step, ...], now: datetime) -> tuple[PodRecord, ...]:
    """The world after `steps`: pods that go are gone, those that were there are ready."""
    deleted = {s.uid for s in steps if isinstance(s, DeletePod)}
    kept = [replace(p, ready=not p.failed) for p in pods if p.uid not in deleted and not p.deleting]
    made = [
        pod(s.hash8, s.slot, attempt=s.attempt, ready=False, created=now, started=now)
        for s in steps
        if isinstance(s, CreatePod)
    ]
    return tuple(kept + made)


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_every_world_converges(world: tuple[PoolTarget, tuple[PodRecord, ...]]) -> None:
    desired, pods = world
    now = NOW
    for _ in range(60):
        steps = plan_pool(desired, observe(pods), now)
        pods = act(pods, steps, now)
        now += timedelta(seconds=60)
    assert [p.revision for p in pods] == [NEW] * (desired.replicas or 0)
    assert all(p.ready for p in pods)
    assert plan_pool(desired, observe(pods), now) == ()
