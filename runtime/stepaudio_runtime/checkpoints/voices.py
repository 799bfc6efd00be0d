"""Finds the voices stored with a TTS model: a table of names, transcripts and wave files. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.presence import CURE, not_a, require
from stepaudio_runtime.errors import ModelFileError


@dataclass(frozen=True)
class StoredVoice:
    """A voice prompt on disk: the wave file and what is said in it."""

    name: str
    transcript: str
    wav: Path


def read_voices(tts_folder: Path) -> list[StoredVoice]:
    """The voices under `speakers/`, in the table's order; at least one. Raises ModelFileError.

    `speakers.json` is `{name: {"wav": file, "transcript": text}}`; where it is absent, the reference's
    `speakers_info.json`, `{name: text}` with the audio in `{name}_prompt.wav`, is read.
    """
    folder = tts_folder / layout.SPEAKERS
    table = folder / layout.SPEAKERS_TABLE
    if not table.exists() and (folder / layout.SPEAKERS_INFO).exists():
        table = folder / layout.SPEAKERS_INFO
    try:
        entries = json.loads(require(table).read_bytes())
    except ValueError as error:
        raise not_a(table, "JSON file", error) from error
    if not isinstance(entries, dict) or not entries:
        what = "not a JSON object with a voice in it"
        raise ModelFileError("ModelConfigInvalid", file=table, what=what, cure=CURE)
    return [_voice(name, entry, table) for name, entry in entries.items()]


def _voice(name: str, entry: Any, table: Path) -> StoredVoice:
    wav: Any = f"{name}_prompt.wav"
    transcript: Any = entry
    if isinstance(entry, dict):
        wav, transcript = entry.get("wav"), entry.get("transcript")
    if not isinstance(transcript, str) or not transcript or not isinstance(wav, str) or not wav or "/" in wav:
        what = f"voice {name!r} needs a transcript and a file beside this one"
        raise ModelFileError("ModelConfigInvalid", file=table, what=what, cure=f"{CURE}, or correct it")
    return StoredVoice(name, transcript, require(table.parent / wav))
