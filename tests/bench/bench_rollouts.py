"""Rollouts that hurt nobody: `python -m tests.bench.bench_rollouts [--parts surge,in-place,...] [--keep]`.

The deployment of `make up` on a real kubelet, two replicas of every pool, and clients that talk with it all
the time (`tests/e2e/load.py`) while it is replaced, rolled back, drained and scaled
(`on_a_kubelet/scenarios.py`), while people change it and what is below it (`controls.py`, `releases.py`,
`changes.py`, `meddling.py`), while its operator is another, lacks its rights or is killed (`operators.py`),
while clients of other kinds talk with it (`speaking.py`), while an autoscaler scales it (`autoscaler.py`),
and while other deployments live beside it (`neighbours.py`, `killed.py`, `nodes.py`, `scaling.py`,
`namespaces.py`, `buckets.py`). Everything shares this machine's cores: the figures are counts of requests,
not speeds. Needs about 18 GiB of memory. Parts that are not run keep their last figures. Prints a line a
part, writes docs/benchmarks/rollouts.json and the section of docs/benchmarks.md; exit status 1 where an
answer was not whole.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepaudio_cluster.api import Cluster
from stepaudio_cluster.images import Builder
from stepaudio_cluster.make_up import DEPLOYMENT, Up, cluster_url
from stepaudio_cluster.settings import DEFAULT_NAME, Places, Wish
from tests.bench.on_a_kubelet import report
from tests.bench.on_a_kubelet.autoscaler import AUTOSCALER
from tests.bench.on_a_kubelet.buckets import BUCKETS
from tests.bench.on_a_kubelet.changes import CHANGES
from tests.bench.on_a_kubelet.controls import CONTROLS, KEY
from tests.bench.on_a_kubelet.killed import KILLED
from tests.bench.on_a_kubelet.meddling import MEDDLING
from tests.bench.on_a_kubelet.namespaces import NAMESPACES
from tests.bench.on_a_kubelet.neighbours import NEIGHBOURS
from tests.bench.on_a_kubelet.nodes import NODES
from tests.bench.on_a_kubelet.operators import OPERATORS
from tests.bench.on_a_kubelet.releases import RELEASES
from tests.bench.on_a_kubelet.scaling import SCALING
from tests.bench.on_a_kubelet.scenarios import (
    MODEL_POOLS,
    ONE_THREAD,
    POOLS,
    REPLICAS,
    SCENARIOS,
    World,
)
from tests.bench.on_a_kubelet.speaking import SPEAKING
from tests.e2e.load import STREAMED, Load, learn
from tests.e2e.nano import Nano

PARTS = {**SCENARIOS, **CONTROLS, **RELEASES, **CHANGES, **MEDDLING, **OPERATORS, **SPEAKING, **AUTOSCALER}
"""What happens to the deployment under load, or to its operator."""
PARTS |= {**NEIGHBOURS, **KILLED, **NODES, **SCALING, **NAMESPACES, **BUCKETS}
"""What happens beside it."""
AFTERWARDS_S = 10.0
"""The load goes on for so long when a scenario is over."""
SHOWN = 20
"""Answers that were not whole are told in words up to this many."""
Raw = dict[str, Any]


def main() -> int:
    """All the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument("--requests", type=int, default=260, help="at least so many in each part")
    parser.add_argument(
        "--keep", action="store_true", help="leave two replicas of every pool for another run"
    )
    chosen = parser.parse_args()
    up = Up(DEFAULT_NAME, Places.of(DEFAULT_NAME).base / "image-logs")
    reply = Path("/tmp/rollouts-reply.wav")
    up.run(reply)
    world = World(Nano(Cluster.up(Wish(DEFAULT_NAME)), up, reply))
    world.patch({c: {"podTemplate": {"env": ONE_THREAD}} for c in MODEL_POOLS})
    world.scale(REPLICAS, *POOLS)
    broken = 0
    try:
        world.until_whole()
        with cluster_url(world.nano.cluster, f"{DEPLOYMENT}-gateway") as url:
            for part in chosen.parts.split(","):
                found = measure(world, url, part, chosen.requests)
                report.ROLLOUTS.write({**report.ROLLOUTS.read(), "machine": report.machine(), part: found})
                broken += found["failed"] + found["truncated"]
    finally:
        if not chosen.keep:
            restore(world)
    return 1 if broken else 0


def measure(world: World, url: str, part: str, at_least: int) -> Raw:
    """One scenario under load, from pools that are whole to pools that are."""
    learnt, memory = learn(url), Lowest(available_gib)
    before, began = world.uids(), time.monotonic()
    world.open_streams.clear()
    with memory, Load(url, learnt, key=KEY) as load:
        world.load, world.url = load, url
        world.until(lambda: load.streams > 0, "a stream is open")
        seen = PARTS[part](world)
        took = time.monotonic() - began
        time.sleep(AFTERWARDS_S)
        world.until(lambda: len(load.outcomes) >= at_least, f"{at_least} requests")
    world.load = None
    kinds = Counter(outcome.kind for outcome in load.outcomes)
    found = {
        "requests": len(load.outcomes),
        "failed": load.count("failed"),
        "truncated": load.count("truncated"),
        "streamed": sum(count for kind, count in kinds.items() if kind in STREAMED),
        "kinds": dict(sorted(kinds.items())),
        "replaced": len(before - world.uids()),
        "open streams while pods left": [
            min(world.open_streams, default=0),
            max(world.open_streams, default=0),
        ],
        "scenario_s": round(took),
        "memory_available_gib": round(memory.value, 1),
        "seen": seen,
        "broken": [
            f"{o.kind}, {o.verdict}, {o.began - began:.0f} s: {o.detail}" for o in load.broken[:SHOWN]
        ],
    }
    print(f"{part}: {found}", flush=True)
    return found


def restore(world: World) -> None:
    """As `make up` makes it, without a field that was set here."""
    up, cluster = world.nano.up, world.nano.cluster
    cluster.kubectl("delete", "sad", DEPLOYMENT, "--cascade=foreground")
    up.apply_nano(cluster, Builder.detect(up.project, up.logs))


class Lowest:
    """The lowest of what `look` gives once a second, in a thread of its own, while the block runs."""

    def __init__(self, look: Callable[[], float]) -> None:
        self._look = look
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lowest")
        self.value = look()

    def __enter__(self) -> "Lowest":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(1):
            self.value = min(self.value, self._look())


def available_gib() -> float:
    """Main memory that is left."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) / 2**20


if __name__ == "__main__":
    sys.exit(main())
