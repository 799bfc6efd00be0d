"""A pod's speech on its way to the client: tempo, gain, rate and format, whole or as it is made.

The pod's 16-bit PCM goes through stages at the model's own rate and is encoded last, so every format gets the
same wave. All of it is blocking and cheap (a second of speech takes a few milliseconds); `Media` runs it in
its threads.
"""

from __future__ import annotations

import io
import tempfile
import threading
from dataclasses import dataclass
from functools import partial

import numpy as np
import soundfile
from numpy.typing import NDArray

from stepaudio_runtime.audio.encoding import Format, StreamEncoder, encode, to_pcm16
from stepaudio_runtime.audio.loudness import amplify
from stepaudio_runtime.audio.streams import EMPTY, Chain, Stage, StreamResampler
from stepaudio_runtime.audio.tempo import Tempo
from stepaudio_runtime.audio.watermark import Marker

PCM_RATE = 24_000
"""Hz of `pcm` and `pcm16`: OpenAI's clients take it for granted."""

BYTES_PER_SAMPLE = 2
FULL_SCALE = 32_768.0
_IN_MEMORY = 1 << 20  # bytes of a file, about half a minute


@dataclass(frozen=True)
class Manner:
    """What is done to a model's speech: `speed` 0.25 to 4 with the pitch kept, `volume` a factor."""

    speed: float = 1.0
    volume: float = 1.0


class Gain:
    """The stage of `volume`."""

    def __init__(self, volume: float) -> None:
        self._volume = volume

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """The wave, louder or softer."""
        return amplify(wave, self._volume)

    def finish(self) -> NDArray[np.float32]:
        """Nothing is held."""
        return EMPTY


class SpeechLine:
    """One stream of speech: the pod's PCM at `rate` Hz in, in pieces of whole samples; bytes of `to` out."""

    def __init__(self, rate: int, to: Format, manner: Manner, *, marked: bool) -> None:
        self._rate = rate
        self._taken = 0
        self._new_stages = partial(_stages, rate, to, manner, marked=marked)
        self._stages = self._new_stages()
        self._encoder = StreamEncoder(_rate_of(to, rate), to)

    @property
    def seconds(self) -> float:
        """Speech that the pod has made, before its tempo was changed."""
        return self._taken / BYTES_PER_SAMPLE / self._rate

    def push(self, pcm: bytes) -> bytes:
        """What `pcm` completes."""
        self._taken += len(pcm)
        return self._encoder.push(self._stages.push(samples(pcm)))

    def restart(self) -> None:
        """Drop what the stages hold of speech that is not to be heard to its end; the file stays one."""
        self._stages = self._new_stages()

    def finish(self) -> bytes:
        """The rest of the file."""
        return self._encoder.push(self._stages.finish()) + self._encoder.finish()


class FlacFile:
    """All of the speech as one FLAC file whose header knows its length; a long one is on disk, until `close`.

    It may be closed while another thread is at it, as happens where a client goes.
    """

    def __init__(self, rate: int, manner: Manner, *, marked: bool) -> None:
        self._rate = rate
        self._taken = 0
        self._turn = threading.Lock()
        self._stages = _stages(rate, Format.FLAC, manner, marked=marked)
        self._bytes = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - `close` closes it
        self._writer = soundfile.SoundFile(
            self._bytes, "w", samplerate=rate, channels=1, format="FLAC", subtype="PCM_16"
        )

    @property
    def seconds(self) -> float:
        """Speech that the pod has made, before its tempo was changed."""
        return self._taken / BYTES_PER_SAMPLE / self._rate

    def push(self, pcm: bytes) -> None:
        """More of the pod's PCM, in whole samples."""
        with self._turn:
            self._taken += len(pcm)
            self._writer.write(to_pcm16(self._stages.push(samples(pcm))))

    def finish(self) -> int:
        """Write the end; from here on it is read. How many bytes there are."""
        with self._turn:
            self._writer.write(to_pcm16(self._stages.finish()))
            self._writer.close()
            size = self._bytes.seek(0, io.SEEK_END)
            self._bytes.seek(0)
            return size

    def read(self, size: int) -> bytes:
        """At most `size` bytes more, none at the end."""
        with self._turn:
            return self._bytes.read(size)

    def close(self) -> None:
        """Keep nothing."""
        with self._turn:
            self._writer.close()
            self._bytes.close()


def sound_file(pcm: bytes, rate: int, to: Format, manner: Manner, *, marked: bool) -> bytes:
    """All of the speech as one file, whose header knows its length; raw PCM is brought to 24 kHz."""
    chain = _stages(rate, to, manner, marked=marked)
    wave = np.concatenate([chain.push(samples(pcm)), chain.finish()])
    return encode(wave, _rate_of(to, rate), to)


def samples(pcm: bytes) -> NDArray[np.float32]:
    """Little-endian 16-bit samples as float32 (N,) in [-1, 1)."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(FULL_SCALE)


def _stages(rate: int, to: Format, manner: Manner, *, marked: bool) -> Chain:
    stages: list[Stage] = []
    if manner.speed != 1:
        stages.append(Tempo(manner.speed, rate))
    if manner.volume != 1:
        stages.append(Gain(manner.volume))
    if marked:
        stages.append(Marker(rate))  # behind the tempo, which would smear it
    stages.append(StreamResampler(rate, _rate_of(to, rate)))
    return Chain(stages)


def _rate_of(to: Format, rate: int) -> int:
    """Hz of the wave that is encoded, of a model's speech at `rate` Hz."""
    return PCM_RATE if to is Format.PCM else rate
