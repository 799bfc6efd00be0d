"""Speech, measured: unseen sentences in each voice and style, heard by a judge, compared with the teacher.

floor      the judge's errors on the teacher's own speech of the same sentences: nobody is better
ceiling    its errors on the teacher's speech of other sentences: what no understanding at all comes to
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.judge import ErrorRate, Judge, mismatched, total, word_errors
from stepaudio_runtime.engine.speech import STYLES, SpeechRequest, Style, Teacher
from stepaudio_runtime.errors import InputError, OutputError
from stepaudio_runtime.evaluate.distances import mel_distance_db, similarity
from stepaudio_runtime.evaluate.subject import Spoken, Subject

Embed = Callable[[Wave], NDArray[np.float32]]
"""Speaker embedding of a wave at any rate."""
Errors = Callable[[str, str], ErrorRate]


@dataclass(frozen=True)
class Voice:
    """A voice of the subject, and the teacher's voice that it is compared with."""

    name: str
    teacher: str | None = None


@dataclass(frozen=True, eq=False)
class Listeners:
    """What the speech is measured with; what is None is not measured."""

    judge: Judge
    teacher: Teacher | None = None
    embed: Embed | None = None
    errors: Errors = word_errors
    unit: str = "word"  # in which `errors` counts


@dataclass(frozen=True, eq=False)
class Said:
    """One sentence. Without a wave of the subject all that follows from it is missing, and what was not heard
    is all wrong; `fault` says why. What was measured before a fault stays.
    """

    text: str
    errors: ErrorRate
    heard: str = ""
    fault: str | None = None
    spoken: Spoken | None = None
    embedding: NDArray[np.float32] | None = None
    reference: Wave | None = None
    reference_heard: str | None = None
    mel_db: float | None = None
    similarity: float | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """All sentences of one voice in one style."""

    voice: Voice
    tag: str
    said: Sequence[Said] = field(default_factory=list)

    @property
    def errors(self) -> ErrorRate:
        """Of the subject."""
        return total(said.errors for said in self.said)


def measure(
    subject: Subject,
    listeners: Listeners,
    voices: Sequence[Voice],
    tags: Sequence[str],
    texts: Sequence[str],
    *,
    tagged: int,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """A row for each voice and tag; tags other than "" are given the first `tagged` sentences only.

    What is wrong with one sentence is its fault; Unavailable and ConfigError are raised, and end it all.
    """
    rows = []
    for voice in voices:
        for tag in tags:
            some = texts[:tagged] if tag else texts
            said = []
            for number, text in enumerate(some):
                request = SpeechRequest(text, voice.name, STYLES.get(tag, Style(tag)), seed=number + 1)
                said.append(_said(subject, listeners, voice, request))
                if number + 1 in (len(some) // 2, len(some)):
                    rate = total(each.errors for each in said).rate
                    progress(f"{voice.name} {tag or 'plain'}: {number + 1} of {len(some)}, errors {rate:.1%}")
            rows.append(Row(voice, tag, said))
    return rows


def _said(subject: Subject, listeners: Listeners, voice: Voice, request: SpeechRequest) -> Said:
    text = request.text
    try:
        spoken = subject.say(request)
    except (InputError, OutputError) as error:
        return Said(text, listeners.errors(text, ""), fault=str(error))
    said = Said(text, listeners.errors(text, ""), spoken=spoken)
    try:
        heard = listeners.judge.words(spoken.wave)
        said = replace(said, heard=heard, errors=listeners.errors(text, heard))
        if listeners.embed is not None:
            said = replace(said, embedding=listeners.embed(spoken.wave))
        if listeners.teacher is None or voice.teacher is None:
            return said
        # Another seed than the subject's: a teacher compared with itself is not compared with the same wave.
        own = replace(request, voice=voice.teacher, seed=request.seed + 1000)
        reference = listeners.teacher.speak(own)
        said = replace(said, reference=reference, mel_db=mel_distance_db(spoken.wave, reference))
        said = replace(said, reference_heard=listeners.judge.words(reference))
        if listeners.embed is not None and said.embedding is not None:
            said = replace(said, similarity=similarity(said.embedding, listeners.embed(reference)))
    except (InputError, OutputError) as error:
        return replace(said, fault=str(error))
    return said


def floor_and_ceiling(row: Row, errors: Errors = word_errors) -> tuple[ErrorRate, ErrorRate] | None:
    """Errors of the teacher's speech, and of its speech of other sentences; None without a teacher."""
    heard = [said.reference_heard for said in row.said]
    known = [(said.text, h) for said, h in zip(row.said, heard, strict=True) if h is not None]
    if len(known) < 2:
        return None
    floor = total(errors(text, h) for text, h in known)
    others = mismatched(len(known))
    ceiling = total(errors(text, known[other][1]) for (text, _), other in zip(known, others, strict=True))
    return floor, ceiling


def spread(row: Row, draws: int = 1000) -> tuple[float, float]:
    """The error rate's 95 % interval, by drawing sentences anew (bootstrap, always the same draws)."""
    random = np.random.default_rng(0)
    errors = np.array([said.errors.errors for said in row.said])
    units = np.array([said.errors.units for said in row.said])
    chosen = random.integers(len(errors), size=(draws, len(errors)))
    rates = errors[chosen].sum(axis=1) / np.maximum(1, units[chosen].sum(axis=1))
    low, high = np.quantile(rates, (0.025, 0.975))
    return float(low), float(high)


def voices_apart(rows: Sequence[Row]) -> dict[str, float]:
    """Mean speaker similarity of plain sentences within each voice, and of each two voices.

    Keys are "a" and "a/b"; voices are told apart where each "a/b" is below both its ends. Each sentence is
    compared with another one, so that not the words are compared.
    """
    held = {
        row.voice.name: np.stack([s.embedding for s in row.said if s.embedding is not None])
        for row in rows
        if not row.tag and sum(s.embedding is not None for s in row.said) > 1
    }
    found = {}
    for name, own in held.items():
        others = mismatched(len(own))
        found[name] = float(np.mean([similarity(a, own[b]) for a, b in zip(own, others, strict=True)]))
    names = sorted(held)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            pairs = zip(held[one], np.roll(held[other], 1, axis=0), strict=False)
            found[f"{one}/{other}"] = float(np.mean([similarity(a, b) for a, b in pairs]))
    return found


def durations(row: Row, sentences: int) -> float | None:
    """Seconds of the first `sentences` together; None where one was not said."""
    spoken = [said.spoken for said in row.said[:sentences]]
    if not spoken or any(each is None for each in spoken):
        return None
    return sum(each.wave.duration_s for each in spoken if each is not None)
