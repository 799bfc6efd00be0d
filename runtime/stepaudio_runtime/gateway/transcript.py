"""A transcript in OpenAI's formats. Pure.

The model writes words and no times, so where a format has times there is one segment, from the beginning of
the recording to its end.
"""

import html
import math
from typing import Any

from stepaudio_runtime.gateway.engine import Usage

UNDETERMINED = "und"
"""The language where none was asked for: BCP 47's word for it."""


def plain(text: str) -> str:
    """`response_format` "text"."""
    return text + "\n"


def srt(text: str, duration_s: float) -> str:
    """`response_format` "srt"."""
    return f"1\n{_cue(text, duration_s, point=',')}" if text else ""


def vtt(text: str, duration_s: float) -> str:
    """`response_format` "vtt"."""
    return "WEBVTT\n\n" + (_cue(html.escape(text, quote=False), duration_s, point=".") if text else "")


def verbose(text: str, duration_s: float, language: str | None) -> dict[str, Any]:
    """`response_format` "verbose_json"."""
    return {
        "task": "transcribe",
        "language": language or UNDETERMINED,
        "duration": duration_s,
        "text": text,
        "segments": [{"id": 0, "start": 0.0, "end": duration_s, "text": text}] if text else [],
        "usage": {"type": "duration", "seconds": math.ceil(duration_s)},
    }


def tokens_used(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage` of a transcription by a language model."""
    return {
        "type": "tokens",
        "input_tokens": usage.prompt,
        "input_token_details": {
            "audio_tokens": usage.prompt_audio,
            "text_tokens": usage.prompt - usage.prompt_audio,
        },
        "output_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }


def _cue(text: str, duration_s: float, *, point: str) -> str:
    line = " ".join(text.split())  # an empty line would end the cue
    return f"{_clock(0, point)} --> {_clock(duration_s, point)}\n{line}\n\n"


def _clock(seconds: float, point: str) -> str:
    """`seconds` as hours, minutes, seconds and, behind `point`, thousandths."""
    rest, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(rest, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{point}{thousandths:03}"
