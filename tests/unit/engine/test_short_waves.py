"""A wave that is too short for a measure refuses its sample, and the run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.nano import generate_random_nano
from stepaudio_runtime.engine.make import Workshop, reference_file
from stepaudio_runtime.engine.plan import Sample
from stepaudio_runtime.engine.recipe import Recipe
from stepaudio_runtime.pods.sound_file import write_mono

SAMPLE = Sample(0, "hi", "en", "", "v", "", 1)


@pytest.fixture
def campplus(tmp_path: Path) -> Path:
    generate_random_nano(tmp_path / "nano")
    return tmp_path / "nano" / layout.TTS / layout.COSYVOICE / layout.CAMPPLUS


def test_a_wave_below_a_frame_is_refused_by_the_speaker_filter(campplus: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "licence": "x",
            "texts": [{"domain": "en", "count": 1}],
            "voices": ["v"],
            "teacher": {"kind": "espeak"},
            "filters": {"duration_s": (0.001, 9), "speaker": {"campplus": campplus, "max_distance": 2}},
        }
    )
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) / 10
    write_mono(reference_file(tmp_path, 0), (noise * 32_767).astype(np.int16), 16_000)
    workshop = Workshop(recipe, tmp_path)
    short, whole = (workshop.make(SAMPLE, Wave(noise[:length], 16_000)) for length in (300, 16_000))
    assert short.record["refused"] == ["speaker", "it is too short for a speaker embedding"]
    assert whole.record["refused"] is None
