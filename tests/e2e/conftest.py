"""The nano deployment on a real kubelet, brought up by the code of `make up` once for all tests."""

import os
from collections.abc import Iterator

import pytest

from stepaudio_cluster import api
from stepaudio_cluster.api import Cluster
from stepaudio_cluster.make_up import Up
from stepaudio_cluster.settings import DEFAULT_NAME, Mode, Places, Wish
from tests.e2e.nano import Nano


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nano]:
    """The deployment, Ready; a cluster that was not there before is taken down afterwards."""
    if os.geteuid() != 0 and api.choose(Mode.NODE) is api.Provider.OWN:
        pytest.skip("a cluster of our own needs root; run as root, or set CLUSTER=current")
    was_up = api.existing(DEFAULT_NAME) is not None
    reply = tmp_path_factory.mktemp("reply") / "reply.wav"
    up = Up(DEFAULT_NAME, Places.of(DEFAULT_NAME).base / "image-logs")
    try:
        up.run(reply)
        cluster = Cluster.up(Wish(DEFAULT_NAME))
        yield Nano(cluster, up, reply)
    finally:
        if not was_up and (cluster_ := api.existing(DEFAULT_NAME)):
            cluster_.down()
