"""`stepaudio eval ...`: its arguments, and what each one calls."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepaudio_runtime.arguments import positive

if TYPE_CHECKING:
    from stepaudio_runtime.engine.domain.texts import Language
    from stepaudio_runtime.engine.judge import Judge
    from stepaudio_runtime.engine.speech import Teacher
    from stepaudio_runtime.evaluate.endpoint import Endpoint
    from stepaudio_runtime.evaluate.speech import Embed, Errors, Listeners, Voice
    from stepaudio_runtime.evaluate.subject import Subject
    from stepaudio_runtime.evaluate.transcription import Item

SUBJECTS = ("teacher", "copy", "models", "endpoint")
_PLAIN_AND_RATES = ("", "慢速2", "快速2")


def add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `eval` to the program's commands."""
    evaluate = commands.add_parser("eval", help="measure speech and transcription")
    actions = evaluate.add_subparsers(dest="action", required=True, metavar="ACTION")

    speech = actions.add_parser("speech", help="say unseen sentences, and count what a recogniser mishears")
    speech.add_argument(
        "subject",
        choices=SUBJECTS,
        help="teacher: espeak-ng itself; copy: its waves through tokenizers, flow and vocoder; "
        "models: a folder, offline; endpoint: any OpenAI-compatible one",
    )
    speech.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    speech.add_argument("--models", type=Path, metavar="DIR", help="model folder")
    speech.add_argument(
        "--voices",
        nargs="+",
        metavar="NAME=TEACHER",
        help="voices, each with the teacher's voice it is compared with (default: the nano voices)",
    )
    speech.add_argument(
        "--language",
        choices=("en", "zh"),
        help="of the domain: English or Chinese (default: en); that of --data is its own",
    )
    speech.add_argument(
        "--acoustic-model",
        type=Path,
        metavar="DIR",
        help="of Mandarin, for --language zh: CMU's tdt_sc_8k, which is in no package",
    )
    speech.add_argument("--sentences", type=positive, default=100, help="in each voice (default: 100)")
    speech.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    speech.add_argument(
        "--tags",
        nargs="*",
        default=_PLAIN_AND_RATES,
        metavar="TAG",
        help=f"control tags, '' for none (default: none, {', '.join(_PLAIN_AND_RATES[1:])})",
    )
    speech.add_argument("--tagged", type=positive, default=20, help="sentences with each tag (default: 20)")
    speech.add_argument("--whole", action="store_true", help="decode at once, not in the hops of a stream")
    speech.add_argument("--threads", type=positive, default=1, help="of the computation (default: 1)")
    speech.add_argument(
        "--data",
        metavar="seed-tts:META.lst",
        help="texts to say, heard by the judge's endpoint (default: the domain, heard by pocketsphinx)",
    )
    _endpoint(speech, "the endpoint")
    _endpoint(speech, "the judge of --data, a recogniser", prefix="judge-")
    speech.set_defaults(run=_speech)

    heard = actions.add_parser("transcription", help="have recordings transcribed, and count the errors")
    heard.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    _endpoint(heard, "the recogniser; without one, pocketsphinx with the domain's grammar")
    heard.add_argument(
        "--data",
        metavar="SET:DIR",
        help="librispeech:DIR or aishell:DIR (default: unseen sentences of the domain, said by espeak-ng)",
    )
    heard.add_argument("--voices", nargs="+", metavar="TEACHER", help="of espeak-ng, in turn")
    heard.add_argument("--sentences", type=positive, default=100, help="at most (default: 100)")
    heard.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    heard.set_defaults(run=_transcription)

    abilities = actions.add_parser("abilities", help="hold recorded conversations, and have answers judged")
    abilities.add_argument("data", type=Path, metavar="CONVERSATIONS.jsonl")
    abilities.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    _endpoint(abilities, "the chat model")
    _endpoint(abilities, "the judge, a chat model that reads", prefix="judge-")
    abilities.set_defaults(run=_abilities)


def _endpoint(parser: argparse.ArgumentParser, what: str, prefix: str = "") -> None:
    parser.add_argument(f"--{prefix}url", help=f"address of {what}, up to and without /v1")
    parser.add_argument(f"--{prefix}model", help="its model's name")
    parser.add_argument(f"--{prefix}api-key-env", metavar="VAR", help="the variable that holds its key")


def _speech(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.engine.espeak import Espeak
    from stepaudio_runtime.evaluate import report
    from stepaudio_runtime.evaluate.speech import measure

    teacher = Espeak()
    material = _material(arguments, teacher)
    listeners = material.listeners
    voices = _voices(arguments, material.language)
    with _subject(arguments, teacher, voices) as subject:
        rows = measure(
            subject, listeners, voices, arguments.tags, material.texts, tagged=arguments.tagged, progress=_say
        )
    about = {
        "subject": arguments.subject,
        "whole": arguments.whole,
        "data": arguments.data or "domain",
        "of": material.of,
        "language": material.language,
        "unit": listeners.unit,
        "judge": arguments.judge_model if arguments.data else "pocketsphinx with the domain's grammar",
        "seed": arguments.seed,
        "threads": arguments.threads,
        "cores": os.cpu_count(),
    }
    data = report.as_data(rows, listeners.errors, about)
    report.write(arguments.output, rows, data)
    print(report.table(data), end="")


@dataclass(frozen=True, eq=False)
class _Material:
    """What is said, in which language, and who listens. `of`: texts of the set that they are drawn from."""

    texts: list[str]
    language: str
    listeners: Listeners
    of: int | None = None


def _material(arguments: argparse.Namespace, teacher: Teacher) -> _Material:
    """The domain with its teacher and its judge; or a set's texts, with neither."""
    from stepaudio_runtime.errors import InputError
    from stepaudio_runtime.evaluate.speech import Listeners

    embed = _embed(arguments.models)
    if arguments.data is None:
        from stepaudio_runtime.engine.domain.texts import Language, Split, sentences

        language = Language(arguments.language or "en")
        drawn = sentences(language, Split.UNSEEN, arguments.sentences, arguments.seed)
        judge, errors, unit = _judge_of_the_domain(language, arguments.acoustic_model)
        listeners = Listeners(judge, teacher, embed, errors, unit)
        return _Material([sentence.text for sentence in drawn], language, listeners)
    from stepaudio_runtime.evaluate import transcription
    from stepaudio_runtime.evaluate.endpoint import TranscriptionEndpoint
    from stepaudio_runtime.evaluate.recordings import draw, seed_tts

    name, _, meta = arguments.data.partition(":")
    if name != "seed-tts" or not meta:
        raise InputError(f"--data {arguments.data}: give seed-tts:META.lst", param="data")
    lines = seed_tts(Path(meta))
    own = lines[0].language
    if arguments.language not in (None, own):
        raise InputError(f"--language {arguments.language}: {meta} is in {own}", param="language")
    judge = TranscriptionEndpoint(_needed(arguments, "judge_"))
    listeners = Listeners(judge, None, embed, transcription.plainly(own), transcription.unit(own))
    texts = [line.text for line in draw(lines, arguments.sentences, arguments.seed)]
    return _Material(texts, own, listeners, len(lines))


def _judge_of_the_domain(language: Language, acoustic_model: Path | None) -> tuple[Judge, Errors, str]:
    """The judge, how errors are counted, and in what."""
    from stepaudio_runtime.engine.domain.texts import Language
    from stepaudio_runtime.engine.judge import (
        WHERE_IT_IS,
        ChineseJudge,
        EnglishJudge,
        syllable_errors,
        word_errors,
    )
    from stepaudio_runtime.errors import InputError

    if language is Language.ENGLISH:
        return EnglishJudge(), word_errors, "word"
    if acoustic_model is None:
        message = f"--language zh needs --acoustic-model DIR, CMU's Mandarin model; {WHERE_IT_IS}"
        raise InputError(message, param="acoustic_model")
    return ChineseJudge(acoustic_model), syllable_errors, "syllable"


def _transcription(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.engine.judge import EnglishJudge
    from stepaudio_runtime.evaluate import transcription
    from stepaudio_runtime.evaluate.endpoint import TranscriptionEndpoint

    endpoint = None if arguments.url is None else _needed(arguments)
    judge = EnglishJudge() if endpoint is None else TranscriptionEndpoint(endpoint)
    items, of = _recordings(arguments)
    found = transcription.listen(judge, items, progress=_say)
    about = {
        "data": arguments.data or "domain",
        "of": of,
        "seed": arguments.seed,
        "recogniser": endpoint.model if endpoint else "pocketsphinx",
    }
    data = transcription.as_data(found, items[0].language, about)
    transcription.write(arguments.output, data)
    print(transcription.table(data), end="")


def _recordings(arguments: argparse.Namespace) -> tuple[Sequence[Item], int | None]:
    """The recordings, and how many the set has that they are drawn from; the domain has no end."""
    from stepaudio_runtime.errors import InputError
    from stepaudio_runtime.evaluate.recordings import READERS, dictated, draw

    if arguments.data is not None:
        name, _, folder = arguments.data.partition(":")
        if name not in READERS or not folder:
            raise InputError(f"--data {arguments.data}: give {' or '.join(READERS)}, and :DIR", param="data")
        found = READERS[name](Path(folder))
        return draw(found, arguments.sentences, arguments.seed), len(found)
    from stepaudio_runtime.engine.domain.texts import Language, Role, Split, sentences
    from stepaudio_runtime.engine.espeak import Espeak
    from stepaudio_runtime.train.prompts import NAMES

    # Requests alone are what a chat model is told: half of what is drawn, and of a few maybe none.
    drawn = sentences(Language.ENGLISH, Split.UNSEEN, arguments.sentences * 3 + 20, arguments.seed)
    texts = [sentence.text for sentence in drawn if sentence.role is Role.REQUEST]
    voices = arguments.voices or list(NAMES[Language.ENGLISH])
    return dictated(Espeak(), voices, texts[: arguments.sentences], "en"), None


def _abilities(arguments: argparse.Namespace) -> None:
    import json

    from stepaudio_runtime.evaluate import abilities

    conversations = abilities.read_conversations(arguments.data)
    model, judge = (abilities.ChatEndpoint(_needed(arguments, prefix)) for prefix in ("", "judge_"))
    data = abilities.as_data(abilities.run(conversations, model, judge, _say))
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    (arguments.output / "report.json").write_text(text)
    (arguments.output / "report.md").write_text(abilities.table(data))
    print(abilities.table(data), end="")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _needed(arguments: argparse.Namespace, prefix: str = "") -> Endpoint:
    from stepaudio_runtime.errors import InputError
    from stepaudio_runtime.evaluate.endpoint import Endpoint

    url, model = (getattr(arguments, f"{prefix}{name}") for name in ("url", "model"))
    if url is None or model is None:
        option = f"--{prefix.replace('_', '-')}"
        raise InputError(f"give {option}url and {option}model", param="url")
    return Endpoint(url, model, getattr(arguments, f"{prefix}api_key_env"))


def _voices(arguments: argparse.Namespace, language: str) -> list[Voice]:
    from stepaudio_runtime.errors import InputError
    from stepaudio_runtime.evaluate.speech import Voice

    if arguments.voices is None:
        from stepaudio_runtime.engine.domain.texts import Language
        from stepaudio_runtime.train.prompts import NAMES

        names = NAMES[Language(language)]
        named = {own: own for own in names} if arguments.subject == "teacher" else dict(_turned(names))
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


def _subject(
    arguments: argparse.Namespace, teacher: Teacher, voices: list[Voice]
) -> AbstractContextManager[Subject]:
    from stepaudio_runtime.evaluate.subject import TimedTeacher

    if arguments.subject == "teacher":
        return nullcontext(TimedTeacher(teacher))
    if arguments.subject == "endpoint":
        from stepaudio_runtime.evaluate.endpoint import SpokenEndpoint

        return nullcontext(SpokenEndpoint(_needed(arguments)))
    from stepaudio_runtime.tts.hops import HopPlan

    plan = HopPlan.whole() if arguments.whole else HopPlan()
    models = _models(arguments)
    if arguments.subject == "models":
        from stepaudio_runtime.contract import Env
        from stepaudio_runtime.evaluate.offline import OfflineModels
        from stepaudio_runtime.settings import ENV_THREADS

        own = {Env.MODELS_DIR: str(models), ENV_THREADS: str(arguments.threads)}
        return OfflineModels({**os.environ, **own}, plan)
    from stepaudio_runtime.evaluate.copy_synthesis import CopySynthesis

    teachers = {voice.name: voice.teacher for voice in voices if voice.teacher}
    return nullcontext(CopySynthesis(models, teacher, teachers, plan=plan, threads=arguments.threads))


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
    from stepaudio_runtime.audio.fbank import RATE
    from stepaudio_runtime.audio.resample import resample
    from stepaudio_runtime.checkpoints import layout
    from stepaudio_runtime.checkpoints.campplus import SpeakerEncoder

    encoder = SpeakerEncoder(models / layout.TTS / layout.COSYVOICE / layout.CAMPPLUS)
    return lambda wave: encoder.of_speech(resample(wave.samples, wave.rate, RATE))
