"""Prometheus series of speech: how soon, how fast, how smooth, how much waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stepaudio_runtime.health.lately import Lately
from stepaudio_runtime.tts.utterance import Utterance

FIRST_AUDIO_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0, 4.0, 8.0, 16.0)
FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
STREAMS = (1, 2, 4, 8, 16, 32)


class Queue(Protocol):
    """What is read at scrape time."""

    @property
    def speaking(self) -> int:
        """Open utterances."""

    @property
    def waiting(self) -> int:
        """Utterances with a hop that could be made now."""


class SpeechMetrics(Collector):
    """Registers itself with `registry`; `lately` is told of first sounds too."""

    def __init__(self, registry: CollectorRegistry, lately: Lately | None = None) -> None:
        self._queue: Queue | None = None
        self._lately = lately
        self._first_audio = Histogram(
            "stepaudio_speech_first_audio_seconds",
            "Seconds from an utterance's begin to its first samples.",
            buckets=FIRST_AUDIO_S,
            registry=registry,
        )
        self._factor = Histogram(
            "stepaudio_speech_real_time_factor",
            "Seconds of decoder steps that an utterance took part in, a second of its audio.",
            buckets=FACTORS,
            registry=registry,
        )
        self._underrun = Counter(
            "stepaudio_speech_underrun_seconds",
            "Seconds that listeners who play from the first samples on would have waited for more.",
            registry=registry,
        )
        self._audio = Counter("stepaudio_speech_audio_seconds", "Seconds of audio made.", registry=registry)
        self._streams = Histogram(
            "stepaudio_speech_step_streams",
            "Streams that shared a decoder step.",
            buckets=STREAMS,
            registry=registry,
        )
        self.loops = Counter(
            "stepaudio_speech_loops",
            "Times that the speech model repeated itself, by what became of it.",
            ["outcome"],
            registry=registry,
        )
        registry.register(self)

    def watch(self, queue: Queue) -> None:
        """Show this queue from now on."""
        self._queue = queue

    def began(self, seconds: float) -> None:
        """The first samples of an utterance came so long after its begin."""
        self._first_audio.observe(seconds)
        if self._lately is not None:
            self._lately.first_audio(seconds)

    def stepped(self, streams: int) -> None:
        """A step was made for so many streams."""
        self._streams.observe(streams)

    def closed(self, utterance: Utterance) -> None:
        """An utterance has ended, or its reader has gone."""
        made_s = utterance.playback.given_s
        if made_s:
            self._factor.observe(utterance.working_s / made_s)
            self._audio.inc(made_s)
            self._underrun.inc(utterance.playback.underrun_s)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        speaking, waiting = (self._queue.speaking, self._queue.waiting) if self._queue else (0, 0)
        yield GaugeMetricFamily("stepaudio_speech_open", "Utterances being spoken.", value=speaking)
        yield GaugeMetricFamily(
            "stepaudio_speech_queue_length", "Utterances with a hop that waits to be made.", value=waiting
        )
