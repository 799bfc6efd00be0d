"""The body of `POST /v1/speech`, checked: what may be asked of the TTS pod, and the 400 for all else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_runtime.contract import AUDIO_CODES
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.settings import TtsSettings
from stepaudio_runtime.tts.text import clean

MAX_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class Speech:
    """What to say: `text`, cleaned (`text.py`), or `codes` 0..5119; the other one is empty.

    Voice, decoder and prompt all read the tags in front of this one text.
    """

    text: str
    codes: tuple[int, ...]
    voice: str | None
    seed: int | None


def parse_speech(body: Mapping[str, Any], settings: TtsSettings) -> Speech:
    """Raises InputError with the field at fault."""
    has_text, has_codes = body.get("input") is not None, body.get("codes") is not None
    if has_text == has_codes:
        raise InputError("give exactly one of input and codes", param="input", code="input_or_codes")
    return Speech(
        text=_text(body["input"], settings.max_input_chars) if has_text else "",
        codes=_codes(body["codes"], settings.max_codes) if has_codes else (),
        voice=_voice(body.get("voice")),
        seed=_seed(body.get("seed")),
    )


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise InputError("input is not a string", param="input", code="invalid_type")
    if not value.strip():
        raise InputError("input is empty", param="input", code="empty_input")
    if len(value) > limit:
        raise InputError(
            f"input has {len(value)} characters, at most {limit} are taken",
            param="input",
            code="input_too_long",
        )
    return clean(value)


def _codes(value: object, limit: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(code) is int for code in value):
        raise InputError("codes is not a list of integers", param="codes", code="invalid_type")
    if not value:
        raise InputError("codes is empty", param="codes", code="empty_codes")
    if len(value) > limit:
        raise InputError(
            f"there are {len(value)} codes, at most {limit} are taken", param="codes", code="codes_too_long"
        )
    wrong = next((code for code in value if not 0 <= code < AUDIO_CODES), None)
    if wrong is not None:
        raise InputError(
            f"code {wrong} is outside 0..{AUDIO_CODES - 1}", param="codes", code="codes_out_of_range"
        )
    return tuple(value)


def _voice(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError("voice is not a string", param="voice", code="invalid_type")
    return value


def _seed(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise InputError(f"seed is not an integer in 0..{MAX_SEED}", param="seed", code="invalid_seed")
    return value
