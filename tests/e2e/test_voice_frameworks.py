"""LiveKit and Pipecat talk, listen and speak through the gateway of a real cluster with their own clients."""

from typing import Any

import pytest

from stepaudio_cluster.make_up import DEPLOYMENT, cluster_url
from tests.contract.openai_client.frameworks.run import run
from tests.e2e.load import QUESTION, SAID
from tests.e2e.nano import Nano

pytestmark = pytest.mark.node

MODEL = "step-audio-tts"


@pytest.mark.parametrize("client", ["livekit_client.py", "pipecat_client.py"])
def test_a_framework_talks_with_the_cluster(nano: Nano, client: str) -> None:
    nano.wait_ready()
    with cluster_url(nano.cluster, f"{DEPLOYMENT}-gateway") as url:
        got: dict[str, Any] = run(client, url, QUESTION, MODEL)
    assert got["chat"]
    assert 0.3 < got["speech"][MODEL].pop("seconds") < 20
    assert got == {"chat": got["chat"], "speech": {MODEL: {"rate": 24000}}, "transcript": SAID}
