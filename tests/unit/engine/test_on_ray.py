"""On a Ray cluster of two nodes the data engine gives the bytes that it gives here, and goes on with what was
begun here; an error that concerns all samples ends the run with its reason, and so does a cluster that is not
there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from stepaudio_runtime.engine.on_ray import OnRay
from stepaudio_runtime.engine.progress import Progress
from stepaudio_runtime.engine.run import run
from stepaudio_runtime.errors import ConfigError, DataError

RECIPE = """
name: cluster
licence: Apache-2.0
texts: [{domain: en, split: train, count: 30}]
voices: [en-us+f2, nobody]
teacher: {kind: espeak}
output: {samples_per_shard: 16}
"""
pytestmark = pytest.mark.skipif(
    not os.environ.get("STEPAUDIO_TEST_RAY"),
    reason="a Ray cluster of two nodes: set STEPAUDIO_TEST_RAY=1 (a minute; a killed one leaves /tmp/ray)",
)
STORE_BYTES = 100 << 20  # of a node, in shared memory


_AGENTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)


def node() -> dict[str, Any]:
    """Settings of a node with one processor.

    Its agents' ports are given: a node that has to hear of them waits for its agents for 15 s, and they are
    Python programs that take longer to start on a busy machine.
    """
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _AGENTS]
        ports = {name: each.getsockname()[1] for name, each in zip(_AGENTS, free, strict=True)}
    return {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_log_monitor": False, **ports}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes here."""
    os.environ |= {
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # it is read when Ray is imported
    }
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={**node(), "include_dashboard": False})
    try:
        nodes.add_node(**node())
        yield nodes.address
    finally:
        nodes.shutdown()


def results(out: Path) -> dict[str, bytes]:
    files = [*out.glob("shard-*"), out / "manifest.json", out / "journal.jsonl"]
    return {file.name: file.read_bytes() for file in files}


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    with pytest.raises(ConfigError, match="no Ray cluster at auto"):
        run(recipe, tmp_path / "out", workers=1, say=print, elsewhere=OnRay("auto", 1))


def test_two_nodes_give_the_bytes_of_one_and_go_on_with_its_work(address: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    here, there = tmp_path / "here", tmp_path / "there"
    fork = get_context("fork")
    run(recipe, here, workers=1, say=print, processes=fork)

    def stops(progress: Progress) -> None:
        if progress.done:
            raise InterruptedError

    ticks = iter(range(0, 10_000, 6))
    with pytest.raises(InterruptedError):
        # Every look at the clock is six seconds on, so that something is said soon.
        run(recipe, there, workers=1, say=stops, processes=fork, clock=lambda: next(ticks))
    begun = {file.name for file in (there / "work").glob("*.made")}
    assert begun and not (there / "manifest.json").exists()
    run(recipe, there, workers=2, say=print, elsewhere=OnRay(address, 2))
    assert results(there) == results(here)
    assert len(results(here)) == 2 * 4 + 2


def test_an_error_that_concerns_all_samples_ends_the_run(address: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    teacher = "{kind: speech, url: 'http://127.0.0.1:9', model: m, attempts: 1}"
    recipe.write_text(RECIPE.replace("{kind: espeak}", teacher))
    with pytest.raises(DataError, match="cannot be reached") as ended:
        run(recipe, tmp_path / "out", workers=1, say=print, elsewhere=OnRay(address, 1))
    assert (ended.value.reason, ended.value.for_a_person) == ("Unavailable", False)
