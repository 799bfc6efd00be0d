"""A canary from its first step to its end, or back: what gateways see decides, stored before it is done."""

from stepaudio_operator import names
from stepaudio_operator.records import Figures
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.test_worlds import broken, spec
from tests.unit.rollouts.world import DEPLOYMENT, NAMESPACE, World

STEPS = [{"traffic": 25, "pause": "1m"}, {"traffic": 50, "pause": "1m"}]
POOL = (names.POOL_KIND, NAMESPACE, "prod-tts")


def canary(change: str) -> Raw:
    wanted = spec(change=change, replicas=2)
    return {**wanted, "rollout": {"strategy": "Canary", "canary": {"steps": STEPS}}}


def started() -> World:
    world = World(canary("before"), {}, broken)
    assert world.settle()
    return world


def tts(world: World) -> Raw:
    return world.api.objects[POOL]["status"]


def try_out(world: World, share: int) -> str:
    """The next change, as far as `share` per cent of the requests go to it. Returns its revision."""
    for _ in range(200):
        world.round()
        world.pass_time(1)
        routing = world.routing()
        assert routing is not None
        weights = routing["pools"]["tts"]["revisions"]
        tried = tts(world).get("wantedRevision")
        if weights.get(tried) == share:
            return tried
    raise AssertionError(f"never at {share}%: {tts(world)}")


def see(world: World, tried: str, errors: int) -> None:
    before = tts(world)["goodRevision"]
    world.figures = {"tts": {before: Figures(300, 3), tried: Figures(100, errors)}}


def test_a_canary_that_is_as_good_takes_all() -> None:
    world = started()
    world.edit(canary("after"))
    tried = try_out(world, 25)
    see(world, tried, errors=1)
    assert try_out(world, 50) == tried
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert tts(world)["goodRevision"] == tried
    assert tts(world)["revisions"] == [{"name": tried, "ready": 2, "replicas": 2}]


def test_its_steps_do_not_pass_while_no_gateway_can_be_asked() -> None:
    world = started()
    world.figures = None
    world.edit(canary("after"))
    tried = try_out(world, 25)
    assert world.settle()  # for two hours, at a pause of one minute
    assert (tts(world)["rollout"]["step"], tts(world)["rollout"]["traffic"]) == (0, 25)
    assert world.condition() == ("False", "CanaryUnseen")
    said = {c["type"]: c["message"] for c in tts(world)["conditions"]}
    assert said["Ready"] == (
        "step 1 of the canary is over, but no gateway can be asked what became of the requests to revision"
        f" {tried}: it goes on when one answers"
    )
    see(world, tried, errors=1)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert tts(world)["goodRevision"] == tried
    said = world.api.objects[POOL]["metadata"].get("annotations") or {}
    assert names.ANNOTATION_CANARY_WATCHED not in said


def test_without_gateways_the_pauses_alone_count() -> None:
    off = {"chat": {"enabled": False}, "tokenizer": {"enabled": False}, "gateway": {"enabled": False}}
    world = World({**canary("before"), **off}, {}, broken)
    assert world.settle()
    world.edit({**canary("after"), **off})
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert tts(world)["revisions"][0]["name"] == tts(world)["wantedRevision"]


def test_one_that_fails_goes_back_and_is_tried_again_when_somebody_says_so() -> None:
    world = started()
    good = tts(world)["goodRevision"]
    world.edit(canary("after"))
    tried = try_out(world, 25)
    see(world, tried, errors=50)
    assert world.settle()
    assert world.condition() == ("False", "RevisionQuarantined")
    (held,) = tts(world)["quarantined"]
    assert (held["revision"], held["reason"]) == (tried, "CanaryFailed")
    assert held["message"] == f"50% of its 100 requests failed, 1% of those of revision {good}"
    assert tts(world)["revisions"] == [{"name": good, "ready": 2, "replicas": 2}]
    # The verdict was handed over before the pods went, and is not kept beyond that.
    calls = world.api.calls
    gone = min(n for n, call in enumerate(calls) if call.startswith(f"delete Pod prod-tts-{tried}"))
    stored = max(n for n, call in enumerate(calls[:gone]) if call == "status StepAudioPool prod-tts")
    assert "apply StepAudioPool prod-tts" in calls[:stored]
    said = world.api.objects[POOL]["metadata"].get("annotations") or {}
    assert names.ANNOTATION_CANARY_FAILED not in said

    world.figures = {}
    again = {names.ANNOTATION_RETRY: "1"}
    world.api.change(DEPLOYMENT, lambda raw: raw["metadata"].update(annotations=again))
    assert try_out(world, 25) == tried
    see(world, tried, errors=0)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert tts(world)["goodRevision"] == tried
