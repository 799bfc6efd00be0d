"""The watermark: `python -m tests.bench.bench_watermark`, about three minutes on one core.

Prints its distance below the speech, and how far it stands out (standard deviations; found from 6 on) by the
length of a piece and its encoder: the table of docs/voices.md. Speech is espeak-ng's: six voices, three
texts, two pieces of each length from every one.
"""

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.audio.watermark import THRESHOLD, Marker, detect
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import SpeechRequest, Style

VOICES = ("en-us+f2", "en-us", "deep", "en-us+f4", "en-us+m3", "de")
TEXTS = (
    "the weather in the north will be cold and clear tomorrow with light wind from the east and some snow in "
    "the hills before noon and more of it at night",
    "please say three nine five and then turn off the kitchen radio and set a timer for seven minutes or the "
    "bread will burn in the oven again",
    "a long time ago there lived an old man who had two horses and a small house near the river where he "
    "went to fish every morning",
)
LENGTHS_S = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
ENCODERS = (Format.PCM, Format.MP3, Format.OPUS, Format.AAC)
BEGIN = 3_000  # samples: pieces begin nowhere in particular

Wave = NDArray[np.float32]


def main() -> None:
    """Measure and print."""
    spoken = [Espeak().speak(request) for request in requests()]
    waves = [(wave.samples, wave.rate) for wave in spoken]
    marked = [(mark(samples, rate), rate) for samples, rate in waves]
    below = [
        10 * np.log10(np.sum(plain**2) / np.sum((other - plain) ** 2))
        for (plain, _), (other, _) in zip(waves, marked, strict=True)
    ]
    print(f"below the speech: {min(below):.1f} to {max(below):.1f} dB")
    for length_s in LENGTHS_S:
        for to in ENCODERS:
            scores = [score(piece, rate, to) for piece, rate in pieces(marked, length_s)]
            found = sum(value >= THRESHOLD for value in scores)
            print(
                f"{length_s} s {to}: found {found} of {len(scores)}, "
                f"lowest {min(scores):.1f}, median {np.median(scores):.1f}",
                flush=True,
            )
        plain = [score(piece, rate, Format.PCM) for piece, rate in pieces(waves, length_s)]
        print(f"{length_s} s without the mark: {len(plain)} pieces, highest {max(plain):.1f}", flush=True)


def requests() -> list[SpeechRequest]:
    """What is spoken."""
    return [
        SpeechRequest(text=text, voice=voice, seed=seed, style=Style("plain"))
        for voice in VOICES
        for seed, text in enumerate(TEXTS)
    ]


def mark(wave: Wave, rate: int) -> Wave:
    """All of a wave, marked."""
    marker = Marker(rate)
    return np.concatenate([marker.push(wave), marker.finish()])


def pieces(waves: list[tuple[Wave, int]], length_s: float) -> list[tuple[Wave, int]]:
    """Two pieces of each wave, as far as it reaches."""
    found = []
    for wave, rate in waves:
        size = round(length_s * rate)
        starts = (BEGIN, BEGIN + size)
        found += [(wave[start : start + size], rate) for start in starts if start + size <= len(wave)]
    return found


def score(wave: Wave, rate: int, to: Format) -> float:
    """How far the mark stands out of what a client hears."""
    if to is Format.PCM:
        return detect(wave, rate).score
    heard = decode(encode(wave, rate, to), max_seconds=60)
    return detect(heard.samples, heard.rate).score


if __name__ == "__main__":
    main()
