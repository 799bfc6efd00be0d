"""The operator at scale: `python -m tests.bench.bench_operator [--counts 1,100,1000] [--namespaces 1]`.

Real etcd, API server, controller manager and scheduler; simulated nodes and pods (kwok); the operator as a
process under the chart's rights with the shipped defaults. Everything shares this machine's cores. Prints
one line a step, writes docs/benchmarks/operator.json and the operator's section of docs/benchmarks.md. With
`--ask` it waits for Enter before every part that is timed, for a machine that has to be made quiet first.

A simulated pod is Ready at once, so the figures say what the control plane costs and nothing of serving.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from stepaudio_cluster.api import Cluster, Provider
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import Mode, Wish
from stepaudio_operator import crd
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.bench.operator_scale.fleet import EDITS, FOUR_POOLS, TTS_ONLY, Fleet, at_once, percentile
from tests.bench.operator_scale.pods import Pods
from tests.bench.operator_scale.processes import busy_s, usage
from tests.bench.operator_scale.report import EDITING_S, Edits, Run, write
from tests.bench.operator_scale.script import Pattern
from tests.bench.operator_scale.trouble import Trouble, all_kinds
from tests.integration.operator.identity import operator_identity
from tests.integration.operator.world import Admin, Operator, Refused, eventually, tracebacks, writes_of

CLUSTER = "stepaudio-bench"
STAGES = Path(__file__).parent / "operator_scale" / "stages.yaml"
NODES = 45  # of 110 pods each
RELEASE = "bench-operator"  # namespace of the operator
# The shipped values, where the tests' process would take shorter ones.
SHIPPED = {"LEASE_DURATION_S": "15", "LEASE_RENEW_S": "10", "LEASE_RETRY_S": "2", "LOG_LEVEL": "INFO"}
EDITS_A_SECOND = 10.0
PACE_A_DEPLOYMENT = 1.0
"""Edits a second of one deployment, at most: beyond that the operator spaces them on purpose."""
IDLE_S = 3.0
"""No write for so long counts as idle."""
_NAMESPACES = Resource("", "v1", "namespaces", "Namespace", frozenset())
_CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", frozenset()
)


async def main(
    counts: list[int], kinds: list[str], namespaces: int, steady_s: float, ask: bool, trouble: int
) -> None:
    """All runs, each in so many namespaces of its own; `trouble`: deployments of the fleets for which not all
    goes well.
    """
    with simulated_cluster() as cluster:
        admin = await Admin.from_kubeconfig(cluster.kubeconfig)
        for text in crd.render().values():
            await admin.apply(_CRDS, yaml.safe_load(text))
        await eventually(lambda: _served(admin), "the CRDs are served")
        await admin.call("POST", _NAMESPACES.path(), {"metadata": {"name": RELEASE}})
        runs: list[Run] = []

        def save() -> None:
            write(runs, [], _machine())

        async with Pods(admin):
            for kind in kinds:
                for count in counts:
                    runs.append(Run(kind, count, namespaces))
                    with tempfile.TemporaryDirectory() as folder:
                        await measure(admin, runs[-1], steady_s, ask, Path(folder), save)
            if trouble:
                write(runs, await with_trouble(admin, trouble), _machine())
        await admin.close()


async def with_trouble(admin: Admin, count: int) -> list[Trouble]:
    """The fleets for which not all goes well, `count` deployments each."""

    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = await operator_identity(admin, RELEASE, Path(folder))
        async with operator(kubeconfig, Path(folder)) as process:
            found = await all_kinds(admin, count, process, partial(make_namespace, admin))
            assert not list(tracebacks(process.log))
    for kind in found:
        each = kind.writes / kind.count
        say(f"{kind.what}: {kind.count} settled after {kind.settled_s:.0f} s, {each:.1f} writes each")
    return found


async def measure(
    admin: Admin, run: Run, steady_s: float, ask: bool, folder: Path, save: Callable[[], None]
) -> None:
    """One fleet from nothing to deleted; `save` is called with every figure that `run` has got."""
    name = run.name
    parts = TTS_ONLY if run.kind == "tts-only" else FOUR_POOLS
    fleet = Fleet(admin, await make_namespaces(admin, name, run.namespaces), run.count, parts)
    kubeconfig = await operator_identity(admin, RELEASE, folder)
    async with operator(kubeconfig, folder) as process, fleet.followed():
        async with timed(f"{name} until Ready, edits, restart", ask):
            await until_ready(run, fleet, process)
            save()
            await edits(run, fleet, process)
            save()
            await restart(run, fleet, process)
            save()
        before = sum((await process.writes()).values())
        await asyncio.sleep(steady_s)
        run.steady_s, run.steady_writes = steady_s, sum((await process.writes()).values()) - before
        say(f"{name}: {run.steady_writes:.0f} writes in {steady_s:.0f} steady seconds")
        save()
        last = fleet.names[-1]
        pattern = await Pattern.of(admin, fleet.namespace_of(last), last)
        run.logged_errors = len(list(tracebacks(process.log)))
    began = time.monotonic()
    await fleet.delete(within_s=120 + run.count)
    run.deleted_s = time.monotonic() - began
    if run.kind != "tts-only":
        async with timed(f"{name} by the script", ask):
            places = await make_namespaces(admin, f"{name}-script", run.namespaces)
            run.script_s = await by_script(pattern, Fleet(admin, places, run.count, {}))
        say(f"{name}: the script took {run.script_s:.1f} s")
    save()


async def until_ready(run: Run, fleet: Fleet, process: Operator) -> None:
    """Makes the fleet, and waits until all of it is Ready and the operator idle."""
    began, before = time.monotonic(), cpu_seconds(process)
    await fleet.create()
    run.created_s = time.monotonic() - began
    await fleet.all_ready(within_s=60 + 2.0 * fleet.count)
    run.ready_s = max(fleet.ready.values()) - began
    waits = [fleet.ready[name] - fleet.made[name] for name in fleet.names]
    run.wait_p50_s, run.wait_p99_s = percentile(waits, 0.5), percentile(waits, 0.99)
    await idle(process, fleet.count)
    run.writes = await process.writes()
    run.cpu_s = {name: round(seconds - before[name], 2) for name, seconds in cpu_seconds(process).items()}
    run.others_cores = max(0.0, run.cpu_s["others"] / (time.monotonic() - began))  # clocks differ by a tick
    run.peak_mib = usage(process.process.pid).peak_mib
    say(
        f"{run.name}: all Ready after {run.ready_s:.1f} s,"
        f" {run.all_writes / fleet.count:.1f} writes each,"
        f" {1000 * run.cpu_s['operator'] / run.all_writes:.1f} ms a write, {run.peak_mib:.0f} MiB"
    )


async def edits(run: Run, fleet: Fleet, process: Operator) -> None:
    """Changes deployments at a steady rate: of one pool each, then of all their pools."""
    rate = min(EDITS_A_SECOND, fleet.count * PACE_A_DEPLOYMENT)
    for what, change in EDITS.items():
        before, cpu = sum((await process.writes()).values()), cpu_seconds(process)
        delays = await fleet.edit(rate, EDITING_S, change)
        await idle(process, fleet.count)
        run.edits[what] = Edits(
            rate=rate,
            p50_s=percentile(delays, 0.5),
            p99_s=percentile(delays, 0.99),
            writes=(sum((await process.writes()).values()) - before) / len(delays),
            cpu_s={name: round(seconds - cpu[name], 2) for name, seconds in cpu_seconds(process).items()},
        )
        say(f"{run.name}: edits of {what}: {run.edits[what]}")


def cpu_seconds(process: Operator) -> dict[str, float]:
    """What each program has taken so far, by its name; `others` is what the machine did beside them."""
    programs = OwnCluster.of(CLUSTER).programs().items()
    pids = {name: program.pid for name, program in programs if program is not None}
    pids |= {"operator": process.process.pid, "bench": os.getpid()}
    ours = {name: usage(pid).cpu_s for name, pid in pids.items()}
    return {**ours, "others": busy_s() - sum(ours.values())}


async def restart(run: Run, fleet: Fleet, process: Operator) -> None:
    """Kills the operator and starts it again, with everything in place."""
    process.kill()
    killed = time.monotonic()
    process.start()
    await eventually(process.leads, "the operator leads again", within_s=60)
    led = time.monotonic()
    idle_since = await idle(process, fleet.count)
    run.lease_s, run.restart_idle_s = led - killed, max(idle_since - led, 0.0)
    run.restart_writes = sum((await process.writes()).values())
    say(f"{run.name}: idle {run.restart_idle_s:.1f} s after the lease, {run.restart_writes:.0f} writes")


async def by_script(pattern: Pattern, fleet: Fleet) -> float:
    """Seconds until a script's copies of the same objects are there and their pods Ready."""
    admin, count = fleet.admin, fleet.count
    pods = count * sum(1 for resource, _ in pattern.objects if resource.kind in ("Pod", "Deployment"))
    began = time.monotonic()
    await at_once(16, (pattern.write(admin, fleet.namespace_of(name), name) for name in fleet.names))
    end = time.monotonic() + 60 + count
    ready = 0
    while ready < pods:
        if time.monotonic() > end:
            raise TimeoutError(f"{ready} of {pods} pods of the script are Ready")
        await asyncio.sleep(0.5)
        running = "?fieldSelector=status.phase=Running"
        listed = [await admin.call("GET", resources.PODS.path(n) + running) for n in fleet.namespaces]
        ready = sum(len(found["items"]) for found in listed)
    took = time.monotonic() - began
    await fleet.delete(within_s=60 + count)
    return took


async def idle(process: Operator, deployments: int) -> float:
    """Waits until the operator knows all deployments and for `IDLE_S` had nothing to do and wrote nothing.
    Returns when that began (time.monotonic).
    """
    last, since = -1.0, time.monotonic()
    while time.monotonic() - since < IDLE_S:
        await asyncio.sleep(0.5)
        with contextlib.suppress(httpx.HTTPError):
            seen = await process.metrics()
            known = seen.get('stepaudio_operator_cached_objects{kind="StepAudioDeployment"}', 0)
            busy = seen["stepaudio_operator_queue_depth"] + seen["stepaudio_operator_queue_running"]
            written = sum(writes_of(seen).values())
            if written != last or busy or known < deployments:
                last, since = written, time.monotonic()
    return since


@asynccontextmanager
async def timed(what: str, ask: bool) -> AsyncIterator[None]:
    """A part that is timed; with `ask` it waits until somebody has made the machine quiet."""
    if ask:
        say(f"next: {what}; press Enter when the machine is idle")
        await asyncio.to_thread(sys.stdin.readline)
    yield
    say(f"done: {what}")


@asynccontextmanager
async def operator(kubeconfig: Path, folder: Path) -> AsyncIterator[Operator]:
    """One replica, leading."""
    lease = {"LEASE_NAMESPACE": RELEASE, "LEASE_NAME": f"{RELEASE}-step-audio-operator"}
    process = Operator(kubeconfig, folder, "bench", {**SHIPPED, **lease}, installed=True).start()
    try:
        await eventually(process.leads, "the operator leads", within_s=60)
        yield process
    finally:
        process.kill()


@contextmanager
def simulated_cluster() -> Iterator[Cluster]:
    """A control plane with simulated nodes, gone afterwards."""
    OwnCluster.of(CLUSTER).down(purge=True)
    cluster = Cluster.up(Wish(CLUSTER, Mode.API, kwok=NODES, stages=STAGES), Provider.OWN)
    try:
        yield cluster
    finally:
        cluster.down(purge=True)


async def make_namespaces(admin: Admin, name: str, count: int) -> list[str]:
    """So many, called after `name`."""
    made = [name, *(f"{name}-{number}" for number in range(1, count))]
    for each in made:
        await make_namespace(admin, each)
    return made


async def make_namespace(admin: Admin, name: str) -> None:
    """One more."""
    await admin.call("POST", _NAMESPACES.path(), {"metadata": {"name": name}})


async def _served(admin: Admin) -> bool:
    try:
        for plural in ("stepaudiodeployments", "stepaudiopools"):
            await admin.call("GET", f"/apis/stepaudio.io/v1alpha1/{plural}")
    except Refused:
        return False
    return True


def _machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cores": os.cpu_count(), "processor": model, "memory_gib": round(memory, 1)}


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", default="1,100,1000", help="sizes of the fleets")
    parser.add_argument("--kinds", default="tts-only,four-pools")
    parser.add_argument("--namespaces", type=int, default=1, help="that share each fleet")
    parser.add_argument(
        "--steady", type=float, default=60.0, help="seconds without a change (600 to be sure)"
    )
    parser.add_argument("--ask", action="store_true", help="wait for Enter before every timed part")
    parser.add_argument("--trouble", type=int, default=100, help="deployments that get into trouble; 0: none")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended, it takes its cluster down too
    sizes = [int(count) for count in chosen.counts.split(",") if count]
    kinds = chosen.kinds.split(",")
    asyncio.run(main(sizes, kinds, chosen.namespaces, chosen.steady, chosen.ask, chosen.trouble))
