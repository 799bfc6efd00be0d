"""The data engine with a real tokenizer pod: the shards hold the codes that the same models give here."""

import pytest

from stepaudio_runtime.engine.run import run
from stepaudio_runtime.engine.shards import read_shards

RECIPE = """
name: tokens
licence: Apache-2.0
texts: [{domain: en, split: train, count: 3}]
voices: [en-us+f2]
teacher: {kind: espeak}
tokenizer: TOKENIZER
output: {audio: none}
"""


def test_a_pod_gives_the_codes_of_the_models_it_serves(new_pod, models, tmp_path):
    pod = new_pod("tokenizer", models).wait_ready()
    found = {}
    for name, source in (("here", f"{{models: '{models}'}}"), ("pod", f"{{url: '{pod.url}'}}")):
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(RECIPE.replace("TOKENIZER", source))
        run(recipe, tmp_path / name, workers=1, say=print)
        found[name] = [(u.codes, u.record["duration_s"]) for u in read_shards(tmp_path / name)]
    assert found["pod"] == found["here"]
    assert len(found["pod"]) == 3
    for codes, seconds in found["pod"]:
        assert len(codes) == pytest.approx(seconds * 125 / 3, abs=5)
