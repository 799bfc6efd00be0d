"""The tokenizers elsewhere: a tokenizer pod, or a gateway that passes on to one."""

from __future__ import annotations

import httpx

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.codec.layout import checked_codes
from stepaudio_runtime.contract import Route
from stepaudio_runtime.engine.recipe import TokenizerSource
from stepaudio_runtime.engine.remote import Retries, post
from stepaudio_runtime.engine.speech import Tokenise
from stepaudio_runtime.errors import InputError, OutputError


def open_endpoint(source: TokenizerSource) -> Tokenise:
    """The tokenizer at a recipe's address. One client, used by one process."""
    url = f"{str(source.url).rstrip('/')}{Route.AUDIO_TOKENS}"
    return remote_tokenizer(url, httpx.Client(timeout=source.timeout_s), Retries(source.attempts))


def remote_tokenizer(url: str, client: httpx.Client, retries: Retries) -> Tokenise:
    """`POST url` as a function; raises InputError where the wave is refused, OutputError without codes."""

    def tokenise(wave: Wave) -> list[int]:
        params = {"rate": wave.rate, "trim": 0}
        headers = {"Content-Type": "application/octet-stream"}
        body = wave.samples.astype("<f4").tobytes()
        answer = post(client, url, retries, params=params, headers=headers, content=body)
        try:
            return checked_codes(answer.json()["codes"])
        except (ValueError, KeyError, TypeError, InputError) as error:
            raise OutputError(f"{url} answered without audio codes: {error!r}") from None

    return tokenise
