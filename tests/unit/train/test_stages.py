"""Every stage of the training in about a minute: on a corpus that the data engine has just made, each loss
falls below what is stated here, and the weights left behind make a model folder that verifies."""

from __future__ import annotations

import io
import json
import shutil
from multiprocessing import get_context

import pytest
import torch

from stepaudio_runtime.checkpoints.nano import generate_nano
from stepaudio_runtime.cli import STAGES
from stepaudio_runtime.engine.run import run as make_data
from stepaudio_runtime.engine.unpack import unpack
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.pods.loading import verify_all
from stepaudio_runtime.train import stages
from stepaudio_runtime.train.corpus import MANIFEST, read_corpus
from stepaudio_runtime.train.stages import Job

# The seed is that of the chat model's questions.
RECIPE = """
name: tiny
seed: 2
licence: Apache-2.0
texts: [{domain: en, split: train, count: 12}]
voices: [en-us+f2, en-us+f5]
teacher: {kind: espeak}
"""
STEPS = {"linguistic": 20, "semantic": 12, "speaker": 40, "vocoder": 8, "flow": 12, "tts": 12, "chat": 8}
BELOW = {
    "linguistic": 2.5,  # begins at 4.1
    "semantic": 2.5,  # 2.8
    "speaker": 0.4,  # 0.7
    "vocoder": 6.0,  # 8.6
    "flow": 8.0,  # 9.1
    "tts": 3.5,  # 6.6
    "chat": 6.0,  # 8.3
}
"""Mean loss of the last quarter of the steps."""


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("train")
    (folder / "recipe.yaml").write_text(RECIPE)
    fork = get_context("fork")
    make_data(folder / "recipe.yaml", folder / "data", workers=1, say=print, processes=fork)
    unpack(folder / "data", folder / "corpus")
    torch.set_num_threads(1)
    return Job((folder / "corpus",), folder / "weights", folder / "work")


def test_a_stage_says_which_one_comes_before_it(job):
    with pytest.raises(InputError, match="run the stage linguistic first"):
        stages.run("flow", Job(job.corpora, job.corpora[0], job.work))


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls(stage, job):
    log = io.StringIO()
    stages.run(stage, Job(job.corpora, job.weights, job.work, STEPS.get(stage), log=log))
    means = [json.loads(line)["total"] for line in log.getvalue().splitlines()]
    if stage in BELOW:
        assert means[-1] < BELOW[stage] < means[0]
    else:
        assert not means, "voices are taken, not trained"


def test_the_weights_make_a_model_folder(job, tmp_path):
    generate_nano(tmp_path, job.weights)
    assert len(list(verify_all(tmp_path))) == 3


def test_codes_are_a_corpus_own_though_its_files_are_named_alike(job, tmp_path):
    first = read_corpus(job.corpora[0])
    lines = [json.loads(line) for line in (job.corpora[0] / MANIFEST).read_text().splitlines()]
    turned = [{**line, "audio": other["audio"]} for line, other in zip(lines, reversed(lines), strict=True)]
    for line, other in zip(lines, reversed(lines), strict=True):
        shutil.copy(job.corpora[0] / line["audio"], tmp_path / other["audio"])
    ordered = sorted(turned, key=lambda line: line["audio"])
    (tmp_path / MANIFEST).write_text("\n".join(map(json.dumps, ordered)))
    second = read_corpus(tmp_path)
    assert [each.audio.name for each in second] == [each.audio.name for each in first]
    coded = [each.codes for each in stages.corpus_codes(job, [*first, *second])]
    assert coded[len(first) :] == coded[: len(first)][::-1]
