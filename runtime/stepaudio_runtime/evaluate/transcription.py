"""Transcription, measured: recordings heard by a recogniser, against what was said in them.

Chinese is counted in characters, all else in words; case, punctuation and width do not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.duplicates import plain
from stepaudio_runtime.engine.judge import (
    ErrorRate,
    Judge,
    character_errors,
    mismatched,
    total,
    word_errors,
)
from stepaudio_runtime.errors import InputError, OutputError


class Item(Protocol):
    """Something said, with its words."""

    @property
    def key(self) -> str:
        """Its name in its set."""

    @property
    def text(self) -> str:
        """What is said."""

    @property
    def language(self) -> str:
        """A code such as en or zh."""

    def wave(self) -> Wave:
        """How it is said."""


@dataclass(frozen=True)
class Heard:
    """One recording, of `audio_s` seconds (0 if it cannot be read). `fault` says why there are no words."""

    key: str
    text: str
    heard: str
    errors: ErrorRate
    audio_s: float
    seconds: float
    fault: str | None = None


def listen(
    judge: Judge,
    items: Sequence[Item],
    *,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Heard]:
    """What `judge` makes of each item. Raises Unavailable and ConfigError: those end the measurement."""
    found = []
    for number, item in enumerate(items, start=1):
        began, fault, words, audio_s = clock(), None, "", 0.0
        try:
            wave = item.wave()
            # What the recogniser takes is timed, not the reading of a file.
            began, audio_s = clock(), wave.duration_s
            words = plain(judge.words(wave))
        except (InputError, OutputError) as error:
            fault = str(error)
        errors = plainly(item.language)(item.text, words)
        heard = Heard(item.key, item.text, words, errors, audio_s, clock() - began, fault)
        found.append(heard)
        if number % max(1, len(items) // 10) == 0:
            rate = total(each.errors for each in found).rate
            progress(f"{number} of {len(items)}, errors {rate:.1%}")
    return found


def counted(language: str) -> Callable[[str, str], ErrorRate]:
    """How errors are counted in `language`."""
    return character_errors if language.startswith("zh") else word_errors


def plainly(language: str) -> Callable[[str, str], ErrorRate]:
    """The same of texts as they are written."""
    count = counted(language)
    return lambda said, heard: count(plain(said), plain(heard))


def unit(language: str) -> str:
    """What errors in `language` are counted in."""
    return "character" if counted(language) is character_errors else "word"


def as_data(found: Sequence[Heard], language: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures; `ceiling` is the rate of each sentence against what was heard of another one.

    `about` says what was measured and how; of a set, in `of`, how many recordings it has.
    """
    count, others = plainly(language), mismatched(len(found))
    ceiling = total(count(each.text, found[other].heard) for each, other in zip(found, others, strict=True))
    audio_s = sum(each.audio_s for each in found)
    all_errors = total(each.errors for each in found)
    return {
        **about,
        "language": language,
        "unit": unit(language),
        "recordings": len(found),
        "failed": sum(each.fault is not None for each in found),
        "rate": round(all_errors.rate, 4),
        "substituted": all_errors.substituted,
        "deleted": all_errors.deleted,
        "inserted": all_errors.inserted,
        "units": all_errors.units,
        "ceiling": round(ceiling.rate, 4),
        "seconds_median": round(median(each.seconds for each in found), 4),
        "real_time_factor": round(sum(each.seconds for each in found) / audio_s, 4) if audio_s else None,
        "heard": [
            {
                "key": each.key,
                "text": each.text,
                "heard": each.heard,
                "errors": each.errors.errors,
                "fault": each.fault,
            }
            for each in found
        ],
    }


def table(data: Mapping[str, Any]) -> str:
    """The figures as a Markdown table."""
    cells = (
        f"{data['recordings']} of {data['of']}" if data.get("of") else str(data["recordings"]),
        f"{100 * data['rate']:.1f} %",
        f"{100 * data['ceiling']:.1f} %",
        f"{data['substituted']} / {data['deleted']} / {data['inserted']}",
        f"{data['seconds_median']:.3f}",
        "" if data["real_time_factor"] is None else f"{data['real_time_factor']:.3f}",
    )
    return (
        f"| recordings | {data['unit']} errors | mismatched | substituted / deleted / inserted "
        "| median, s | real-time factor |\n|---|---|---|---|---|---|\n| " + " | ".join(cells) + " |\n"
    )


def write(folder: Path, data: Mapping[str, Any]) -> None:
    """`report.json` and `report.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    (folder / "report.md").write_text(table(data))
