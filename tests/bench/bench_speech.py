"""The speech stack: `python -m tests.bench.bench_speech [--parts flow,batch,...] [--models DIR]`.

Published sizes with random weights, against a plain path in the same run (`speech/plain.py`), in turn, on an
idle machine or with `--threads 1` (see `speech/timing.py`); every part is a process of its own, whose peak
memory is noted. Quality and first audio run on a model folder (by default a new nano one). Writes
docs/benchmarks/speech.json, the section of docs/benchmarks.md and its plots. Parts not run keep their last
figures.
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


def flow(_models: Path, rounds: int) -> dict[str, Any]:
    """10 s of flow and vocoder."""
    from tests.bench.speech.decoding import flow_and_vocoder

    return flow_and_vocoder(rounds)


def batch(_models: Path, rounds: int) -> dict[str, Any]:
    """Four utterances together."""
    from tests.bench.speech.decoding import batch

    return batch(rounds)


def streaming(_models: Path, rounds: int) -> dict[str, Any]:
    """10 s in hops."""
    from tests.bench.speech.decoding import streaming

    return streaming(rounds)


def vocoder(_models: Path, rounds: int) -> dict[str, Any]:
    """10 s of wave in pieces."""
    from tests.bench.speech.decoding import vocoder_in_pieces

    return vocoder_in_pieces(2 * rounds)


def linguistic(_models: Path, rounds: int) -> dict[str, Any]:
    """10 s to linguistic ids."""
    from tests.bench.speech.tokenizing import offline

    return offline(rounds)


def streams(_models: Path, rounds: int) -> dict[str, Any]:
    """Eight token streams."""
    from tests.bench.speech.tokenizing import streams

    return streams(2 * rounds)


def tokens(_models: Path, rounds: int) -> dict[str, Any]:
    """10 s to both code books."""
    from tests.bench.speech.tokenizing import both

    return both(rounds)


def hops(models: Path, _rounds: int) -> dict[str, Any]:
    """Distance of hops to offline."""
    from tests.bench.speech.quality import hops

    return hops(models)


def windows(models: Path, _rounds: int) -> dict[str, Any]:
    """Windowed ids against whole ones."""
    from tests.bench.speech.quality import windows

    return windows(models)


def first_audio(models: Path, _rounds: int) -> dict[str, Any]:
    """First audio through the gateway."""
    from tests.bench.speech.first_audio import first_audio

    with tempfile.TemporaryDirectory() as folder:
        return first_audio(models, Path(folder))


def soak(models: Path, _rounds: int) -> dict[str, Any]:
    """Two hundred mixed requests."""
    from tests.bench.speech.soak import soak

    with tempfile.TemporaryDirectory() as folder:
        return soak(models, Path(folder))


PARTS: Mapping[str, Callable[[Path, int], dict[str, Any]]] = {
    part.__name__: part
    for part in (
        flow,
        batch,
        streaming,
        vocoder,
        linguistic,
        streams,
        tokens,
        hops,
        windows,
        first_audio,
        soak,
    )
}
ON_A_MODEL = {"hops", "windows", "first_audio", "soak"}


def main() -> None:
    """One part in this process, or all of them in one each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument("--models", type=Path, help="a model folder; default: a new nano one")
    parser.add_argument("--rounds", type=int, default=3, help="of what takes minutes; seconds: twice as many")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default: the cores)")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        import torch

        torch.set_num_threads(chosen.threads)
        print(json.dumps(PARTS[chosen.one](chosen.models, chosen.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        models = chosen.models or Path(folder)
        wanted = chosen.parts.split(",")
        if chosen.models is None and ON_A_MODEL & set(wanted):
            from stepaudio_runtime.checkpoints.nano import generate_nano

            generate_nano(models)
        for name in wanted:
            machine, load = _machine(), os.getloadavg()[0]
            run = alone(name, models, rounds=chosen.rounds, threads=chosen.threads)
            found = {**report.read(), "machine": machine}
            found[name] = {**run, "threads": chosen.threads, "load_average": load}
            if name in ON_A_MODEL:
                found[name]["models"] = "nano" if chosen.models is None else chosen.models.name
            print(
                f"{name}: {json.dumps({k: v for k, v in found[name].items() if k != 'rounds'})}", flush=True
            )
            report.write(found)


def alone(part: str, models: Path, **options: int) -> dict[str, Any]:
    """A part in a process of its own, and that process's peak memory in MiB."""
    command = [sys.executable, "-m", "tests.bench.bench_speech", "--one", part, "--models", str(models)]
    command += [f"--{name}={value}" for name, value in options.items()]
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
