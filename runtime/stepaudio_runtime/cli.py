"""`stepaudio ...`: serves the pods, and runs their models offline on one machine.

Imports are made by the command that needs them: the gateway's image has no torch, and `--help` is instant.
An error is one line on stderr; its exit status is 78 for model files and settings, 2 for wrong use, else 1.
"""

import argparse
import asyncio
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stepaudio_runtime.arguments import positive
from stepaudio_runtime.contract import COMMAND, EXIT_UNAVAILABLE, Component, Env
from stepaudio_runtime.engine.commands import add_data
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.evaluate.commands import add_eval
from stepaudio_runtime.health.tether import follow_parent
from stepaudio_runtime.service.objects import look_seldom
from stepaudio_runtime.train.commands import add_finetune
from stepaudio_runtime.voices.commands import add_voices

# At import, because that is what vLLM's processes do with their parent's main module.
follow_parent()
look_seldom()

STAGES = ("linguistic", "semantic", "speaker", "voices", "vocoder", "flow", "tts", "chat")
"""Of the training, in order; named here so that `--help` needs no torch."""

LONGEST_DETECTED_S = 3600.0
NOT_FOUND = 3
"""Exit status of `watermark detect` for a file without the mark."""

EPILOG = f"""\
The model folder holds Step-Audio-Tokenizer, Step-Audio-Chat and Step-Audio-TTS-3B; it is given by --models
or {Env.MODELS_DIR}. `{COMMAND} nano DIR` writes a small one.

  {COMMAND} nano /tmp/nano
  {COMMAND} speak 你好 -o hello.wav --models /tmp/nano
  {COMMAND} encode hello.wav -o codes.json --models /tmp/nano
  {COMMAND} decode codes.json -o again.wav --models /tmp/nano
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with the command's status."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "serve":
        from stepaudio_runtime.health.process import exit_process

        exit_process(_serve(arguments))
    try:
        arguments.run(arguments)
    except StepAudioError as error:
        from stepaudio_runtime.health.process import exit_status, last_words

        print(last_words(error), file=sys.stderr)
        sys.exit(exit_status(error))
    except OSError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Step-Audio's runtime: the pods' processes, and their models on one machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run one pod's process until SIGTERM")
    serve.add_argument("component", choices=[component.value for component in Component])
    serve.add_argument("--host", help="address to listen on (default: all)")
    serve.add_argument("--port", type=int, help="port (default: the contract's)")
    _models(serve)

    nano = commands.add_parser("nano", help="write a small checkpoint of every model")
    nano.add_argument("folder", type=Path, metavar="DIR")
    source = nano.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", type=Path, metavar="DIR", help="what `train` wrote (default: as shipped)"
    )
    source.add_argument("--random", action="store_true", help="random weights: they make sounds, not sense")
    nano.set_defaults(run=_nano)

    train = commands.add_parser("train", help="train one stage of the small models, from where it stopped")
    train.add_argument("stage", choices=STAGES)
    train.add_argument(
        "--corpus", type=Path, nargs="+", metavar="DIR", required=True, help="waves and their manifest.jsonl"
    )
    train.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        required=True,
        help="where the stages before left their weights, and this one leaves its own",
    )
    train.add_argument(
        "--work", type=Path, metavar="DIR", required=True, help="checkpoints and codes of the corpus"
    )
    train.add_argument("--steps", type=positive, help="default: the stage's own plan")
    train.add_argument(
        "--utterances",
        type=positive,
        metavar="N",
        help="to read, as many of each corpus as far as it has them (default: the stage's own number)",
    )
    train.add_argument(
        "--from",
        dest="begin",
        type=Path,
        metavar="DIR",
        help="weights to go on from instead of from nothing (flow, vocoder, tts and chat)",
    )
    train.add_argument(
        "--accumulate",
        type=positive,
        default=1,
        metavar="N",
        help="batches a step, one after another (default: 1)",
    )
    train.add_argument(
        "--seed", type=int, default=0, help="of what is drawn; another where a stage goes on (default: 0)"
    )
    train.add_argument("--threads", type=positive, default=1, help="of the computation (default: 1)")
    train.add_argument(
        "--minutes",
        type=positive,
        help="stop after so long, with exit status 75: the same command goes on (default: at the end)",
    )
    train.set_defaults(run=_train)

    encode = commands.add_parser("encode", help="audio file to audio codes, as JSON")
    encode.add_argument("wav", type=Path, metavar="WAV")
    encode.add_argument("-o", "--output", type=Path, metavar="JSON", help="default: standard output")
    encode.add_argument(
        "--trim", action="store_true", help="cut silence at both ends, as for a voice's prompt"
    )
    _models(encode)
    encode.set_defaults(run=_encode)

    decode = commands.add_parser("decode", help="audio codes to speech in a voice")
    decode.add_argument("codes", type=Path, metavar="JSON", help="what encode wrote, or a list of codes")
    _speech(decode)
    decode.set_defaults(run=_decode)

    speak = commands.add_parser("speak", help="text to speech, without a server; starts vLLM in this process")
    speak.add_argument("text", metavar="TEXT")
    _speech(speak)
    speak.set_defaults(run=_speak)

    watermark = commands.add_parser("watermark", help="the mark of speech in cloned voices")
    looks = watermark.add_subparsers(dest="action", required=True, metavar="ACTION")
    detect = looks.add_parser(
        "detect", help="whether an audio file carries it; exit status 0 if so, 3 if not"
    )
    detect.add_argument("file", type=Path, metavar="FILE")
    detect.set_defaults(run=_detect)

    models = commands.add_parser("models", help="work on a model folder")
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser("verify", help="check that every file is there, whole and of the right shape")
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.set_defaults(run=_verify)
    fetch = actions.add_parser("fetch", help="bring the models from a hub or a bucket, resumed")
    fetch.add_argument("folder", type=Path, metavar="DIR")
    fetch.add_argument("--source", metavar="JSON", help=f"default: ${Env.MODELS_SOURCE}, else Hugging Face")
    fetch.add_argument("--connections", type=positive, default=8, help="ranges fetched at once (default: 8)")
    fetch.add_argument("--port", type=int, help="serve /status and /metrics there (default: no)")
    fetch.add_argument("--host", default="0.0.0.0", help="address to serve at (default: all)")  # noqa: S104
    fetch.set_defaults(run=_fetch)
    awaited = actions.add_parser("await", help="wait until another process has fetched every file")
    awaited.add_argument("folder", type=Path, metavar="DIR")
    awaited.set_defaults(run=_await)
    removed = actions.add_parser("remove", help="remove the folder, whatever is in it")
    removed.add_argument("folder", type=Path, metavar="DIR")
    removed.set_defaults(run=_remove)

    add_voices(commands)
    add_data(commands)
    add_eval(commands)
    add_finetune(commands)
    return parser


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help=f"model folder (default: ${Env.MODELS_DIR}, else /models)"
    )


def _speech(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="WAV", required=True)
    parser.add_argument("--voice", help="default: the model's first")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same speech (default: 0)"
    )
    _models(parser)


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
    """The process's environment with the command line's choices on top."""
    from stepaudio_runtime.settings import ENV_HOST, ENV_PORT

    chosen = {
        Env.MODELS_DIR: arguments.models,
        ENV_HOST: getattr(arguments, "host", None),
        ENV_PORT: getattr(arguments, "port", None),
    }
    return {**os.environ, **{name: str(value) for name, value in chosen.items() if value is not None}}


def _serve(arguments: argparse.Namespace) -> int:
    component = Component(arguments.component)
    environment = _environment(arguments)
    if component is Component.GATEWAY:
        from stepaudio_runtime.gateway import serve_gateway

        os.environ.update(environment)
        return serve_gateway()
    from stepaudio_runtime.pods.serve import serve_pod

    return serve_pod(component, environment)


def _nano(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.checkpoints.nano import WEIGHTS, generate_nano, generate_random_nano

    if arguments.random:
        generate_random_nano(arguments.folder)
        print(f"{arguments.folder} holds nano models with random weights: they make sounds, not sense")
        return
    generate_nano(arguments.folder, arguments.weights or WEIGHTS)
    print(f"{arguments.folder} holds the nano models")


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from stepaudio_runtime.train.processes import join
    from stepaudio_runtime.train.stages import Job, run

    until = time.monotonic() + 60 * arguments.minutes if arguments.minutes else math.inf
    torch.set_num_threads(arguments.threads)
    run(
        arguments.stage,
        Job(
            tuple(arguments.corpus),
            arguments.weights,
            arguments.work,
            arguments.steps,
            arguments.utterances,
            log=sys.stdout,
            begin=arguments.begin,
            accumulate=arguments.accumulate,
            seed=arguments.seed,
            until=until,
            fabric=join("cpu", os.environ),
        ),
    )


def _verify(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.pods.loading import verify_all

    for line in verify_all(arguments.folder):
        print(line)


def _detect(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.audio.files import decode
    from stepaudio_runtime.audio.watermark import detect

    wave = decode(arguments.file.read_bytes(), max_seconds=LONGEST_DETECTED_S)
    finding = detect(wave.samples, wave.rate)
    said = "carries the mark of a cloned voice" if finding.found else "no mark found"
    print(f"{arguments.file}: {said} (score {finding.score:.1f}, {finding.seconds:.1f} s)")
    if not finding.found:
        sys.exit(NOT_FOUND)


def _fetch(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.download.fetch import Tuning
    from stepaudio_runtime.download.job import FetchJob, fetch_models
    from stepaudio_runtime.health.process import exit_process
    from stepaudio_runtime.settings import ENV_TERMINATION_LOG, PodSettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    job = FetchJob(
        source=arguments.source or os.environ.get(Env.MODELS_SOURCE) or '{"huggingFace": {}}',
        folder=arguments.folder,
        tuning=Tuning(connections=arguments.connections),
        host=arguments.host,
        port=arguments.port,
        termination_log=Path(os.environ.get(ENV_TERMINATION_LOG) or PodSettings.termination_log),
    )
    exit_process(fetch_models(job, os.environ))


def _await(arguments: argparse.Namespace) -> None:
    import signal

    from stepaudio_runtime.download.copies import await_whole

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # The first process of a container ends by a signal only where it asks to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_UNAVAILABLE))
    await_whole(arguments.folder)


def _remove(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.download.copies import remove

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    remove(arguments.folder)


def _encode(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.pods.offline import encode_file

    tokens = encode_file(arguments.wav, _environment(arguments), trim=arguments.trim)
    text = json.dumps(tokens)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text + "\n")


def _decode(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.pods.offline import decode_file

    _said(
        decode_file(
            arguments.codes,
            arguments.output,
            _environment(arguments),
            voice=arguments.voice,
            seed=arguments.seed,
        ),
        arguments.output,
    )


def _speak(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.pods.offline import speak_file

    _said(
        asyncio.run(
            speak_file(
                arguments.text,
                arguments.output,
                _environment(arguments),
                voice=arguments.voice,
                seed=arguments.seed,
            )
        ),
        arguments.output,
    )


def _said(seconds: float, output: Path) -> None:
    print(f"{output}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
