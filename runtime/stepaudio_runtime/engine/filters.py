"""What is measured of a sample, and which measure refuses it. Measuring and refusing are pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.recipe import Filters

_FRAME_S = 0.02
_SILENT_DB = 40.0
"""A frame so far below the loudest is silence."""
_CLIPPED = 0.999
"""Of full scale; two neighbours at or above it are a clipped peak, one may be a normalised one."""
_QUIETEST_DB = -120.0


@dataclass(frozen=True)
class Measures:
    """Of one sample. What was not measured is None."""

    duration_s: float
    level_db: float  # root mean square against full scale
    silence_share: float
    clipped_share: float
    word_errors: float | None = None  # rate of the judge
    speaker_distance: float | None = None  # 1 - cosine


def measure(
    wave: Wave, *, word_errors: float | None = None, speaker_distance: float | None = None
) -> Measures:
    """Measures of `wave`, with what the judge and the speaker embedding found."""
    samples = wave.samples.astype(np.float64)
    return Measures(
        duration_s=round(wave.duration_s, 6),
        level_db=round(_decibel(float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0), 3),
        silence_share=round(_silence_share(samples, wave.rate), 6),
        clipped_share=round(_clipped_share(samples), 9),
        word_errors=None if word_errors is None else round(word_errors, 6),
        speaker_distance=None if speaker_distance is None else round(speaker_distance, 6),
    )


def refusal(measures: Measures, filters: Filters) -> tuple[str, str] | None:
    """Why a sample is refused: the filter's name and words for a person; None where it is taken."""
    m = measures
    low, high = filters.duration_s
    if not low <= m.duration_s <= high:
        return "duration", f"it lasts {m.duration_s:.2f} s, not {low:g} to {high:g} s"
    low, high = filters.level_db
    if not low <= m.level_db <= high:
        return "level", f"its level is {m.level_db:.1f} dB, not {low:g} to {high:g} dB"
    if m.silence_share > filters.max_silence_share:
        most = filters.max_silence_share
        return "silence", f"{m.silence_share:.0%} of it is silence, at most {most:.0%} may be"
    if m.clipped_share > filters.max_clipped_share:
        most = filters.max_clipped_share
        return "clipping", f"{m.clipped_share:.2%} of it is clipped, at most {most:.2%} may be"
    if filters.max_word_errors is not None and (m.word_errors or 0) > filters.max_word_errors:
        return "transcription", f"{m.word_errors:.0%} of the words were heard wrongly"
    if filters.speaker is not None and (m.speaker_distance or 0) > filters.speaker.max_distance:
        most = filters.speaker.max_distance
        return "speaker", f"it is {m.speaker_distance:.2f} from its voice, at most {most:g} may be"
    return None


def cosine_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """1 - cosine of two embeddings: 0 the same direction, 1 unrelated, 2 opposite."""
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return 1.0 - float(one @ other) / norm if norm else 1.0


def _silence_share(samples: NDArray[np.float64], rate: int) -> float:
    frame = max(1, int(_FRAME_S * rate))
    if len(samples) < frame:
        return 1.0
    frames = sliding_window_view(samples, frame)[::frame]
    power = np.sqrt(np.mean(frames**2, axis=1))
    loudest = float(power.max())
    if _decibel(loudest) <= _QUIETEST_DB:
        return 1.0
    return float(np.mean(power < loudest * 10 ** (-_SILENT_DB / 20)))


def _clipped_share(samples: NDArray[np.float64]) -> float:
    high = np.abs(samples) >= _CLIPPED
    if len(high) < 2:
        return 0.0
    beside = np.zeros_like(high)
    beside[1:] |= high[:-1]
    beside[:-1] |= high[1:]
    return float(np.mean(high & beside))


def _decibel(amplitude: float) -> float:
    return max(_QUIETEST_DB, float(20 * np.log10(amplitude))) if amplitude > 0 else _QUIETEST_DB
