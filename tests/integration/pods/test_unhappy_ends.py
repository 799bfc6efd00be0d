"""How pods end: drained on SIGTERM, without children on SIGKILL, with a reason if something fails."""

import shutil
import signal

import psutil
import pytest

pytestmark = pytest.mark.vllm


def test_a_pod_on_sigterm_finishes_its_stream_and_ends_with_0(pods):
    pod = pods["chat"]
    info = pod.http.get("/stepaudio/model").json()
    body = {
        "model": info["model"],
        "prompt": [1, 4, 60],
        "max_tokens": 300,
        "stream": True,
        "ignore_eos": True,
    }
    children = pod.descendants()
    with pod.http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        pod.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert pod.process.wait(60) == 0
    assert not pod.words.exists(), "an orderly end leaves no last words"
    assert_gone(children)


def test_a_pod_whose_engine_dies_says_so_and_ends(pods):
    pod = pods["tts"]
    children = pod.descendants()
    next(child for child in children if is_engine(child)).kill()
    assert pod.process.wait(60) == 1
    assert pod.words.read_text().startswith("EngineFailed: vLLM")
    assert_gone(children)


@pytest.mark.parametrize("component", ["chat", "tts"])
def test_a_pod_killed_while_loading_leaves_no_process(models, new_pod, component):
    pod = new_pod(component, models)
    pod.wait_until("engine process", lambda: any(is_engine(child) for child in pod.descendants()))
    children = pod.descendants()
    pod.process.kill()
    pod.process.wait()
    assert_gone(children)


@pytest.mark.parametrize(
    ("component", "file", "fault"),
    [
        ("chat", "Step-Audio-Chat/model.safetensors", "missing"),
        ("tts", "Step-Audio-TTS-3B/CosyVoice-300M-25Hz/flow.pt", "truncated"),
        ("tokenizer", "Step-Audio-Tokenizer/speech_tokenizer_v1.onnx", "truncated"),
    ],
)
def test_a_bad_model_folder_ends_the_pod_with_78_and_the_file(
    models, new_pod, tmp_path, component, file, fault
):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    if fault == "missing":
        (folder / file).unlink()
    else:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
    pod = new_pod(component, folder)
    assert pod.process.wait(120) == 78, pod.tail()
    line = pod.words.read_text()
    assert line.startswith(f"ModelFile{fault.capitalize()}: ")
    assert file in line
    assert line.count("\n") == 1
    assert line in pod.log.read_text()


def is_engine(process: psutil.Process) -> bool:
    """Whether it is vLLM's engine core, by its title, or before it has one, a process of multiprocessing."""
    try:
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return "EngineCore" in command or "multiprocessing.spawn" in command


def assert_gone(processes: list[psutil.Process]) -> None:
    _gone, alive = psutil.wait_procs(processes, timeout=30)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
