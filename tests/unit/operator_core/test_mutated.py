"""Every deployment that the parser accepts also reconciles: from nothing to a status that settles.

The deployments are those that `tests/contract/generated_specs.py` makes from documents with every field set.
All accepted ones without a pool of hundreds are rendered and planned; a part of them, or with
STEPAUDIO_TEST_EVERY_SPEC=1 every one (two minutes), goes through the real reconcilers in a world where nodes
have room and pods start, until nobody has anything to do any more.
"""

import os
import random
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.foresight import preview
from stepaudio_operator.gpus import vram
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_deployment
from tests.contract.generated_specs import deployment_specs
from tests.unit.rollouts.world import World

Raw = dict[str, Any]
THROUGH = 60
"""Deployments that go through the reconcilers."""
EVERY = os.environ.get("STEPAUDIO_TEST_EVERY_SPEC") == "1"
MOST_REPLICAS = 3
"""A pool of them, at most: more would only take longer."""


def deployment(spec: Raw) -> Raw:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "prod"},
        "spec": spec,
    }


def accepts(spec: Raw) -> bool:
    try:
        parse_deployment(deployment(spec))
    except SpecError:
        return False
    return True


def few(spec: Raw) -> bool:
    """Whether no pool has many replicas."""
    parts = [spec.get(component) or {} for component in names.COMPONENTS]
    least = [(part.get("autoscaling") or {}).get("min", 0) for part in parts]
    return max(least + [part.get("replicas") or 0 for part in parts]) <= MOST_REPLICAS


def test_everything_that_is_accepted_can_be_rendered_and_planned() -> None:
    generated = deployment_specs()
    accepted = [spec for spec in generated if accepts(spec)]
    assert len(generated) >= 2000
    assert len(accepted) >= 300
    for spec in filter(few, accepted):
        planned = preview.objects(deployment(spec), ImageDefaults("1.0.0"))
        assert {entry.body["kind"] for entry in planned} >= {"StepAudioPool", "ControllerRevision"}


def test_what_is_accepted_reconciles_until_it_settles() -> None:
    accepted = [spec for spec in deployment_specs() if accepts(spec) and few(spec)]
    for spec in accepted if EVERY else random.Random(5).sample(accepted, THROUGH):
        world = World(spec, room={})
        assert world.settle(), spec
        ready, reason = world.condition()
        stopped = spec.get("paused") or vram.refused(parse_deployment(deployment(spec))) is not None
        assert (ready == "True") != bool(stopped), (spec, ready, reason)
