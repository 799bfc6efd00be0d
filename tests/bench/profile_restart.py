"""Where an operator that starts spends its time, without a cluster: `python -m tests.bench.profile_restart`.

One deployment of four pools is settled in the tests' world in memory, copied to `--count` namespaces, and met
by an operator that has just started; gateways answer at once. Printed are, by kind, how often an object is
reconciled, how long one reconcile takes (the mean, and the time that a tenth are below: beside other work on
the machine the mean is worth little), and what taking the objects in costs. `--profile` prints the functions
that take the most. HTTP, decoding and kopf are not here: `bench_operator` measures a whole restart.
"""

import argparse
import cProfile
import json
import pstats
import time
from collections import defaultdict
from contextlib import nullcontext
from statistics import fmean, quantiles

from stepaudio_operator import names
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.polling import Answer
from tests.unit.rollouts.world import NAMESPACE, World

PARTS = ("chat", "tts", "tokenizer", "gateway")
TOLERATIONS = [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}]


def fleet(count: int) -> World:
    """`count` deployments that are Ready, each in a namespace of its own."""
    template = {"podTemplate": {"tolerations": TOLERATIONS}}
    spec = {"preset": "nano", "rollout": {"maxUnavailable": 2}, **dict.fromkeys(PARTS, template)}
    world = World(spec, room={})
    assert world.settle()
    assert world.condition()[0] == "True"
    texts = {place: json.dumps(raw) for place, raw in world.api.objects.items()}
    world.api.objects = {
        (kind, f"n{number:04d}", name): json.loads(
            text.replace(f'"namespace": "{NAMESPACE}"', f'"namespace": "n{number:04d}"')
            .replace(f".{NAMESPACE}.svc", f".n{number:04d}.svc")
            .replace('"uid-', f'"n{number:04d}-uid-')
        )
        for number in range(count)
        for (kind, _, name), text in texts.items()
    }
    world.api.events.clear()
    world.api.calls.clear()
    return world


def reconcile_all(world: World) -> dict[Key, list[float]]:
    """Every reconcile until nothing is due: its CPU seconds, by key."""
    took: dict[Key, list[float]] = defaultdict(list)
    operator = world.operator
    while operator.due:
        while operator.due:
            for key in sorted(operator.due):
                began = time.process_time()
                world.run(key)
                took[key].append(time.process_time() - began)
        for key, targets in operator.asked.targets.items():
            for uid, target in targets.items():
                if target.port == names.GATEWAY_PORT and uid not in operator.asked.answers:
                    operator.asked.answers[uid] = Answer("Ready", 0, target.generation)
                    operator.due.add(key)
    return took


def main(count: int, profile: bool) -> None:
    """One start of the operator on `count` deployments."""
    world = fleet(count)
    profiler = cProfile.Profile() if profile else None
    with profiler or nullcontext():
        began = time.process_time()
        world.restart_operator()
        listed = time.process_time() - began
        took = reconcile_all(world)
    if profiler is not None:
        for order in ("tottime", "cumtime"):
            pstats.Stats(profiler).sort_stats(order).print_stats(45)
    print(f"taking in: {1000 * listed / count:.2f} ms a deployment; writes: {len(world.api.calls)}")
    for kind in (names.DEPLOYMENT_KIND, names.POOL_KIND):
        runs = [times for key, times in took.items() if key.kind == kind]
        each = [seconds for times in runs for seconds in times]
        print(
            f"{kind}: {len(each) / len(runs):.2f} reconciles an object, {1000 * fmean(each):.2f} ms each,"
            f" a tenth below {1000 * quantiles(each, n=10)[0]:.2f} ms"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="deployments")
    parser.add_argument("--profile", action="store_true", help="which functions take the most")
    chosen = parser.parse_args()
    main(chosen.count, chosen.profile)
