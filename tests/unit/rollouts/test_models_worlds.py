"""Downloaded models in any order of events: the rules of `models_world.ModelsWorld` hold at every move, and
all ends with every pod ready, on the models that are wanted.

Hypothesis chooses where models are kept, which revisions are asked for, who moves next, where the operator's
process ends, which pods are lost, and whether the scheduler does what pods prefer.
"""

from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.models_world import ModelsWorld, folder_of, models_spec, mounted, wanted_name
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.test_worlds import MOVES, move

PLACES = {"n1": 3, "n2": 3, "n3": 3}


def _spec(revision: str, *, local: bool, deletes: bool, strategy: str = "Auto") -> Raw:
    spec = models_spec(revision, local=local, strategy=strategy, historyLimit=0)
    spec["models"]["cache"]["whenUnused"] = "Delete" if deletes else "Keep"
    return spec


@cache
def _settled(local: bool, deletes: bool) -> ModelsWorld:
    world = ModelsWorld(_spec("a", local=local, deletes=deletes), PLACES)
    assert world.settle()
    return world


@given(
    local=st.sampled_from([True, True, False]),
    strategy=st.sampled_from(["Auto", "Surge", "InPlace", "Recreate"]),
    revisions=st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
    deletes=st.booleans(),
    strange=st.booleans(),
    moves=st.lists(st.tuples(st.sampled_from((*MOVES, *("job",) * 4)), st.integers(0, 11)), max_size=80),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_stays_within_the_rules_and_ends_on_the_wanted_models(
    local: bool,
    strategy: str,
    revisions: list[str],
    deletes: bool,
    strange: bool,
    moves: list[tuple[str, int]],
) -> None:
    world = _settled(local, deletes).again()
    world.nodes.strange = strange
    left = [_spec(revision, local=local, deletes=deletes, strategy=strategy) for revision in revisions]
    wanted = left.pop()
    world.edit(wanted)
    for what, which in moves:
        if what == "edit" and left:
            wanted = left.pop()
            world.edit(wanted)
        elif what == "job":
            jobs = world.jobs()
            if jobs:
                world.job_moves(jobs[which % len(jobs)])
        else:
            move(world, what, which)
    world.api.cut_after = None
    world.nodes.speak_again()
    for component in (*names.MODEL_COMPONENTS, names.GATEWAY):
        world.scale(component, wanted[component]["replicas"])
    assert world.settle(), f"no end: {world.condition()}"
    assert world.condition() == ("True", "Ready")
    pods = [pod for component in names.MODEL_COMPONENTS for pod in world.pods(component)]
    assert all(map(is_ready, pods))
    models = wanted_name(wanted)
    assert {folder_of(pod) if local else mounted(pod) for pod in pods} == {models}
    if local and deletes:
        assert all(held <= {models} for held in world.nodes.disks.values()), world.nodes.disks
