"""The `stepaudio` command as a user meets it: help at once and without torch, errors in one line."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from stepaudio_runtime.audio.watermark import Marker


def stepaudio(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepaudio_runtime.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve"],
        ["nano"],
        ["encode"],
        ["decode"],
        ["speak"],
        ["models"],
        ["models", "verify"],
        ["voices"],
        ["watermark"],
    ],
)
def test_every_command_explains_itself(arguments):
    answer = stepaudio(*arguments, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("usage: stepaudio")


def test_the_command_line_and_the_pods_health_need_no_torch():
    script = (
        "import sys\n"
        "from stepaudio_runtime import cli\n"
        "from stepaudio_runtime.health import answers, metrics, process, routes, state\n"
        "from stepaudio_runtime.pods import chat, serve\n"
        "print(sorted({'torch', 'vllm', 'transformers', 'onnxruntime'} & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["nonsense"], 2),
        (["speak", "hi"], 2),
        (["serve", "nonsense"], 2),
        (["models", "fetch", "/nonexistent", "--connections", "0"], 2),
        (["train", "flow", "--corpus", "a", "--weights", "b", "--work", "c", "--threads", "0"], 2),
        (["train", "flow", "--corpus", "a", "--weights", "b", "--work", "c", "--minutes", "0"], 2),
        (["data", "run", "-o", "/nonexistent"], 1),
        (["encode", "/nonexistent.wav", "--models", "/nonexistent"], 1),
    ],
)
def test_wrong_use_is_told_without_a_traceback(arguments, status):
    answer = stepaudio(*arguments)
    assert answer.returncode == status
    assert "Traceback" not in answer.stderr
    assert answer.stderr.strip()


def test_a_wrong_setting_ends_the_pod_with_78_and_one_line(tmp_path):
    words = tmp_path / "termination-log"
    env = {"STEPAUDIO_DRAIN_TIMEOUT_S": "soon", "STEPAUDIO_TERMINATION_LOG": str(words)}
    answer = stepaudio("serve", "chat", env=env)
    line = "ConfigInvalid: STEPAUDIO_DRAIN_TIMEOUT_S='soon' is not a number; correct it\n"
    assert (answer.returncode, answer.stderr, words.read_text()) == (78, line, line)


def test_a_file_is_searched_for_the_watermark(tmp_path):
    rate = 22_050
    times = np.arange(3 * rate) / rate
    wave = np.sum([np.sin(2 * np.pi * 110 * n * times**1.01) / n for n in range(1, 60)], axis=0) / 5
    marker = Marker(rate)
    marked = np.concatenate([marker.push(wave.astype(np.float32)), marker.finish()])
    for name, samples in (("plain", wave), ("marked", marked)):
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    answers = [
        stepaudio("watermark", "detect", str(tmp_path / f"{name}.wav")) for name in ("plain", "marked")
    ]
    assert [answer.returncode for answer in answers] == [3, 0]
    assert "no mark found (score" in answers[0].stdout
    assert "carries the mark of a cloned voice (score" in answers[1].stdout
    (tmp_path / "text.wav").write_text("no sound")
    answer = stepaudio("watermark", "detect", str(tmp_path / "text.wav"))
    assert answer.returncode not in (0, 3)
    assert answer.stderr.count("\n") == 1
