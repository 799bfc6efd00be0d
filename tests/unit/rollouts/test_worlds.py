"""Planner, routing and gateways together, in any order of events: what never happens, and where all ends.

Hypothesis chooses what is edited, which watch is late, who moves next, where the operator's process ends,
which pods are lost, when no node is heard, when nobody can see what a canary does, and how much room nodes
have. `world.World` holds the rules that are checked at every move.
"""

from functools import cache
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.world import DEPLOYMENT, NAMESPACE, STAGES, World

STRATEGIES = ("Auto", "Surge", "InPlace", "Recreate", "Canary")
STEPS = [{"traffic": 25, "pause": "1m"}, {"traffic": 50, "pause": "1m"}]
MOVES = (
    *("watch", "operator", "node", "gateway", "ask", "begin", "request") * 3,
    *("rounds",) * 4,
    *("time", "edit", "cut", "lose", "scale", "silence", "silence", "watching"),
)


def spec(
    folder: str = "a",
    wire: str = "1.0.0",
    change: str = "",
    *,
    strategy: str = "Auto",
    budget: int = 1,
    within: bool = False,
    paused: bool = False,
    replicas: int = 1,
    gateways: int = 1,
) -> Raw:
    """A deployment: `folder` and `wire` name its release, `change` is a change of the TTS pool alone. One
    that says `broken` makes pods that cannot run. `within`: the tokenizer is in the TTS pods.
    """
    tts: Raw = {"replicas": replicas, "podTemplate": {"env": [{"name": "CHANGE", "value": change}]}}
    rollout: Raw = {"strategy": strategy, "maxUnavailable": budget}
    return {
        "preset": "nano",
        "paused": paused,
        "runtime": {"version": wire},
        "models": {"source": {"pvc": {"claimName": "models", "subPath": folder}}},
        "chat": {"replicas": replicas},
        "tts": tts if change else {"replicas": replicas},
        "tokenizer": {"placement": "WithTTS"} if within else {"replicas": replicas},
        "gateway": {"replicas": gateways},
        "rollout": {**rollout, "canary": {"steps": STEPS}} if strategy == "Canary" else rollout,
    }


def broken(pod: Raw) -> bool:
    container = pod["spec"]["containers"][0]
    return "broken" in str(container["env"]) + str(container.get("volumeMounts"))


@cache
def _settled(replicas: int, gateways: int) -> World:
    world = World(spec(replicas=replicas, gateways=gateways), {}, broken)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    return world


@st.composite
def edits(draw: st.DrawFn) -> dict[str, Any]:
    """What somebody changes: the release, the TTS pool alone, how pods are replaced."""
    return {
        "folder": draw(st.sampled_from(["a", "a", "b", "b", "broken"])),
        "wire": draw(st.sampled_from(["1.0.0", "1.0.0", "1.1.0", "2.0.0"])),
        "change": draw(st.sampled_from(["", "", "one", "two", "broken"])),
        "strategy": draw(st.sampled_from(STRATEGIES)),
        "budget": draw(st.integers(1, 2)),
        "within": draw(st.sampled_from([False, False, False, True])),
        "paused": draw(st.sampled_from([False, False, False, True])),
    }


@given(
    replicas=st.integers(1, 3),
    gateways=st.integers(1, 2),
    spare=st.integers(0, 3),
    changes=st.lists(edits(), min_size=1, max_size=3),
    moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 11)), min_size=10, max_size=120),
)
@example(  # the operator ends when only one pool has been told of the release, which needs an outage
    replicas=1,
    gateways=1,
    spare=0,
    changes=[{"folder": "b", "wire": "1.0.0", "change": "", "strategy": "InPlace", "budget": 1}],
    moves=[*[("watch", 0)] * 7, ("begin", 0), ("cut", 0), ("rounds", 1)],
)
@example(  # another release is asked for while requests are on their way through two others
    replicas=1,
    gateways=1,
    spare=1,
    changes=[
        {"folder": "a", "wire": "1.1.0", "change": "", "strategy": "Auto", "budget": 1},
        {"folder": "b", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1},
    ],
    moves=[*[("watch", 0)] * 6, ("begin", 0), ("rounds", 5), ("begin", 0), ("edit", 0)],
)
@example(  # a release fails, and the one before it had been served, but only one pool had noted it as good
    replicas=2,
    gateways=1,
    spare=0,
    changes=[
        {"folder": "broken", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1},
        {"folder": "b", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1},
        {"folder": "b", "wire": "1.0.0", "change": "", "strategy": "Recreate", "budget": 1},
    ],
    moves=[
        *[("rounds", 0), ("edit", 0), ("cut", 0), ("watch", 0), ("watch", 0)],
        *[("rounds", 1), ("rounds", 2), ("rounds", 3), ("rounds", 0), ("edit", 0)],
    ],
)
@example(  # in place, the tokenizer leaves the TTS pods again: no change of release, no outage
    replicas=3,
    gateways=1,
    spare=1,
    changes=[
        {"folder": "a", "wire": "1.0.0", "change": "", "strategy": "InPlace", "budget": 1},
        {"folder": "a", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1, "within": True},
    ],
    moves=[*[("watch", 0)] * 7, ("rounds", 3), ("rounds", 11), ("edit", 0)],
)
@example(  # the same in a declared outage, in which nobody is heard
    replicas=1,
    gateways=1,
    spare=1,
    changes=[
        {"folder": "a", "wire": "1.0.0", "change": "", "strategy": "InPlace", "budget": 1},
        {"folder": "a", "wire": "2.0.0", "change": "", "strategy": "Auto", "budget": 1, "within": True},
    ],
    moves=[*[("watch", 0)] * 7, ("rounds", 0), ("rounds", 11), ("edit", 0)],
)
@example(  # an edit comes to the operator with the answer to a status that it writes
    replicas=1,
    gateways=1,
    spare=1,
    changes=[
        {"folder": "a", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1},
        {"folder": "broken", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1},
    ],
    moves=[*[("watch", 0)] * 5, ("rounds", 5), ("cut", 0), ("rounds", 3), ("edit", 0), ("operator", 0)],
)
@example(  # a change of the release is taken back half-way, with another revision of one pool
    replicas=2,
    gateways=1,
    spare=0,
    changes=[
        {"folder": "a", "wire": "1.0.0", "change": "one", "strategy": "Auto", "budget": 1},
        {"folder": "b", "wire": "1.0.0", "change": "", "strategy": "InPlace", "budget": 1},
    ],
    moves=[*[("watch", 0)] * 6, ("rounds", 6), ("edit", 0)],
)
@example(  # a canary is begun when the revision before it serves, but is not noted as good yet
    replicas=1,
    gateways=1,
    spare=0,
    changes=[
        {"folder": "a", "wire": "1.0.0", "change": "one", "strategy": "Canary", "budget": 1},
        {"folder": "a", "wire": "1.0.0", "change": "", "strategy": "InPlace", "budget": 1, "within": True},
    ],
    moves=[*[("watch", 0)] * 8, ("rounds", 4), ("edit", 0)],
)
@example(  # the tokenizer is to move into pods that fail, and its pool has yet to do what it was asked before
    replicas=1,
    gateways=1,
    spare=0,
    changes=[
        {"folder": "broken", "wire": "1.0.0", "change": "", "strategy": "Auto", "budget": 1, "within": True},
        {"folder": "a", "wire": "1.1.0", "change": "", "strategy": "Auto", "budget": 1},
    ],
    moves=[*[("watch", 0)] * 8, ("rounds", 0), ("edit", 0)],
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_stays_within_the_rules_and_ends_where_it_should(
    replicas: int, gateways: int, spare: int, changes: list[dict[str, Any]], moves: list[tuple[str, int]]
) -> None:
    size = {"replicas": replicas, "gateways": gateways}
    world = _settled(**size).twin(dict.fromkeys(STAGES, replicas + spare))
    left = [spec(**change, **size) for change in changes]
    wanted = left.pop()
    world.edit(wanted)
    for what, which in moves:
        if what == "edit" and left:
            wanted = left.pop()
            world.edit(wanted)
        else:
            move(world, what, which)
    world.api.cut_after = None
    world.nodes.speak_again()
    world.figures = {}
    if wanted["paused"]:
        world.edit({**wanted, "paused": False})
    if wanted["rollout"]["strategy"] in ("Surge", "Canary"):
        world.nodes.room = {}  # one that waits for ever was asked to
    for component in (*STAGES, names.GATEWAY):
        world.scale(component, wanted[component].get("replicas", replicas))
    assert world.settle(), f"no end: {world.condition()}"
    assert world.requests == []
    _check_end(world, replicas, "broken" in str(wanted))


def move(world: World, what: str, which: int) -> None:
    """One move of the world; `which` chooses among those who could make it."""

    def one(of: Any) -> list[Any]:
        found = list(of)
        return [found[which % len(found)]] if found else []

    if what == "watch":
        for kind in one(sorted(world.operator.seen)):
            world.deliver(kind, most=1 if which % 2 else None)
    elif what == "operator":
        for key in one(sorted(world.operator.due)):
            world.run(key)
    elif what == "node":
        for pod in one(world.pods()):
            world.node_moves(pod)
    elif what == "gateway":
        world.nodes.deployment_controller()
        for uid in one(sorted(world.gateways)):
            world.gateway_moves(uid)
    elif what == "ask":
        world.ask_pods()
    elif what == "begin":
        for uid in one(sorted(world.gateways)):
            world.begin_request(uid)
    elif what == "request":
        for request in one(world.requests):
            world.request_moves(request)
    elif what == "rounds":
        for _ in range(which + 1):
            world.round()
    elif what == "time":
        world.pass_time((1, 20, 400)[which % 3])
    elif what == "cut":
        world.api.cut_after = which + 1
    elif what == "lose":
        for pod in one(world.pods(STAGES[which % 3])):
            world.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
    elif what == "silence":
        if world.nodes.heard:
            world.nodes.fall_silent()
        else:
            world.nodes.speak_again()
    elif what == "watching":
        world.figures = {} if world.figures is None else None
    elif what == "scale":
        world.scale(STAGES[which % 3], which % 4)


def _check_end(world: World, replicas: int, fails: bool) -> None:
    """Every pool is whole at one revision: the one that is wanted, or the last good one where that fails."""
    ready, reason = world.condition()
    if fails:
        assert (ready, reason) in (("False", "RevisionQuarantined"), ("False", "ReleaseFailed")), reason
    else:
        assert (ready, reason) == ("True", "Ready")
    routing = world.routing()
    assert routing is not None
    assert routing["serving"]
    pools = {c: world.api.objects.get((names.POOL_KIND, NAMESPACE, names.pool("prod", c))) for c in STAGES}
    within = world.api.objects[DEPLOYMENT]["spec"]["tokenizer"].get("placement") == "WithTTS"
    for routed in routing["pools"].values():
        ready = {
            p["metadata"]["labels"][names.LABEL_REVISION]
            for p in world.pods()
            if is_ready(p) and p["metadata"]["labels"].get(names.LABEL_POOL) == routed["service"]
        }
        assert ready >= set(routed["revisions"])
    if within and not fails:
        assert routing["pools"][names.TOKENIZER] == routing["pools"][names.TTS]
        assert pools[names.TOKENIZER] is None
    elsewhere = routing["pools"][names.TOKENIZER]["service"] != names.pool("prod", names.TOKENIZER)
    for component, pool in pools.items():
        if component == names.TOKENIZER and (within or (fails and elsewhere)):
            continue  # where its move failed, it is served where it was
        assert pool is not None
        status, revision = pool["status"], pool["status"]["revision"]
        assert status["revisions"] == [{"name": revision, "replicas": replicas, "ready": replicas}]
        assert status["goodRevision"] == revision
        assert "rollout" not in status
        assert fails or status["wantedRevision"] == revision
        assert routing["pools"][component]["revisions"] == {revision: 100}
