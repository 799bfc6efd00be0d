"""A teacher elsewhere: any OpenAI-compatible speech endpoint, this project's gateway among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.recipe import SpeechTeacher
from stepaudio_runtime.engine.remote import Arrived, Retries, ignore, post
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.errors import AudioError, OutputError

MAX_SECONDS = 300.0


class SpeechEndpoint:
    """`POST {url}/v1/audio/speech`; may be called from several threads at once."""

    def __init__(self, url: str, model: str, client: httpx.Client, retries: Retries) -> None:
        """`url` goes up to and without /v1."""
        self._url = f"{url.rstrip('/')}/v1/audio/speech"
        self._model = model
        self._client = client
        self._retries = retries

    def speak(self, request: SpeechRequest, arrived: Arrived = ignore) -> Wave:
        """The wave of `request`. The seed is sent along: this project's gateway takes it, others pass it by.

        Raises InputError where the endpoint refuses the text or the voice, OutputError where its answer is
        no audio, Unavailable after the last attempt, ConfigError for a wrong address, key or model.
        """
        text = f"({request.style.name}){request.text}" if request.style.name else request.text
        body = {
            "model": self._model,
            "input": text,
            "voice": request.voice,
            "response_format": "wav",
            "seed": request.seed,
        }
        answer = post(self._client, self._url, self._retries, arrived=arrived, json=body)
        try:
            return decode(answer.content, max_seconds=MAX_SECONDS)
        except AudioError as error:
            raise OutputError(f"{self._url} answered with something else than audio: {error}") from None


def open_endpoint(
    teacher: SpeechTeacher, headers: Mapping[str, str], sleep: Callable[[float], None]
) -> SpeechEndpoint:
    """The endpoint of a recipe; `headers` carry the key, `sleep` waits between attempts."""
    client = httpx.Client(
        headers=headers,
        timeout=teacher.timeout_s,
        limits=httpx.Limits(max_connections=teacher.concurrency),
    )
    return SpeechEndpoint(str(teacher.url), teacher.model, client, Retries(teacher.attempts, sleep))
