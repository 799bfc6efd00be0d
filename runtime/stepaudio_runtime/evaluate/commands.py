"""`stepaudio eval ...`: its arguments, and what each one calls."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepaudio_runtime.engine.speech import Teacher
    from stepaudio_runtime.evaluate.speech import Embed, Voice
    from stepaudio_runtime.evaluate.subject import Subject

SUBJECTS = ("teacher", "copy")
_PLAIN_AND_RATES = ("", "慢速2", "快速2")


def add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `eval` to the program's commands."""
    evaluate = commands.add_parser("eval", help="measure speech and transcription")
    actions = evaluate.add_subparsers(dest="action", required=True, metavar="ACTION")

    speech = actions.add_parser("speech", help="say unseen sentences, and count what a recogniser mishears")
    speech.add_argument(
        "subject",
        choices=SUBJECTS,
        help="teacher: espeak-ng itself; copy: its waves through tokenizers, flow and vocoder",
    )
    speech.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    speech.add_argument("--models", type=Path, metavar="DIR", help="model folder")
    speech.add_argument(
        "--voices",
        nargs="+",
        metavar="NAME=TEACHER",
        help="voices, each with the teacher's voice it is compared with (default: the nano voices)",
    )
    speech.add_argument("--sentences", type=int, default=100, help="in each voice (default: 100)")
    speech.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    speech.add_argument(
        "--tags",
        nargs="*",
        default=_PLAIN_AND_RATES,
        metavar="TAG",
        help=f"control tags, '' for none (default: none, {', '.join(_PLAIN_AND_RATES[1:])})",
    )
    speech.add_argument("--tagged", type=int, default=20, help="sentences with each tag (default: 20)")
    speech.add_argument("--streamed", action="store_true", help="decode in the hops of a stream, not at once")
    speech.add_argument("--threads", type=int, default=1, help="of the computation (default: 1)")
    speech.set_defaults(run=_speech)


def _speech(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.engine.domain.texts import Language, Split, sentences
    from stepaudio_runtime.engine.espeak import Espeak
    from stepaudio_runtime.engine.judge import EnglishJudge, word_errors
    from stepaudio_runtime.evaluate import report
    from stepaudio_runtime.evaluate.speech import Listeners, measure

    teacher = Espeak()
    voices = _voices(arguments)
    subject = _subject(arguments, teacher, voices)
    listeners = Listeners(EnglishJudge(), teacher, _embed(arguments.models))
    drawn = sentences(Language.ENGLISH, Split.UNSEEN, arguments.sentences, arguments.seed)
    rows = measure(
        subject,
        listeners,
        voices,
        arguments.tags,
        [sentence.text for sentence in drawn],
        tagged=arguments.tagged,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    about = {
        "subject": arguments.subject,
        "streamed": arguments.streamed,
        "judge": "pocketsphinx with the domain's grammar",
        "seed": arguments.seed,
        "threads": arguments.threads,
        "cores": os.cpu_count(),
    }
    data = report.as_data(rows, word_errors, about)
    report.write(arguments.output, rows, data)
    print(report.table(data), end="")


def _voices(arguments: argparse.Namespace) -> list[Voice]:
    from stepaudio_runtime.errors import InputError
    from stepaudio_runtime.evaluate.speech import Voice

    if arguments.voices is None:
        from stepaudio_runtime.train.prompts import NAMES

        named = {own: own for own in NAMES} if arguments.subject == "teacher" else dict(_turned(NAMES))
        return [Voice(name, own) for name, own in named.items()]
    voices = []
    for given in arguments.voices:
        name, _, own = given.partition("=")
        if arguments.subject == "copy" and not own:
            raise InputError(f"--voices {given}: give NAME=TEACHER, as Treble=en-us+f2", param="voices")
        voices.append(Voice(name, own or (name if arguments.subject == "teacher" else None)))
    return voices


def _turned(names: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, own) for own, name in names.items()]


def _subject(arguments: argparse.Namespace, teacher: Teacher, voices: list[Voice]) -> Subject:
    from stepaudio_runtime.evaluate.subject import TimedTeacher

    if arguments.subject == "teacher":
        return TimedTeacher(teacher)
    from stepaudio_runtime.evaluate.copy_synthesis import CopySynthesis
    from stepaudio_runtime.tts.hops import HopPlan

    teachers = {voice.name: voice.teacher for voice in voices if voice.teacher}
    plan = HopPlan() if arguments.streamed else HopPlan.whole()
    return CopySynthesis(_models(arguments), teacher, teachers, plan=plan, threads=arguments.threads)


def _models(arguments: argparse.Namespace) -> Path:
    from stepaudio_runtime.errors import InputError

    if arguments.models is None:
        raise InputError(f"eval speech {arguments.subject} needs --models DIR", param="models")
    models: Path = arguments.models
    return models


def _embed(models: Path | None) -> Embed | None:
    """The speaker's network of the model folder, if there is one."""
    if models is None:
        return None
    from stepaudio_runtime.audio.fbank import RATE, speaker_features
    from stepaudio_runtime.audio.resample import resample
    from stepaudio_runtime.checkpoints import layout
    from stepaudio_runtime.checkpoints.campplus import SpeakerEncoder

    encoder = SpeakerEncoder(models / layout.TTS / layout.COSYVOICE / layout.CAMPPLUS)
    return lambda wave: encoder(speaker_features(resample(wave.samples, wave.rate, RATE)))
