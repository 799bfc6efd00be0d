"""`stepaudio voices ...`: voices of a running gateway, by its API."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stepaudio_runtime.contract import Route
from stepaudio_runtime.errors import InputError, Unavailable

ENV_URL = "STEPAUDIO_URL"
ENV_API_KEY = "STEPAUDIO_API_KEY"
TIMEOUT_S = 120.0  # a transcription takes its time


def add_voices(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `voices` to the program's commands."""
    voices = commands.add_parser(
        "voices",
        help="list, create, show and delete the voices of a gateway",
        description=f"The key of the API, where it needs one, is read from {ENV_API_KEY}.",
    )
    voices.add_argument("--url", help=f"of the gateway (default: ${ENV_URL}, else http://localhost:8080)")
    actions = voices.add_subparsers(dest="action", required=True, metavar="ACTION")

    actions.add_parser("list", help="every voice, one a line").set_defaults(run=_list)

    create = actions.add_parser("create", help="a voice of somebody who agreed to it")
    create.add_argument("name", metavar="NAME")
    create.add_argument("wave", type=Path, metavar="WAVE", help="1 to 30 s of speech")
    create.add_argument("--transcript", help="what is said in it (default: the chat model writes it down)")
    create.add_argument("--consent-person", required=True, help="who agreed to being imitated")
    create.add_argument("--consent-statement", required=True, help="in what words")
    create.add_argument("--consent-recording", type=Path, metavar="WAVE", help="the person saying so")
    create.set_defaults(run=_create)

    for action, run, text in (("show", _show, "all that is kept of a voice"), ("delete", _delete, "a voice")):
        one = actions.add_parser(action, help=text)
        one.add_argument("name", metavar="NAME")
        one.set_defaults(run=run)


def _list(arguments: argparse.Namespace) -> None:
    for voice in _ask(arguments, "GET", Route.VOICES)["data"]:
        print(voice["id"])


def _create(arguments: argparse.Namespace) -> None:
    fields = {
        "name": arguments.name,
        "transcript": arguments.transcript,
        "consent_person": arguments.consent_person,
        "consent_statement": arguments.consent_statement,
    }
    files = {"wave": arguments.wave.read_bytes()}
    if arguments.consent_recording is not None:
        files["consent_recording"] = arguments.consent_recording.read_bytes()
    said = {name: value for name, value in fields.items() if value is not None}
    _print(_ask(arguments, "POST", Route.VOICES, data=said, files=files))


def _show(arguments: argparse.Namespace) -> None:
    _print(_ask(arguments, "GET", f"{Route.VOICES}/{quote(arguments.name, safe='')}"))


def _delete(arguments: argparse.Namespace) -> None:
    _ask(arguments, "DELETE", f"{Route.VOICES}/{quote(arguments.name, safe='')}")
    print(f"{arguments.name} is deleted")


def _print(voice: Mapping[str, Any]) -> None:
    print(json.dumps(voice, ensure_ascii=False, indent=2))


def _ask(
    arguments: argparse.Namespace,
    method: str,
    path: str,
    data: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Any:
    """The gateway's answer. Raises InputError with its words, Unavailable where there is none."""
    import httpx

    url = (arguments.url or os.environ.get(ENV_URL) or "http://localhost:8080").rstrip("/")
    key = os.environ.get(ENV_API_KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method, url + path, data=data, files=files, headers=headers, timeout=TIMEOUT_S, trust_env=False
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"no gateway answers at {url} ({error})") from error
    if answer.is_success:
        return answer.json()
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"status {answer.status_code}"
    raise InputError(f"{url}: {message}")
