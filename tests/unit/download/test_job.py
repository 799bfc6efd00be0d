"""`stepaudio models fetch` as a process: killed at any moment it goes on where it was, it tells how far it
is, its exit status and last words say why it ended; a full disk and a bucket are real ones.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import localbucket
import pytest

from stepaudio_runtime.contract import EXIT_CONFIG, EXIT_UNAVAILABLE, Env
from stepaudio_runtime.settings import ENV_TERMINATION_LOG
from tests.unit.download.conftest import content
from tests.unit.download.hub import Answer, Fault, Hub, folders, models

COMMAND = [str(Path(sys.executable).with_name("stepaudio")), "models", "fetch"]


def start(
    folder: Path, source: dict[str, object], *arguments: str, under: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("STEPAUDIO_", "AWS_"))}
    return subprocess.Popen(
        [*under, *COMMAND, str(folder), *arguments],
        env={
            **env,
            Env.MODELS_SOURCE: json.dumps(source),
            ENV_TERMINATION_LOG: str(folder.with_suffix(".log")),
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def hugging_face(hub: Hub) -> dict[str, object]:
    return {"huggingFace": {"endpoint": hub.url, "revisions": {"chat": "v1"}}}


def test_killed_again_and_again_it_comes_to_its_end(tmp_path: Path) -> None:
    hub = Hub(models(large=40_000_000))
    whole = sum(map(len, folders(hub.files).values()))
    slow, dice, kills = threading.Event(), random.Random(3), 0

    def crawl(path: str) -> Fault:
        time.sleep(0.02 if slow.is_set() else 0)
        return None

    hub.faults = crawl
    slow.set()
    target = tmp_path / "models"
    while kills < 3:
        process = start(target, hugging_face(hub), "--connections", "2")
        sent, enough = hub.sent, dice.randrange(5_000_000, 20_000_000)
        while hub.sent - sent < enough and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    slow.clear()
    process = start(target, hugging_face(hub))
    _, said = process.communicate(timeout=120)
    hub.close()
    assert process.returncode == 0, said
    assert content(target) == folders(hub.files)
    print(f"3 kills, {whole:,} bytes: {hub.sent / whole:.3f} of them sent")
    # A kill costs at most what was not recorded yet, of each connection: 8 MiB, and what is on its way.
    assert hub.sent <= whole + 3 * 2 * (8 << 20) + 3 * 2 * (6 << 20)


def test_it_tells_how_far_it_is_and_ends_by_sigterm(tmp_path: Path) -> None:
    hub = Hub(models())
    held = threading.Event()

    def hold(path: str) -> Fault:
        if path.startswith("model-"):
            held.wait(60)
        return None

    hub.faults = hold
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(tmp_path / "models", hugging_face(hub), "--port", str(port), "--host", "127.0.0.1")
    try:
        small = sum(len(c) for p, c in folders(hub.files).items() if "model-" not in p)
        status = _status(port, lambda s: s["load"]["bytesLoaded"] == small)
        assert status["load"]["bytesTotal"] == sum(map(len, folders(hub.files).values()))
        assert (status["phase"], status["reason"]) == ("Loading", "Downloading")
        assert "left" in status["message"] or "standing still" in status["message"]
        process.send_signal(signal.SIGTERM)
        held.set()
        assert process.wait(30) == EXIT_UNAVAILABLE
    finally:
        process.kill()
        process.communicate()
        hub.close()


def test_it_tells_of_a_hub_that_asks_for_patience_and_then_goes_on(tmp_path: Path) -> None:
    hub = Hub(models())
    hub.faults = lambda path: Answer(429, {"Retry-After": "1"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(tmp_path / "models", hugging_face(hub), "--port", str(port), "--host", "127.0.0.1")
    try:
        status = _status(port, lambda s: s["reason"] == "SourceRateLimited")
        assert "429" in status["message"] and status["message"].endswith("; it is tried again")
        hub.faults = lambda path: None
        assert process.wait(30) == 0
        assert content(tmp_path / "models") == folders(hub.files)
    finally:
        process.kill()
        process.communicate()
        hub.close()


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Answer(401), EXIT_CONFIG, "SourceUnauthorized: "),
        (Answer(404), EXIT_CONFIG, "SourceNotFound: "),
    ],
)
def test_the_end_says_why(tmp_path: Path, answer: Answer, status: int, words: str) -> None:
    hub = Hub(models())
    hub.faults = lambda path: answer
    process = start(tmp_path / "models", hugging_face(hub))
    _, said = process.communicate(timeout=180)
    hub.close()
    assert process.returncode == status, said
    assert (tmp_path / "models.log").read_text().startswith(words)
    assert "Traceback" not in said


def test_a_token_from_a_file_with_a_last_newline_is_taken(tmp_path: Path) -> None:
    hub = Hub(models(), token="hf_secret")
    process = start(tmp_path / "models", hugging_face(hub), **{Env.MODELS_TOKEN: "hf_secret\n"})
    _, said = process.communicate(timeout=180)
    hub.close()
    assert process.returncode == 0, said
    assert content(tmp_path / "models") == folders(hub.files)


@pytest.mark.parametrize("token", ["hf_secret\nhf_other", "hf_secret\u00e9"])
def test_what_is_no_token_is_refused_at_once_and_said_nowhere(tmp_path: Path, token: str) -> None:
    process = start(tmp_path / "models", {"huggingFace": {}}, **{Env.MODELS_TOKEN: token})
    _, said = process.communicate(timeout=180)
    assert process.returncode == EXIT_CONFIG, said
    assert (tmp_path / "models.log").read_text() == said
    assert said.startswith(f"ConfigInvalid: the variable {Env.MODELS_TOKEN} holds more than a key")
    assert "secret" not in said


def test_a_disk_that_fills_up_is_said_and_what_came_is_kept(tmp_path: Path) -> None:
    hub = Hub(models(large=3_000_000))
    target = tmp_path / "models"
    # The kernel lets no file grow beyond this, as a quota that is used up does.
    process = start(target, hugging_face(hub), under=("prlimit", "--fsize=1000000"))
    _, said = process.communicate(timeout=180)
    assert process.returncode == EXIT_CONFIG, said
    assert (tmp_path / "models.log").read_text().startswith("VolumeFull: ")
    assert "models.cache.size" in said
    assert "Step-Audio-Chat/model-00001.safetensors" not in content(target)

    again = start(target, hugging_face(hub))
    _, said = again.communicate(timeout=180)
    hub.close()
    assert again.returncode == 0, said
    assert content(target) == folders(hub.files)


def test_a_volume_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    hub = Hub(models())
    words = tmp_path / "words"
    # Nobody makes folders among the kernel's own, root neither.
    process = start(Path("/sys/models"), hugging_face(hub), **{ENV_TERMINATION_LOG: str(words)})
    _, said = process.communicate(timeout=180)
    hub.close()
    assert process.returncode == EXIT_CONFIG, said
    assert words.read_text().startswith("VolumeNotWritable: /sys/models")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nonsense", "no JSON"),
        ("{}", "exactly one of huggingFace, modelScope and s3"),
        ('{"s3": {}}', "s3.bucket"),
        ('{"s3": {"bucket": "b", "endpoint": "::::"}}', "s3.endpoint"),
        ('{"huggingFace": {"endpoint": "http://[x"}}', "huggingFace.endpoint"),
        ('{"modelScope": {"endpoint": "hub.local"}}', "modelScope.endpoint"),
        ('{"huggingFace": {"revisions": {"gateway2": "x"}}}', "huggingFace.revisions.gateway2"),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, source: str, words: str) -> None:
    process = start(tmp_path / "models", {}, "--source", source)
    _, said = process.communicate(timeout=180)
    assert process.returncode == EXIT_CONFIG
    assert said.startswith("ConfigInvalid: ")
    assert words in said


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(endpoint, folder) of a local S3 server."""

    class Handler(localbucket.S3Handler):
        data_root = tmp_path / "buckets"

        def log_message(self, *args: object) -> None:
            pass

    place = Handler.data_root / "speech" / "v1"
    place.mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", place
    server.shutdown()
    server.server_close()


def test_a_bucket_is_fetched_and_its_sums_are_obeyed(tmp_path: Path, bucket: tuple[str, Path]) -> None:
    import hashlib

    endpoint, place = bucket
    wanted = {path: body for path, body in folders(models()).items() if body}
    for path, body in wanted.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(body)
    sums = "".join(f"{hashlib.sha256(body).hexdigest()}  {path}\n" for path, body in wanted.items())
    (place / "SHA256SUMS").write_text(sums)
    source: dict[str, object] = {"s3": {"bucket": "speech", "prefix": "v1", "endpoint": endpoint}}
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}

    process = start(tmp_path / "models", source, **keys)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert content(tmp_path / "models") == wanted

    (place / "SHA256SUMS").write_text(sums.replace(sums[:8], "00000000"))
    process = start(tmp_path / "other", source, **keys)
    _, said = process.communicate(timeout=180)
    assert process.returncode == EXIT_UNAVAILABLE, said
    assert "ChecksumMismatch: " in said

    missing: dict[str, object] = {"s3": {"bucket": "nobody", "endpoint": endpoint}}
    process = start(tmp_path / "third", missing, **keys)
    _, said = process.communicate(timeout=180)
    assert process.returncode == EXIT_CONFIG, said
    assert "SourceNotFound: " in said


def _status(port: int, good: object, within_s: float = 120.0) -> dict[str, object]:
    deadline, last = time.monotonic() + within_s, None
    while time.monotonic() < deadline:
        try:
            last = httpx.get(f"http://127.0.0.1:{port}/status").json()
            if good(last):  # type: ignore[operator]
                return last
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"never so: {last}")
