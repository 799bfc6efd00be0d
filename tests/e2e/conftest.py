"""The nano deployment on a real kubelet, brought up by the code of `make up` once for all tests."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio_cluster import api
from stepaudio_cluster.api import Cluster
from stepaudio_cluster.make_up import Up
from stepaudio_cluster.settings import DEFAULT_NAME, Mode, Places, Wish
from tests.e2e.nano import Calm, Nano

FIRST = ("test_faults", "test_first_light", "test_page", "test_voice_frameworks", "test_steady_state")
"""What only asks comes together, and then the look at the minute in which it asked."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files of this folder in that order; the others follow."""
    own = [item for item in items if item.path.parent == Path(__file__).parent]
    places = {name: place for place, name in enumerate(FIRST)}
    ordered = iter(sorted(own, key=lambda item: places.get(item.path.stem, len(FIRST))))
    items[:] = [next(ordered) if item in own else item for item in items]


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


@pytest.fixture(scope="session")
def calm(nano: Nano) -> Calm | None:
    """Before the first request of the tests that only ask; None where there is no audit log."""
    if nano.cluster.audit_log is None:
        return None
    nano.wait_ready()
    time.sleep(5)  # the last status of what the tests before did
    return Calm(time.monotonic(), nano.cluster.audit_log.stat().st_size)
