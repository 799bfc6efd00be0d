"""What the gateways are told to serve, and when: in a release, over its border, in an outage, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stepaudio_operator.border import Release
from stepaudio_operator.records import ConditionRecord, PoolRecord, RoutedPool, Routing, Traffic
from stepaudio_operator.release import ReleasePlan, plan_release
from stepaudio_operator.spec.reading import parse_deployment

OLD, NEW = "0000000a", "0000000b"
FIRST, SECOND, FOREIGN = Release("aaaaaaaa", "1"), Release("bbbbbbbb", "1"), Release("bbbbbbbb", "2")
MODELS = ("chat", "tts", "tokenizer")


def pool(component: str, revision: str = OLD, replicas: int = 1, **ready: int) -> PoolRecord:
    record = PoolRecord.from_raw(
        {
            "metadata": {"name": f"prod-{component}", "generation": 1},
            "spec": {"component": component, "deployment": "prod", "replicas": replicas},
            "status": {
                "observedGeneration": 1,
                "revision": revision,
                "revisions": [{"name": name.removeprefix("r"), "ready": n} for name, n in ready.items()],
            },
        }
    )
    return replace(record, ready=ConditionRecord("True", "AllReplicasReady", ""))


def pools(revision: str = OLD, replicas: int = 1, **ready: int) -> dict[str, PoolRecord]:
    """All four pools in one state; keywords are ready pods by `r` + revision."""
    models = {c: pool(c, revision, replicas, **ready) for c in MODELS}
    return models | {"gateway": pool("gateway", OLD, r0000000a=1)}


def spec(**fields: Any):
    return parse_deployment({"metadata": {"name": "prod"}, "spec": {"preset": "nano", **fields}})


def routing(release: Release, weights: Mapping[str, int], generation: int = 3, **changes: Any) -> Routing:
    routed = {c: RoutedPool(f"prod-{c}", 8000, dict(weights)) for c in MODELS}
    return replace(Routing(generation, str(release), True, None, routed), **changes)


SERVED = routing(FIRST, {OLD: 100})
HEARD = {"g-0": 3}


def planned(
    found: Mapping[str, PoolRecord],
    current: Routing | None = SERVED,
    *,
    wanted: Release = FIRST,
    new: Release | None = None,
    acks: Mapping[str, int | None] = HEARD,
    hearing: frozenset[str] = frozenset(),
    **fields: Any,
) -> ReleasePlan:
    """A plan where OLD is of the first release and NEW of `new` (else of the wanted one)."""
    known = {OLD: FIRST, NEW: new or wanted}
    gateway = {OLD: Release("", FIRST.wire), NEW: Release("", (new or wanted).wire)}
    releases = dict.fromkeys(MODELS, known) | {"gateway": gateway}
    return plan_release(spec(**fields), found, releases, wanted, current, acks=acks, hearing=hearing)


class TestWithinARelease:
    def test_it_names_the_pools_that_have_a_revision(self) -> None:
        found = {c: pool(c) for c in ("chat", "tts")} | {"tokenizer": pool("tokenizer", "")}
        assert planned(found, None) == ReleasePlan(
            Routing(
                1,
                str(FIRST),
                True,
                None,
                {c: RoutedPool(f"prod-{c}", 8000, {OLD: 100}) for c in ("chat", "tts")},
            )
        )

    def test_the_first_object_waits_for_pools_that_are_about_to_say_their_revision(self) -> None:
        fresh = replace(pool("tokenizer", ""), observed_generation=0)
        found = {c: pool(c) for c in ("chat", "tts")} | {"tokenizer": fresh}
        assert planned(found, None) == ReleasePlan(None)
        assert planned(found, SERVED).routing is not None

    def test_its_generation_rises_only_when_it_changes(self) -> None:
        assert planned(pools(r0000000a=1)).routing == SERVED
        assert planned(pools(r0000000a=5, replicas=5)).routing == SERVED
        assert planned(pools()).routing == SERVED  # none is ready: the gateways see that by themselves

    def test_a_pool_that_is_being_replaced_is_served_by_both_in_their_ratio(self) -> None:
        found = pools(r0000000a=1) | {"tts": pool("tts", NEW, 3, r0000000a=2, r0000000b=1)}
        mixed = planned(found).routing
        assert mixed is not None
        assert mixed.generation == 4
        assert mixed.release == SERVED.release
        assert mixed.pools["tts"].revisions == {OLD: 67, NEW: 33}
        assert mixed.pools["chat"] == SERVED.pools["chat"]

    def test_gateways_know_a_revision_before_its_first_pod_is_ready(self) -> None:
        found = pools(r0000000a=1) | {"tts": pool("tts", NEW, 1, r0000000a=1)}
        early = planned(found).routing
        assert early is not None
        assert early.pools["tts"].revisions == {OLD: 99, NEW: 1}

    def test_a_canary_gets_the_share_that_its_pool_asks_for(self) -> None:
        trying = pool("tts", NEW, 3, r0000000a=2, r0000000b=1)
        for share, weights in ((0, {OLD: 100}), (5, {NEW: 5, OLD: 95}), (100, {NEW: 100})):
            asked = replace(trying, traffic=Traffic(NEW, share, OLD))
            got = planned(pools(r0000000a=1) | {"tts": asked}).routing
            assert got is not None
            assert got.pools["tts"].revisions == weights

    def test_a_quarantined_revision_gets_nothing(self) -> None:
        back = replace(pool("tts", OLD, 2, r0000000a=1, r0000000b=1), quarantined=(NEW,))
        assert planned(pools(r0000000a=1) | {"tts": back}).routing == SERVED

    def test_nothing_is_routed_without_a_gateway_or_without_pools(self) -> None:
        assert planned(pools(), None, gateway={"enabled": False}) == ReleasePlan(None)
        assert planned({}, None) == ReleasePlan(None)


class TestOverTheBorder:
    def test_traffic_stays_until_every_pool_of_the_new_release_is_ready(self) -> None:
        found = pools(NEW, r0000000a=1, r0000000b=1) | {"chat": pool("chat", NEW, r0000000a=1)}
        waiting = planned(found, wanted=SECOND)
        assert waiting.routing == SERVED
        assert waiting.keep == dict.fromkeys(MODELS, (OLD,))
        assert waiting.trial == dict.fromkeys(MODELS, SECOND)
        assert waiting.back == dict.fromkeys(MODELS, FIRST)
        assert waiting.waiting is not None
        assert (waiting.waiting.reason, waiting.waiting.message) == (
            "ReleasePending",
            f"traffic goes over to release {SECOND} when chat can serve it",
        )

    def test_then_all_of_it_goes_over_at_once_and_the_old_pods_stay_until_all_have_heard(self) -> None:
        kept = {c: replace(p, keep=(OLD,)) for c, p in pools(NEW, r0000000a=1, r0000000b=1).items()}
        kept["gateway"] = pool("gateway", OLD)
        over = planned(kept, wanted=SECOND)
        moved = routing(SECOND, {NEW: 100}, 4)
        assert over == ReleasePlan(moved, None, dict.fromkeys(MODELS, (OLD,)))
        assert planned(kept, wanted=SECOND, rollout={"maxUnavailable": 1}).trial == {}
        late = {"g-0": 4, "g-1": 3}
        assert planned(kept, moved, wanted=SECOND, acks=late) == over
        assert planned(kept, moved, wanted=SECOND, acks={"g-0": 4, "g-1": None}) == over
        assert planned(kept, moved, wanted=SECOND, acks={"g-0": 4, "g-1": 4}) == ReleasePlan(moved)

    def test_enough_is_what_the_budget_asks_for(self) -> None:
        three = pools(NEW, 3, r0000000a=3, r0000000b=1)
        assert planned(three, wanted=SECOND).routing == SERVED
        assert planned(three, wanted=SECOND, rollout={"maxUnavailable": 2}).routing != SERVED
        assert planned(pools(NEW, 3, r0000000a=2, r0000000b=2), wanted=SECOND).routing != SERVED

    def test_a_pool_that_has_yet_to_take_up_its_spec_is_not_ready_for_it(self) -> None:
        found = pools(NEW, r0000000b=1)
        found["tts"] = replace(found["tts"], generation=2)
        assert planned(found, wanted=SECOND).routing == SERVED

    def test_without_room_for_both_it_is_a_declared_outage_that_ends_with_the_set(self) -> None:
        found = pools(NEW, r0000000a=1, r0000000b=1)
        found["chat"] = replace(pool("chat", NEW, r0000000a=1), outage_needed=True, keep=(OLD,))
        declared = planned(found, wanted=SECOND)
        outage = replace(SERVED, generation=4, serving=False, retry_after_s=90)
        assert declared.routing == outage
        # Until the gateways have heard, also what no pool has been told to keep before.
        assert declared.keep == {"chat": (OLD,), "tokenizer": (OLD,), "tts": (OLD,)}
        assert declared.waiting is not None
        assert declared.waiting.reason == "DeclaredOutage"
        assert planned(found, outage, wanted=SECOND, acks={"g-0": 4}).keep == {}
        gone = found | {"chat": pool("chat", NEW)}
        assert planned(gone, outage, wanted=SECOND, acks={"g-0": 4}).routing == outage
        back = found | {"chat": pool("chat", NEW, r0000000b=1)}
        assert planned(back, outage, wanted=SECOND, acks={"g-0": 4}) == ReleasePlan(
            routing(SECOND, {NEW: 100}, 5)
        )

    def test_a_revert_keeps_what_serves(self) -> None:
        found = pools(OLD, r0000000a=1, r0000000b=1)
        assert planned(found, wanted=FIRST, new=SECOND) == ReleasePlan(SERVED)

    def test_a_revert_in_an_outage_serves_again_when_the_old_set_is_back(self) -> None:
        outage = replace(SERVED, generation=4, serving=False, retry_after_s=90)
        assert planned(pools(OLD), outage, new=SECOND, acks={"g-0": 4}).routing == outage
        again = planned(pools(OLD, r0000000a=1), outage, new=SECOND, acks={"g-0": 4})
        assert again == ReleasePlan(routing(FIRST, {OLD: 100}, 5))

    def test_gateways_that_do_not_speak_the_new_wire_move_in_an_outage(self) -> None:
        loading = pools(NEW, r0000000a=1)
        before = planned(loading, wanted=FOREIGN)
        assert before.routing == SERVED
        assert before.keep == dict.fromkeys((*MODELS, "gateway"), (OLD,))
        loaded = pools(NEW, r0000000a=1, r0000000b=1)
        outage = planned(loaded, wanted=FOREIGN).routing
        assert outage == replace(SERVED, generation=4, serving=False, retry_after_s=90)
        assert planned(loaded, outage, wanted=FOREIGN, acks={"g-0": 4}).keep == {}
        assert planned(loaded, outage, wanted=FOREIGN, acks={"g-0": 4}).routing == outage
        between = loaded | {"gateway": pool("gateway", NEW, r0000000a=1, r0000000b=1)}
        assert planned(between, outage, wanted=FOREIGN, acks={"g-0": 4}).routing == outage
        moved = loaded | {"gateway": pool("gateway", NEW, r0000000b=1)}
        again = planned(moved, outage, wanted=FOREIGN, acks={"g-1": 4})
        assert again.routing == routing(FOREIGN, {NEW: 100}, 5)

    def test_a_release_that_failed_in_one_pool_is_left_by_all(self) -> None:
        found = pools(NEW, r0000000a=1, r0000000b=1)
        found["chat"] = replace(pool("chat", OLD, r0000000a=1), quarantined=(NEW,))
        failed = planned(found, wanted=SECOND)
        assert (failed.routing, failed.condemned) == (SERVED, dict.fromkeys(MODELS, SECOND))
        assert failed.back == dict.fromkeys(MODELS, FIRST)
        assert failed.waiting is not None
        assert failed.waiting.stalled
        assert failed.waiting.message == f"release {SECOND} failed in chat: {FIRST} is served"

    def test_also_after_traffic_went_over_to_it(self) -> None:
        over = routing(SECOND, {NEW: 100})
        found = pools(OLD, r0000000a=1, r0000000b=1)
        found["chat"] = replace(found["chat"], quarantined=(NEW,))
        left = planned(found, over, wanted=SECOND)
        assert (left.routing, left.back) == (routing(FIRST, {OLD: 100}, 4), dict.fromkeys(MODELS, FIRST))

    def test_a_routing_object_that_was_deleted_does_not_end_the_release_that_serves(self) -> None:
        found = pools(NEW, r0000000a=1) | {"tts": pool("tts", NEW, r0000000a=1, r0000000b=1)}
        assert planned(found, None, wanted=SECOND, acks={}).routing == routing(FIRST, {OLD: 100}, 1)


class TestATokenizerThatMoves:
    """Into the TTS pods: until they hold it, its own pool serves, of which the spec says nothing any more."""

    within: Mapping[str, Any] = {"tokenizer": {"placement": "WithTTS"}}
    inside = RoutedPool("prod-tts", 8000, {NEW: 100})

    def test_it_is_served_by_its_own_pool_as_that_is_now(self) -> None:
        found = pools(r0000000a=1) | {"tokenizer": pool("tokenizer", NEW, r0000000b=1)}
        moved = {**SERVED.pools, "tokenizer": RoutedPool("prod-tokenizer", 8000, {NEW: 100})}
        assert planned(found, **self.within) == ReleasePlan(
            replace(SERVED, generation=4, pools=moved), leaving=frozenset({"tokenizer"})
        )

    def test_a_pool_that_was_asked_for_another_release_is_told_which_one_is_served(self) -> None:
        found = pools(r0000000a=1)
        found["tokenizer"] = replace(found["tokenizer"], wanted=NEW)
        assert planned(found, new=SECOND, **self.within) == ReleasePlan(
            SERVED,
            condemned={"tokenizer": SECOND},
            back={"tokenizer": FIRST},
            leaving=frozenset({"tokenizer"}),
        )

    def test_it_keeps_what_serves_while_another_release_is_prepared(self) -> None:
        found = pools(NEW, r0000000a=1) | {"tokenizer": replace(pool("tokenizer", r0000000a=1), wanted=OLD)}
        waiting = planned(found, wanted=SECOND, hearing=frozenset({NEW}), **self.within)
        assert waiting.routing == SERVED
        assert waiting.keep == dict.fromkeys(MODELS, (OLD,))
        assert waiting.back == dict.fromkeys(("chat", "tts"), FIRST)

    def test_then_the_tts_pods_have_it_and_its_pool_goes_when_all_have_heard(self) -> None:
        found = pools(NEW, r0000000b=1) | {"tokenizer": pool("tokenizer", r0000000a=1)}
        over = planned(found, wanted=SECOND, hearing=frozenset({NEW}), **self.within)
        moved = routing(SECOND, {NEW: 100}, 4)
        moved = replace(moved, pools={**moved.pools, "tokenizer": self.inside})
        assert (over.routing, over.leaving) == (moved, frozenset({"tokenizer"}))
        heard = {"acks": {"g-0": 4}, "hearing": frozenset({NEW}), **self.within}
        assert planned(found, moved, wanted=SECOND, **heard) == ReleasePlan(moved)

    def test_an_outage_ends_when_its_own_pool_is_back_where_the_tts_pods_fail(self) -> None:
        outage = replace(SERVED, generation=4, serving=False, retry_after_s=90)
        failed = pools(r0000000a=1)
        failed["tts"] = replace(failed["tts"], quarantined=(NEW,))
        late = failed | {"tokenizer": replace(pool("tokenizer", OLD), wanted=NEW)}
        told = {"wanted": SECOND, "acks": {"g-0": 4}, "hearing": frozenset({NEW}), **self.within}
        waiting = planned(late, outage, **told)
        assert waiting.routing == outage
        assert waiting.condemned == dict.fromkeys(MODELS, SECOND)
        assert waiting.back == dict.fromkeys(MODELS, FIRST)
        assert planned(failed, outage, **told).routing == routing(FIRST, {OLD: 100}, 5)

    def test_out_of_them_it_is_back_as_soon_as_they_are(self) -> None:
        inside = {**SERVED.pools, "tokenizer": RoutedPool("prod-tts", 8000, {OLD: 100})}
        outage = replace(SERVED, generation=4, serving=False, retry_after_s=90, pools=inside)
        found = pools(r0000000a=1) | {"tokenizer": pool("tokenizer", NEW)}
        found["tts"] = replace(found["tts"], quarantined=(NEW,))
        back = planned(found, outage, wanted=SECOND, acks={"g-0": 4}, hearing=frozenset({OLD}))
        assert back.routing == replace(SERVED, generation=5, pools=inside)
