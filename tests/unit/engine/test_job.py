"""The engine as the pod of a Job, a real process: it says how far it is, goes on after SIGTERM with the same
bytes, leaves its figures, and says in one line with an exit status why it cannot go on."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import httpx
import pytest

from stepaudio_runtime.engine.run import run

RECIPE = {
    "name": "tiny",
    "licence": "Apache-2.0",
    "texts": [{"domain": "en", "split": "train", "count": 80}],
    "voices": ["en-us+f2"],
    "teacher": {"kind": "espeak"},
    "filters": {"duration_s": [1.0, 20]},
    "output": {"samples_per_shard": 20},
}


class Pod:
    """A pod's process; its words go to a file beside its folder."""

    def __init__(self, folder: Path, recipe: object, file_bytes: int | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = folder / "words"
        self.log.write_text("")
        environment = {
            "STEPAUDIO_RECIPE": json.dumps(recipe),
            "STEPAUDIO_TERMINATION_LOG": str(self.log),
            "TMPDIR": str(folder),
        }
        command = [
            sys.executable,
            "-m",
            "stepaudio_runtime.cli",
            "data",
            "run",
            "--output",
            str(folder / "out"),
        ]

        self.process = subprocess.Popen(
            [*command, "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)],
            env={**os.environ, **environment},
            stderr=subprocess.DEVNULL,
        )
        if file_bytes is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    def counts(self) -> dict[str, int]:
        """What `/status` says of the samples; empty before it answers."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/status").json()
        except httpx.TransportError:
            return {}
        assert (answer["phase"], answer["reason"]) == ("Loading", "MakingData")
        return answer["samples"]

    def end(self) -> tuple[int, str]:
        """Exit status and last words."""
        return self.process.wait(120), self.log.read_text()


def test_it_says_how_far_it_is_and_goes_on_after_it_was_told_to_end(tmp_path: Path) -> None:
    pod = Pod(tmp_path, RECIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("work/*.made")):
        assert pod.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert pod.counts()["total"] == 80
    pod.process.send_signal(signal.SIGTERM)
    assert pod.end() == (75, "")
    assert not (tmp_path / "out/manifest.json").exists()

    status, words = Pod(tmp_path, RECIPE).end()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    refused = sum(manifest["refused"].values())
    figures = {"samples": 80 - refused, "refused": refused, "seconds": round(manifest["seconds"])}
    assert (status, json.loads(words)) == (0, figures)
    assert refused > 0

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(RECIPE))
    run(recipe, tmp_path / "whole", workers=1, say=print, processes=get_context("fork"))
    names = sorted(path.name for path in (tmp_path / "whole").glob("shard-*"))
    assert len(names) == 8
    for name in (*names, "manifest.json", "journal.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "file_bytes", "status", "words"),
    [
        ({"voices": []}, None, 78, "ConfigInvalid: .*voices: .*"),
        ({"tokenizer": {"models": "/nowhere"}}, None, 78, "ModelFileMissing: .*/nowhere/.*"),
        (
            {"teacher": {"kind": "speech", "url": "http://127.0.0.1:9", "model": "m", "attempts": 1}},
            None,
            75,
            "Unavailable: .*cannot be reached.*",
        ),
        ({}, 3_000, 78, "VolumeFull: .*make the volume larger.*"),
    ],
    ids=["recipe", "models", "teacher", "disk"],
)
def test_why_it_cannot_go_on(
    change: dict[str, object], file_bytes: int | None, status: int, words: str, tmp_path: Path
) -> None:
    import re

    ended, said = Pod(tmp_path, {**RECIPE, **change}, file_bytes).end()
    assert (ended, bool(re.fullmatch(words + "\n", said))) == (status, True), said
