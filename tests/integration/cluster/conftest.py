"""A cluster of these tests' own, beside the one of `make up`: they stop it and break it."""

from collections.abc import Iterator

import pytest

from stepaudio_cluster import archive, binaries
from stepaudio_cluster.api import Cluster, Provider
from stepaudio_cluster.errors import RequirementError
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import Mode, Wish
from tests.integration.cluster.machine import Machine

NAME = "stepaudio-test-node"
WISH = Wish(NAME, Mode.NODE, fake_gpus=8)


@pytest.fixture(scope="module")
def before() -> Machine:
    """The machine without the tests' cluster."""
    OwnCluster.of(NAME).down(purge=True)
    return Machine.now(NAME)


@pytest.fixture(scope="module")
def cluster(before: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The tests' cluster with the probe's image; empty of other people's pods."""
    try:
        cluster = Cluster.up(WISH, Provider.OWN)
    except RequirementError as lacking:
        OwnCluster.of(NAME).down(purge=True)
        pytest.skip(f"no cluster that runs pods on this machine: {lacking}")
    programs = binaries.ensure()
    image = tmp_path_factory.mktemp("images") / "probe.tar"
    with image.open("wb") as target:
        archive.write(programs.folder / "probe", probe_image(), target)
    cluster.load(image)
    yield cluster
    cluster.down(purge=True)


def probe_image() -> str:
    """Name of the image of the tests' program."""
    return archive.reference("probe", binaries.ensure().version)
