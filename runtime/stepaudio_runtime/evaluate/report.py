"""What was measured, as JSON for programs, a table for readers, and spectrograms for the eye."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.mel import PROMPT_HOP, prompt_mel
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.engine.domain.pinyin import syllables
from stepaudio_runtime.engine.judge import ErrorRate
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.evaluate.speech import (
    Errors,
    Row,
    Said,
    durations,
    floor_and_ceiling,
    spread,
    voices_apart,
)

FAST, SLOW = "快速2", "慢速2"
"""Tags whose durations are compared."""
PLOTTED = 2
"""Sentences of each voice that are plotted and kept as waves."""


def as_data(rows: Sequence[Row], errors: Errors, about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of `rows`; `about` says what was measured and how.

    It has `unit`, what `errors` counts, and where the texts are of a set, in `of`, how many that has.
    """
    return {
        **about,
        "rows": [_row(row, errors) for row in rows],
        "speaker_similarity": {name: _rounded(value) for name, value in voices_apart(rows).items()},
        "fast_against_slow": rates_apart(rows),
    }


def rates_apart(rows: Sequence[Row]) -> dict[str, float]:
    """By voice, by what share fast speech is shorter than slow speech of the same sentences."""
    found = {}
    by_tag = {(row.voice.name, row.tag): row for row in rows}
    for (voice, tag), fast in by_tag.items():
        slow = by_tag.get((voice, SLOW))
        if tag != FAST or slow is None:
            continue
        sentences = min(len(fast.said), len(slow.said))
        short, long = durations(fast, sentences), durations(slow, sentences)
        if short is not None and long:
            found[voice] = round(1 - short / long, 4)
    return found


def table(data: Mapping[str, Any]) -> str:
    """The rows as a Markdown table."""
    head = (
        f"| voice | style | sentences | {data['unit']} errors | 95 % | floor | ceiling | mel, dB "
        "| like the teacher | first audio, s | real-time factor |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in data["rows"]:
        cells = [
            row["voice"],
            row["tag"] or "plain",
            f"{row['sentences']} of {data['of']}" if data.get("of") else str(row["sentences"]),
            _percent(row["errors"]["rate"]),
            f"{_percent(row['interval'][0])} to {_percent(row['interval'][1])}",
            _percent(row["floor"] and row["floor"]["rate"]),
            _percent(row["ceiling"] and row["ceiling"]["rate"]),
            _plain(row["mel_db"], 1),
            _plain(row["similarity"], 2),
            _plain(row["first_audio_s"], 3),
            _plain(row["real_time_factor"], 3),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for voice, share in data["fast_against_slow"].items():
        lines.append(f"\n{voice}: {FAST} is {share:.0%} shorter than {SLOW}.")
    if data["speaker_similarity"]:
        pairs = ", ".join(f"{name} {value:.2f}" for name, value in data["speaker_similarity"].items())
        lines.append(f"\nSpeaker similarity within a voice and between two: {pairs}.")
    return "\n".join(lines) + "\n"


def write(folder: Path, rows: Sequence[Row], data: Mapping[str, Any]) -> None:
    """`report.json`, `report.md`, `spectrograms.png`, some waves. Raises ConfigError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    (folder / "report.md").write_text(table(data))
    shown = [
        (f"{row.voice.name}-{number}", said)
        for row in rows
        if not row.tag
        for number, said in enumerate([s for s in row.said if s.spoken is not None][:PLOTTED], start=1)
    ]
    for name, said in shown:
        for kind, wave in _waves(said):
            (folder / f"{name}-{kind}.wav").write_bytes(encode(wave.samples, wave.rate, Format.WAV))
    if shown:
        _plot(folder / "spectrograms.png", shown)


def _row(row: Row, errors: Errors) -> dict[str, Any]:
    bounds = floor_and_ceiling(row, errors)
    spoken = [said.spoken for said in row.said if said.spoken is not None]
    firsts = [each.first_audio_s for each in spoken if each.first_audio_s is not None]
    seconds = sum(each.wave.duration_s for each in spoken)
    return {
        "voice": row.voice.name,
        "teacher": row.voice.teacher,
        "tag": row.tag,
        "sentences": len(row.said),
        "unsaid": len(row.said) - len(spoken),
        "faults": sum(said.fault is not None for said in row.said),
        "errors": _errors(row.errors),
        "interval": [round(value, 4) for value in spread(row)],
        "floor": bounds and _errors(bounds[0]),
        "ceiling": bounds and _errors(bounds[1]),
        "mel_db": _mean([said.mel_db for said in row.said]),
        "similarity": _mean([said.similarity for said in row.said]),
        "speech_s": round(seconds, 3),
        "first_audio_s": _rounded(median(firsts)) if firsts else None,
        "real_time_factor": _rounded(sum(each.seconds for each in spoken) / seconds) if seconds else None,
        "said": [_sentence(said) for said in row.said],
    }


def _sentence(said: Said) -> dict[str, Any]:
    return {
        "text": said.text,
        "heard": said.heard,
        "errors": said.errors.errors,
        "teacher_heard": said.reference_heard,
        "mel_db": _finite(said.mel_db),
        "similarity": _finite(said.similarity),
        "duration_s": said.spoken and round(said.spoken.wave.duration_s, 3),
        "fault": said.fault,
    }


def _errors(rate: ErrorRate) -> dict[str, float]:
    return {
        "rate": round(rate.rate, 4),
        "substituted": rate.substituted,
        "deleted": rate.deleted,
        "inserted": rate.inserted,
        "units": rate.units,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return _rounded(sum(known) / len(known)) if known else None


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _rounded(value)


def _rounded(value: float) -> float:
    return round(value, 4)


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f} %"


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _waves(said: Said) -> list[tuple[str, Wave]]:
    spoken = [] if said.spoken is None else [("spoken", said.spoken.wave)]
    return spoken + ([] if said.reference is None else [("teacher", said.reference)])


def _plot(path: Path, shown: Sequence[tuple[str, Said]]) -> None:
    """A row a sentence: the subject's mel, and the teacher's beside it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            what="the package matplotlib, which draws spectrograms, is not installed",
            cure="pip install 'stepaudio-runtime[engine]'",
        ) from None
    figure = Figure(figsize=(11, 2.2 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False, sharey=True)
    for (name, said), (left, right) in zip(shown, axes, strict=True):
        for axis, (kind, wave) in zip((left, right), _waves(said), strict=False):
            mel = prompt_mel(resample(wave.samples, wave.rate, SPEECH_RATE))
            span = (0.0, mel.shape[1] * PROMPT_HOP / SPEECH_RATE, 0.0, float(len(mel)))
            axis.imshow(mel, origin="lower", aspect="auto", vmin=-10, vmax=2, extent=span)
            # The plotting library's own font has no characters.
            text = said.text if said.text.isascii() else " ".join(syllables(said.text))
            axis.set_title(f"{name}, {kind}: {text}", fontsize=8)
            axis.set_xlabel("s", fontsize=8)
            axis.set_ylabel("mel band", fontsize=8)
    figure.savefig(path, dpi=90)
