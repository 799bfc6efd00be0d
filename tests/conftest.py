"""Clusters for the tests that need one. Both are the same code that `make up` uses.

`api_cluster` is a fresh control plane for this run, with no node: etcd, API server, controller manager.
`node_cluster` runs pods; it is the cluster of `make up` where that runs, and stays up, so that a second
run starts at once. Where a machine cannot have one, the tests are skipped and the reason is printed.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from stepaudio_cluster import api
from stepaudio_cluster.api import Cluster, Provider
from stepaudio_cluster.errors import RequirementError
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.processes import Process
from stepaudio_cluster.settings import DEFAULT_NAME, Mode, Places, Wish
from stepaudio_runtime.service.objects import look_seldom

look_seldom()

# A busy machine is no fault of the code's, and the same code passes or fails every time: `make search` looks
# for what other examples find.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("same")

TOGETHER = ("tests/integration/pods/",)
"""Folders whose tests share what takes long to start."""
TEST_API = "stepaudio-test-api-"  # and the id of the process that runs the tests


class ByFileOrFolder(LoadScopeScheduling):
    """Workers take whole files, and the folders of `TOGETHER` as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    def remove_node(self, node: WorkerController) -> str | None:
        """What ended its worker is not tried again: it would end the next one, after as long a wait."""
        begun = self.assigned_work[node].values()
        ended_by = next((test for unit in begun for test, done in unit.items() if not done), None)
        for unit in begun:
            if ended_by in unit:
                unit[ended_by] = True
        super().remove_node(node)
        return ended_by


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFileOrFolder:
    return ByFileOrFolder(config, log)


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[Cluster]:
    """A control plane of this run's own, empty; gone when the run ends."""
    _remove_forgotten()
    name = f"{TEST_API}{os.getpid()}"  # two runs at once must not share one
    try:
        cluster = Cluster.up(Wish(name, Mode.API), Provider.OWN)
    except RequirementError as lacking:
        OwnCluster.of(name).down(purge=True)
        pytest.skip(f"no API server on this machine: {lacking}")
    yield cluster
    cluster.down(purge=True)


@pytest.fixture(scope="session")
def node_cluster() -> Cluster:
    """A cluster that runs pods: the one of `make up`, brought up where it is not."""
    running = api.existing(DEFAULT_NAME) if api.choose(Mode.NODE) is Provider.OWN else None
    if running:
        return running
    try:
        return Cluster.up(Wish(DEFAULT_NAME, Mode.NODE))
    except RequirementError as lacking:
        pytest.skip(f"no cluster that runs pods on this machine: {lacking}")


def _remove_forgotten() -> None:
    """Takes down control planes of runs that were killed before they could."""
    for folder in Places.of(DEFAULT_NAME).base.glob(f"{TEST_API}*"):
        owner = folder.name.removeprefix(TEST_API)
        if owner.isdigit() and Process.of(int(owner)) is None:
            OwnCluster.of(folder.name).down(purge=True)
