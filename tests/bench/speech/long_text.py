"""A text of ten minutes through a TTS pod: `python -m tests.bench.speech.long_text MODELS [--sentences 460]`.

MODELS is a folder of `stepaudio nano`. Prints a line a minute of audio as it comes: level, memory of the
pod's processes, seconds taken; then the whole, beside what the sentences take alone: nothing may be left out.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.integration.pods.conftest import Pods

RATE = 22_050
MINUTE = 2 * RATE * 60  # bytes
SENTENCES = (
    "The kitchen light is on.",
    "The bedroom lamp is off.",
    "Seven plus eight is fifteen.",
    "The timer is set for ten minutes.",
    "Please say three nine five.",
    "It is half past two.",
    "The office fan is on.",
    "The garage light is off.",
)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--sentences", type=int, default=460)
    chosen = parser.parse_args()
    said = random.Random(3).choices(SENTENCES, k=chosen.sentences)
    with tempfile.TemporaryDirectory() as folder:
        pods = Pods(chosen.models, Path(folder))
        try:
            pod = pods.start("tts", STEPAUDIO_MAX_INPUT_CHARS="100000").wait_ready()
            with httpx.Client(base_url=pod.url, timeout=900) as client:
                alone = {sentence: len(speak(client, sentence)) for sentence in SENTENCES}
                together(client, psutil.Process(pod.process.pid), said, alone)
        finally:
            pods.end()


def speak(client: httpx.Client, text: str) -> bytes:
    """Samples of 16 bits."""
    return client.post("/v1/speech", json=body(text)).raise_for_status().content


def body(text: str) -> dict[str, object]:
    return {"input": text, "voice": "Treble", "seed": 1}


def together(client: httpx.Client, pod: psutil.Process, said: list[str], alone: dict[str, int]) -> None:
    """All of them in one request."""
    started, first, sound, minutes = time.monotonic(), 0.0, bytearray(), 0
    with client.stream("POST", "/v1/speech", json=body(" ".join(said))) as answer:
        answer.raise_for_status()
        for piece in answer.iter_raw():
            first = first or time.monotonic() - started
            sound += piece
            while len(sound) >= MINUTE * (minutes + 1):
                wave = np.frombuffer(bytes(sound[MINUTE * minutes : MINUTE * (minutes + 1)]), "<i2") / 32768
                minutes += 1
                level = 20 * np.log10(np.sqrt(np.square(wave).mean()))
                mib = sum(each.memory_info().rss for each in (pod, *pod.children(recursive=True))) / 2**20
                print(f"{minutes} min: {level:.1f} dB, {mib:,.0f} MiB, {time.monotonic() - started:.0f} s")
    took, seconds = time.monotonic() - started, len(sound) / 2 / RATE
    apart = sum(alone[sentence] for sentence in said) / 2 / RATE
    print(
        f"{seconds:.1f} s of audio in {took:.1f} s ({took / seconds:.3f}), the first after {first:.2f} s; "
        f"its {len(said)} sentences alone have {apart:.1f} s"
    )


if __name__ == "__main__":
    main()
