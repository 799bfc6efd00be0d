"""Speech and transcription endpoints of OpenAI's protocol, as the one who is measured and as a judge."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from stepaudio_runtime.audio.encoding import Format, encode, wav_header
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.engine.duplicates import plain
from stepaudio_runtime.engine.remote import Retries, post
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.engine.speech_endpoint import SpeechEndpoint
from stepaudio_runtime.errors import ConfigError, OutputError
from stepaudio_runtime.evaluate.subject import Spoken
from stepaudio_runtime.keys import bearer, read_key

_HEADER = len(wav_header(SPEECH_RATE))  # bytes
TIMEOUT_S = 300.0
ATTEMPTS = 3


@dataclass(frozen=True)
class Endpoint:
    """An address up to and without /v1, the model's name there, and the variable that holds the key."""

    url: str
    model: str
    key_variable: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def client(self) -> httpx.Client:
        """A client that sends the key. Raises ConfigError where it is asked for and not there."""
        key = "" if self.key_variable is None else read_key(self.env, self.key_variable)
        if self.key_variable is not None and not key:
            raise ConfigError(what=f"the variable {self.key_variable} is empty", cure="set it to the key")
        return httpx.Client(headers=bearer(key), timeout=TIMEOUT_S)

    def address(self, path: str) -> str:
        """`path` at this endpoint."""
        return f"{self.url.rstrip('/')}{path}"


class SpokenEndpoint:
    """A speech endpoint, timed. The first audio is what comes after a WAV file's header."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float] = time.perf_counter) -> None:
        self._speech = SpeechEndpoint(endpoint.url, endpoint.model, endpoint.client(), Retries(ATTEMPTS))
        self._clock = clock

    def say(self, request: SpeechRequest) -> Spoken:
        """The endpoint's wave; raises as its `SpeechEndpoint` does."""
        began, first = self._clock(), None

        def arrived(size: int) -> None:
            nonlocal first
            if first is None and size > _HEADER:
                first = self._clock() - began

        wave = self._speech.speak(request, arrived)
        return Spoken(wave, self._clock() - began, first)


class TranscriptionEndpoint:
    """`POST {url}/v1/audio/transcriptions`: the chat model as a recogniser, or another one as the judge."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = endpoint.client()
        self._url = endpoint.address("/v1/audio/transcriptions")
        self._model = endpoint.model

    def words(self, wave: Wave) -> str:
        """What was heard, as `plain` writes it. Raises InputError for audio that is refused, OutputError."""
        file = encode(wave.samples, wave.rate, Format.WAV)
        answer = post(
            self._client,
            self._url,
            Retries(ATTEMPTS),
            files={"file": ("speech.wav", file, "audio/wav")},
            data={"model": self._model},
        )
        try:
            return plain(answer.json()["text"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{self._url} answered without a text: {error!r}") from None
