"""The speech stack: `python -m tests.bench.bench_speech [--parts flow,batch,...] [--models DIR]`.

Published sizes with random weights, against a plain path in the same run (`speech/plain.py`), rounds
interleaved; every part is a process of its own, whose peak memory is noted. Quality and first audio run on a
model folder (by default a new nano one). Writes docs/benchmarks/speech.json, the section of
docs/benchmarks.md and its plots. Parts that are not run keep their last figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.speech import report

ROUNDS = 3
QUICK_ROUNDS = 7  # of what takes seconds


def flow(_models: Path) -> dict[str, Any]:
    """10 s of flow and vocoder."""
    from tests.bench.speech.decoding import flow_and_vocoder

    return flow_and_vocoder(ROUNDS)


def batch(_models: Path) -> dict[str, Any]:
    """Four utterances together."""
    from tests.bench.speech.decoding import batch

    return batch(ROUNDS)


def streaming(_models: Path) -> dict[str, Any]:
    """10 s in hops."""
    from tests.bench.speech.decoding import streaming

    return streaming(ROUNDS)


def vocoder(_models: Path) -> dict[str, Any]:
    """10 s of wave in pieces."""
    from tests.bench.speech.decoding import vocoder_in_pieces

    return vocoder_in_pieces(QUICK_ROUNDS)


def linguistic(_models: Path) -> dict[str, Any]:
    """10 s to linguistic ids."""
    from tests.bench.speech.tokenizing import offline

    return offline(ROUNDS)


def streams(_models: Path) -> dict[str, Any]:
    """Eight token streams."""
    from tests.bench.speech.tokenizing import streams

    return streams(QUICK_ROUNDS)


def tokens(_models: Path) -> dict[str, Any]:
    """10 s to both code books."""
    from tests.bench.speech.tokenizing import both

    return both(ROUNDS)


def hops(models: Path) -> dict[str, Any]:
    """Distance of hops to offline."""
    from tests.bench.speech.quality import hops

    return hops(models)


def windows(models: Path) -> dict[str, Any]:
    """Windowed ids against whole ones."""
    from tests.bench.speech.quality import windows

    return windows(models)


def first_audio(models: Path) -> dict[str, Any]:
    """First audio through the gateway."""
    from tests.bench.speech.first_audio import first_audio

    with tempfile.TemporaryDirectory() as folder:
        return first_audio(models, Path(folder))


PARTS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    part.__name__: part
    for part in (flow, batch, streaming, vocoder, linguistic, streams, tokens, hops, windows, first_audio)
}
ON_A_MODEL = {"hops", "windows", "first_audio"}


def main() -> None:
    """One part in this process, or all of them in one each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument("--models", type=Path, help="a model folder; default: a new nano one")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(PARTS[chosen.one](chosen.models)))
        return
    found = report.read()
    found["machine"] = _machine()
    with tempfile.TemporaryDirectory() as folder:
        models = chosen.models or Path(folder)
        wanted = chosen.parts.split(",")
        if chosen.models is None and ON_A_MODEL & set(wanted):
            from stepaudio_runtime.checkpoints.nano import generate_nano

            generate_nano(models)
        for name in wanted:
            found[name] = {**alone(name, models), "load_average": os.getloadavg()[0]}
            print(
                f"{name}: {json.dumps({k: v for k, v in found[name].items() if k != 'rounds'})}", flush=True
            )
            report.write(found)


def alone(part: str, models: Path) -> dict[str, Any]:
    """A part in a process of its own, and that process's peak memory in MiB."""
    command = [sys.executable, "-m", "tests.bench.bench_speech", "--one", part, "--models", str(models)]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{part} ended with {process.returncode}")
        out.seek(0)
        answer: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    return {**answer, "peak_mib": round(usage.ru_maxrss / 1024)}


def _machine() -> dict[str, Any]:
    from tests.bench.speech.machine import about

    return about()


if __name__ == "__main__":
    main()
