"""Recordings with their words: from the folders of well-known sets, or said by a teacher.

    LibriSpeech   .../SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, a line "ID WORDS"; ID.flac beside it
    Aishell-1     .../transcript/*.txt, a line "ID 字 字"; ID.wav in .../wav/SPLIT/SPEAKER/
    SEED-TTS      .../en/meta.lst, a line "ID|words of the prompt|its wave|text to say[|how a person said it]"

Every line is read before the first recording is: a set that is cut short is found at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.speech import SpeechRequest, Teacher
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.pods.sound_file import read_mono

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Recording:
    """Words (`text`, as the set writes them) and the file in which they are said."""

    key: str
    text: str
    language: str
    file: Path

    def wave(self) -> Wave:
        """The samples; raises AudioError."""
        return Wave(*read_mono(self.file))


@dataclass(frozen=True)
class Prompted:
    """A text to say as the speaker of `prompt` would."""

    key: str
    text: str
    language: str
    prompt: Recording


def librispeech(folder: Path) -> list[Recording]:
    """All of a LibriSpeech folder (any of its subsets, or several). Raises InputError."""
    found = []
    for transcript in sorted(folder.rglob("*.trans.txt")):
        for key, text in _lines(transcript):
            found.append(Recording(key, text, "en", _there(transcript.with_name(f"{key}.flac"))))
    return _some(found, folder, "*.trans.txt files of LibriSpeech")


def aishell(folder: Path, split: str = "test") -> list[Recording]:
    """One split of an Aishell-1 folder (`data_aishell`). Raises InputError."""
    texts = {
        key: text for file in sorted((folder / "transcript").glob("*.txt")) for key, text in _lines(file)
    }
    waves = sorted((folder / "wav" / split).rglob("*.wav"))
    # A few waves of the published set have no transcript; its own recipes leave them out too.
    found = [Recording(wave.stem, texts[wave.stem], "zh", wave) for wave in waves if wave.stem in texts]
    return _some(found, folder, f"transcript/*.txt and wav/{split} of Aishell-1")


def seed_tts(meta: Path) -> list[Prompted]:
    """All lines of a SEED-TTS list; its folder's name is the language, en or zh. Raises InputError."""
    language = meta.absolute().parent.name
    if language not in LANGUAGES:
        what = f"{meta}: its folder says the language, and {language!r} is none of {' and '.join(LANGUAGES)}"
        raise InputError(f"{what}; keep the list in a folder named so, as the set has it", param="data")
    found = []
    for number, line in enumerate(_text(meta).splitlines(), start=1):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) not in (4, 5):
            raise InputError(f"{meta}, line {number}: not ID|prompt|wave|text", param="data")
        key, said, wave, text = parts[:4]
        prompt = Recording(key, said, language, _there(meta.parent / wave))
        found.append(Prompted(key, text, language, prompt))
    return _some(found, meta, "lines")


_T = TypeVar("_T")


def draw(items: Sequence[_T], count: int, seed: int) -> list[_T]:
    """`count` of all `items`, or all if they are fewer, in their order: the same ones for the same seed.

    Sets are sorted by speaker: their first hundred would be the speech of a few.
    """
    chosen = random.Random(seed).sample(range(len(items)), min(count, len(items)))  # noqa: S311 - no secret
    return [items[place] for place in sorted(chosen)]


READERS: dict[str, Callable[[Path], Sequence[Recording]]] = {"librispeech": librispeech, "aishell": aishell}
"""Sets of recordings by the name they have on the command line."""


@dataclass(frozen=True)
class Dictated:
    """A text, said by a teacher when it is wanted."""

    key: str
    text: str
    language: str
    teacher: Teacher
    request: SpeechRequest

    def wave(self) -> Wave:
        """The teacher's wave."""
        return self.teacher.speak(self.request)


def dictated(teacher: Teacher, voices: Sequence[str], texts: Sequence[str], language: str) -> list[Dictated]:
    """`texts`, each in one of `voices` in turn."""
    return [
        Dictated(
            f"{number:05d}",
            text,
            language,
            teacher,
            SpeechRequest(text, voices[number % len(voices)], seed=number + 1),
        )
        for number, text in enumerate(texts)
    ]


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_text(file).splitlines(), start=1):
        key, _, text = line.strip().partition(" ")
        if not key:
            continue
        if not text.strip():
            raise InputError(f"{file}, line {number}: {key} has no words", param="data")
        yield key, text.strip()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}", param="data") from None


def _there(file: Path) -> Path:
    if not file.is_file():
        raise InputError(f"{file} is listed and is not there; fetch the set again", param="data")
    return file


def _some(found: list[_T], place: Path, what: str) -> list[_T]:
    if not found:
        raise InputError(f"{place} holds no {what}", param="data")
    return found
