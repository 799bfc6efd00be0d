"""What processes that a library starts write is relayed, and kept for the last words; the descriptors are as
they were afterwards, and a process that lives on can go on writing.
"""

import os
import subprocess
import sys

import pytest

from stepaudio_runtime.errors import beginning
from stepaudio_runtime.service.last_lines import READ_BYTES, LastLines, overheard
from stepaudio_runtime.tts.speech_lm import cause_of


def test_lines_come_whole_however_they_are_cut():
    text = b"loading\r50%\r\n\nValueError: no such layer\nRuntimeError: failed. See root cause above.\nend"
    for size in (1, 7, len(text)):
        lines, shown = LastLines(), []
        for start in range(0, len(text), size):
            shown += lines.take(text[start : start + size])
        shown += lines.end()
        assert shown == [
            "loading",
            "50%",
            "ValueError: no such layer",
            "RuntimeError: failed. See root cause above.",
            "end",
        ]
        assert lines.last_error() == "ValueError: no such layer"


def test_a_long_error_is_shown_from_its_name_on():
    lines = LastLines()
    lines.take(b"(EngineCore pid=7) ERROR [core.py:1] ValueError: no room. " + b"Try less. " * 100 + b"\n")
    assert lines.last_error() == ("ValueError: no room. " + "Try less. " * 28).strip()
    lines.take(b"vllm invoked oom-killer: out of memory\n")
    assert lines.last_error() == "vllm invoked oom-killer: out of memory"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short of a file", "short of a file"),
        ("no room\n for 0.01 GiB", "no room for 0.01 GiB"),
        ("0.5 of 2.0 GiB are left. Try a shorter length.", "0.5 of 2.0 GiB are left."),
        ("a sentence that does not end in time.", "a sentence that does not ..."),
        ("x" * 40, "x" * 26 + " ..."),
    ],
)
def test_an_error_is_shortened_to_whole_sentences_or_words(text: str, shown: str):
    assert beginning(text, 30) == shown


def test_an_error_that_points_elsewhere_gives_way_to_what_was_heard():
    lines = LastLines()
    lines.take(b"ValueError: no room\n")
    assert cause_of(RuntimeError("it failed. See root cause above. {}"), lines) == "ValueError: no room"
    assert cause_of(OSError("no such file"), lines) == "OSError: no such file"


def files() -> list[tuple[int, int]]:
    """What the standard outputs are."""
    return [(status.st_dev, status.st_ino) for status in map(os.fstat, (1, 2))]


def test_a_library_s_process_is_heard(capfd):
    script = "import sys; print('MemoryError: it is full', file=sys.stderr); sys.exit(1)"
    before = files()
    with pytest.raises(subprocess.CalledProcessError), overheard() as lines:
        subprocess.run([sys.executable, "-c", script], check=True)
    assert lines.last_error() == "MemoryError: it is full"
    assert files() == before
    assert "MemoryError: it is full" in capfd.readouterr().err


def test_a_process_that_lives_on_is_heard_on_and_never_blocked(capfd):
    script = f"import sys; sys.stdin.read(); sys.stdout.write('x' * {9 * READ_BYTES} + '\\nlast')"
    with overheard() as lines:
        child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == 0
    while lines.last_error() != "last":  # its end is read by the relay's thread
        pass
    assert capfd.readouterr().err.endswith("last")
