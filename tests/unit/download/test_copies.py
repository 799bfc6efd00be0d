"""A folder that another process fills: `await` ends when it is whole and not before, `remove` leaves nothing.

Real processes on one disk, as on a node; the hub is a server on loopback.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from stepaudio_runtime.contract import EXIT_UNAVAILABLE
from stepaudio_runtime.download.copies import await_whole, is_whole, mark_whole, remove
from tests.unit.download.hub import Fault, Hub, models
from tests.unit.download.test_job import COMMAND, hugging_face, start

STEPAUDIO = COMMAND[:2]


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit status, within a minute."""
    process.communicate(timeout=60)
    return process.returncode


def test_whoever_waits_goes_on_when_the_last_file_is_there(tmp_path: Path) -> None:
    hub = Hub(models())
    held, folder = threading.Event(), tmp_path / "models-1"

    def hold(path: str) -> Fault:
        held.wait(60)
        return None

    hub.faults = hold
    fetching = start(folder, hugging_face(hub))
    waiting = subprocess.Popen([*STEPAUDIO, "await", str(folder)], stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    assert "is being filled by another pod" in waiting.stderr.readline()
    assert waiting.poll() is None
    held.set()
    assert ended(fetching) == 0
    assert ended(waiting) == 0
    hub.close()
    # Whoever comes later finds it whole.
    assert subprocess.run([*STEPAUDIO, "await", str(folder)], timeout=30, check=False).returncode == 0


def test_a_download_that_was_ended_leaves_no_whole_folder_and_whoever_waits_can_be_ended(
    tmp_path: Path,
) -> None:
    hub = Hub(models())
    folder, asked = tmp_path / "models-1", threading.Event()

    def hold(path: str) -> Fault:
        asked.set()
        time.sleep(0.2)
        return None

    hub.faults = hold
    fetching = start(folder, hugging_face(hub))
    assert asked.wait(30)
    fetching.send_signal(signal.SIGTERM)
    assert ended(fetching) == EXIT_UNAVAILABLE
    assert not is_whole(folder)
    waiting = subprocess.Popen([*STEPAUDIO, "await", str(folder)], stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    waiting.stderr.readline()
    waiting.send_signal(signal.SIGTERM)
    assert ended(waiting) == EXIT_UNAVAILABLE
    hub.close()


def test_waiting_looks_every_second_and_tells_of_it_twice_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now, looks = [0.0], [0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        looks[0] += 1
        if looks[0] == 65:
            mark_whole(tmp_path)

    await_whole(tmp_path, lambda: now[0], sleep)
    assert (now[0], looks[0]) == (65.0, 65)
    assert ["being filled" in line for line in caplog.messages] == [True, True, True, False]


def test_what_is_removed_is_gone_at_once_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "models-1"
    mark_whole(folder)
    (folder / "Step-Audio-Chat").mkdir()
    (folder / "Step-Audio-Chat" / "a.safetensors").write_bytes(b"1")
    left = tmp_path / ".models-1.going"  # of a removal that was killed
    left.mkdir()
    (left / "b").write_bytes(b"2")
    remove(folder)
    assert list(tmp_path.iterdir()) == []
    remove(folder)  # again, for nobody knows whether the last run came to its end
    assert list(tmp_path.iterdir()) == []
