"""One sample, made: the teacher speaks, it is measured and perhaps refused, encoded and tokenised."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import FULL_SCALE, Wave, to_pcm16
from stepaudio_runtime.engine.domain.texts import Language
from stepaudio_runtime.engine.duplicates import fingerprint
from stepaudio_runtime.engine.filters import cosine_distance, measure, refusal
from stepaudio_runtime.engine.judge import EnglishJudge, Judge, word_errors
from stepaudio_runtime.engine.plan import Sample
from stepaudio_runtime.engine.recipe import Recipe
from stepaudio_runtime.engine.speech import STYLES, SpeechRequest, Style, Teacher, Tokenise
from stepaudio_runtime.engine.tokenise import open_tokenizer
from stepaudio_runtime.errors import AudioError, ConfigError, InputError, OutputError, StepAudioError

ANALYSIS_RATE = 16_000


@dataclass(frozen=True)
class Made:
    """What a sample became. `record` is all that is known of it, as JSON; `audio` is empty if refused."""

    number: int
    record: dict[str, Any]
    codes: tuple[int, ...]
    audio: bytes

    @property
    def refused(self) -> bool:
        """Whether a filter, or the teacher, refused it."""
        return self.record["refused"] is not None


class Workshop:
    """The tools of a recipe, opened once in each process."""

    def __init__(self, recipe: Recipe, references: Path) -> None:
        """`references` holds the voices' reference waves where the recipe filters by speaker."""
        self._recipe = recipe
        self._judge: Judge | None = None
        if recipe.filters.max_word_errors is not None:
            self._judge = EnglishJudge()
        self._tokenise: Tokenise | None = None
        if recipe.tokenizer is not None:
            self._tokenise = open_tokenizer(recipe.tokenizer)
        self._embedder = None
        if recipe.filters.speaker is not None:
            from stepaudio_runtime.checkpoints.campplus import SpeakerEncoder

            self._embedder = SpeakerEncoder(recipe.filters.speaker.campplus)
            self._voices = {
                voice: self._embedder.of_speech(wave) for voice, wave in _references(recipe, references)
            }

    def make(self, sample: Sample, spoken: Wave | StepAudioError) -> Made:
        """The sample from its wave; an error about this one sample refuses it."""
        if isinstance(spoken, StepAudioError):
            return _made(sample, {}, ("teacher", str(spoken)))
        # What is measured and tokenised is what is stored, in 16 bits.
        wave = Wave(to_pcm16(spoken.samples).astype(np.float32) / np.float32(FULL_SCALE), spoken.rate)
        if not len(wave.samples):
            return _made(sample, {}, ("teacher", "it has no samples"))
        speech = resample(wave.samples, wave.rate, ANALYSIS_RATE)
        heard = self._judge.words(wave) if self._judge else None
        distance = None
        if self._embedder is not None:
            try:
                embedding = self._embedder.of_speech(speech)
            except AudioError as error:
                return _made(sample, {}, ("speaker", str(error)))
            distance = cosine_distance(embedding, self._voices[sample.voice])
        measures = measure(
            wave,
            word_errors=None if heard is None else word_errors(sample.text, heard).rate,
            speaker_distance=distance,
        )
        facts = {"rate": wave.rate, **asdict(measures), "heard": heard}
        if why := refusal(measures, self._recipe.filters):
            return _made(sample, facts, why)
        if self._recipe.filters.audio_bits is not None:
            facts["fingerprint"] = f"{fingerprint(speech):064x}"
        codes: list[int] = []
        if self._tokenise is not None:
            try:
                codes = self._tokenise(wave)
            except (InputError, OutputError) as error:
                return _made(sample, facts, ("tokenizer", str(error)))
            facts["codes"] = len(codes)
        kind = self._recipe.output.audio
        audio = b"" if kind == "none" else encode(wave.samples, wave.rate, Format(kind))
        return _made(sample, facts, None, tuple(codes), audio)


def speak(teacher: Teacher, sample: Sample) -> Wave | StepAudioError:
    """The sample's wave, or the error that concerns it alone; errors that concern all are raised."""
    style = STYLES.get(sample.style, Style(sample.style))
    try:
        return teacher.speak(SpeechRequest(sample.text, sample.voice, style, sample.seed))
    except (InputError, OutputError) as error:
        return error


def reference_file(folder: Path, voice: int) -> Path:
    """Where the reference wave of the recipe's voice number `voice` lies."""
    return folder / f"voice-{voice:04d}.wav"


def check_judgeable(recipe: Recipe) -> None:
    """Raises ConfigError where the judge is asked to hear what is not of the English domain."""
    if recipe.filters.max_word_errors is None:
        return
    for number, source in enumerate(recipe.texts):
        if source.domain is not Language.ENGLISH:
            what = f"filters.max_word_errors: the judge knows the English domain only, not texts.{number}"
            raise ConfigError(what=what, cure="leave the filter out, or make a recipe of its own")


def to_bytes(made: Made) -> bytes:
    """`made` as kept between runs: a checksum, a line of JSON, the audio."""
    line = json.dumps([made.number, made.record, made.codes], ensure_ascii=False).encode() + b"\n"
    content = line + made.audio
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def from_bytes(data: bytes) -> Made | None:
    """The sample in `data`; None where it is not whole, so that it is made again."""
    digest, _, content = data.partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    line, _, audio = content.partition(b"\n")
    number, record, codes = json.loads(line)
    return Made(number, record, tuple(codes), audio)


def _made(
    sample: Sample,
    facts: dict[str, Any],
    refused: tuple[str, str] | None,
    codes: tuple[int, ...] = (),
    audio: bytes = b"",
) -> Made:
    about = {"key": sample.key, **asdict(sample)}
    del about["number"]
    record = {**about, **facts, "refused": refused and list(refused)}
    return Made(sample.number, record, codes, audio)


def _references(recipe: Recipe, folder: Path) -> list[tuple[str, NDArray[np.float32]]]:
    from stepaudio_runtime.pods.sound_file import read_mono

    found = []
    for number, voice in enumerate(recipe.voices):
        samples, rate = read_mono(reference_file(folder, number))
        found.append((voice, resample(samples, rate, ANALYSIS_RATE)))
    return found
