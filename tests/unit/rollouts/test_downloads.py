"""How far a download is, and why it stands still, stays in the status while nobody says anything else: a pod
that does not answer for a while makes no write, nor does an operator that begins.
"""

import dataclasses

import pytest

from stepaudio_operator.polling import Answer
from tests.unit.rollouts.models_world import ModelsWorld, models_spec


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("silence", ["no answer", "another operator"])
def test_silence_about_a_download_is_no_news(local: bool, silence: str) -> None:
    world = ModelsWorld(models_spec(local=local), {"n1": 3, "n2": 3})
    assert world.settle()
    world.stops = lambda job: True
    world.edit(models_spec("b", local=local))
    world.said["prod"] = Answer("Loading", 0, bytes_loaded=4_100, bytes_total=10_000, eta_s=600)
    says = [world.said["prod"]]
    if not local:
        words = {"reason": "SourceUnavailable", "message": "the hub sends nothing; it is tried again"}
        says.append(dataclasses.replace(says[0], **words))
    for answer in says:
        world.said["prod"] = answer
        assert world.settle()
        shown, calls = world.status(), list(world.api.calls)
        assert shown["cache"]["phase"] == "Downloading"
        world.said["prod"] = Answer()
        if silence == "another operator":
            world.restart_operator()
        assert world.settle()
        assert (world.status(), world.api.calls) == (shown, calls)
    if not local:
        assert world.condition() == ("False", "SourceUnavailable")
        world.said["prod"] = dataclasses.replace(says[0], reason="Downloading")
        assert world.settle()
        assert world.condition() == ("False", "DownloadingModels")
