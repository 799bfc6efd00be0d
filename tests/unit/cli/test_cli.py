"""The `stepaudio` command as a user meets it: help at once and without torch, errors in one line."""

import subprocess
import sys

import pytest


def stepaudio(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepaudio_runtime.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve"], ["nano"], ["encode"], ["decode"], ["speak"], ["models"], ["models", "verify"]],
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
