"""Changes of the release, under load: prepared beside what serves, with an operator that is killed meanwhile,
with an outage that is declared, and to one that fails.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from stepaudio_cluster.make_up import DEPLOYMENT, RELEASE
from stepaudio_runtime.checkpoints.nano import generate_nano
from tests.bench.on_a_kubelet.controls import ask
from tests.bench.on_a_kubelet.ground import shared_claim, until_reason
from tests.bench.on_a_kubelet.scenarios import MODEL_POOLS, Raw, World, note_leaving, until_replaced
from tests.e2e.load import SAID
from tests.e2e.nano import OPERATOR_SELECTOR

MODELS = "bench-models"
SPEECH_MODEL = "Step-Audio-TTS-3B/model.safetensors"
OUTAGE = "this deployment is not serving"  # in what a gateway says then
KILLED_EVERY_S = 40.0
"""A new operator waits for the lease of the one before, 15 s; in the rest it gets on."""


def release(world: World) -> Raw:
    """The models move to a volume, and back into the image: two changes of the release, at two replicas."""
    with _models(world) as models:
        seen = [_release(world)]
        for source in (models.source, None):
            before = world.uids(*MODEL_POOLS)
            world.patch({"models": source})
            until_replaced(world, before, *MODEL_POOLS)
            seen.append(_release(world))
    if seen[0] != seen[2] or seen[0] == seen[1]:
        raise AssertionError(f"releases {seen}")
    return {"releases": seen}


def killed(world: World) -> Raw:
    """The same, and the operator is killed again and again."""
    kills = [time.monotonic()]

    def replaced(before: set[str]) -> bool:
        if time.monotonic() - kills[-1] >= KILLED_EVERY_S:
            _kill_operator(world)
            kills.append(time.monotonic())
        return note_leaving(world) and not before & world.uids() and world.whole()

    with _models(world) as models:
        for source in (models.source, None):
            before = world.uids(*MODEL_POOLS)
            world.patch({"models": source})
            world.until(partial(replaced, before), "every pod is another, and every pool is whole")
    return {"operators killed": len(kills) - 1}


def outage(world: World) -> Raw:
    """Another release with `Recreate`, and back: nobody is served meanwhile, but told when to come again."""
    told: set[str | None] = set()
    with _models(world) as models:
        for source in (models.source, None):
            before = world.uids(*MODEL_POOLS)
            world.patch({"rollout": {"strategy": "Recreate"}, "models": source})
            refused = world.until(lambda: _refused(world), "a request is refused")
            told.add(refused.headers.get("retry-after"))
            until_replaced(world, before, *MODEL_POOLS)
    world.patch({"rollout": {"strategy": None}})
    world.until_whole()
    broken = [outcome.detail for outcome in world.load.broken] if world.load is not None else []
    return {
        "retry after s": sorted(map(str, told)),
        "told to come again": sum(OUTAGE in detail for detail in broken),
        "failed for another reason": sum(OUTAGE not in detail for detail in broken),
    }


def failing(world: World) -> Raw:
    """Another release whose speech model is cut short: nobody is sent to it, and every pool goes back, until
    somebody takes the change back.
    """
    before, good = world.uids(), _release(world)
    with _models(world) as models:
        os.truncate(Path(models.folder, SPEECH_MODEL), 4096)
        world.patch({"models": models.source})
        until_reason(world, "sad", DEPLOYMENT, "ReleaseFailed")  # of chat, the first pool that goes back
        said = {c["type"]: c["message"] for c in world.get("sad", DEPLOYMENT)["status"]["conditions"]}
        world.until(lambda: note_leaving(world) and world.uids() == before, "only those from before are left")
        served = _release(world)
        world.patch({"models": None})
        world.until_whole()
    if world.uids() != before or served != good:
        raise AssertionError(f"release {served} instead of {good}, pods {world.uids()} instead of {before}")
    return {"said": said["Ready"], "pods that served before, and still do": len(before)}


RELEASES: Mapping[str, Callable[[World], Raw]] = {
    "release": release,
    "release-killed": killed,
    "outage": outage,
    "release-fails": failing,
}


@dataclass(frozen=True)
class Models:
    """Models in a `folder` here, and the deployment's `source` that reads them."""

    folder: str
    source: Raw


@contextlib.contextmanager
def _models(world: World) -> Iterator[Models]:
    """The models on a volume: another release than those in the image."""
    with tempfile.TemporaryDirectory(prefix="stepaudio-models-") as folder:
        shared_claim(world, MODELS, folder)
        generate_nano(Path(folder))
        yield Models(folder, {"source": {"pvc": {"claimName": MODELS}}})
        world.nano.cluster.kubectl("delete", "pvc,pv", MODELS)


def _release(world: World) -> str:
    return str(world.get("sad", DEPLOYMENT)["status"]["release"])


def _kill_operator(world: World) -> None:
    selector = f"--selector={OPERATOR_SELECTOR}"
    world.nano.cluster.kubectl("delete", "pod", "-n", RELEASE, selector, "--grace-period=0", "--force")


def _refused(world: World) -> httpx.Response | None:
    talk = {"model": "step-audio-chat", "messages": [{"role": "user", "content": SAID}]}
    answer = ask(world, "POST", "chat/completions", json=talk)
    return answer if answer.status_code == 503 and OUTAGE in answer.text else None
