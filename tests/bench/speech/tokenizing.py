"""The tokenizers at their published sizes: a file at once against by chunks, eight streams against one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stepaudio_runtime.tokenizer.dual import DualTokenizer
from tests.bench.speech import plain
from tests.bench.speech.models import new_linguistic, new_semantic
from tests.bench.speech.timing import interleaved

SECONDS = 10.0
RATE = 16_000
STREAMS = 8
STREAM_CHUNKS = 12


@torch.inference_mode()
def offline(rounds: int) -> dict[str, Any]:
    """10 s through the linguistic tokenizer, all windows at once and one by one: the same ids."""
    tokenizer = new_linguistic()
    features = tokenizer.features(sound(SECONDS))
    tensor = torch.from_numpy(features)
    rows: dict[str, torch.Tensor] = {}

    def at_once() -> None:
        rows["whole"] = tokenizer.model.encode(tensor)

    def chunks() -> None:
        rows["chunks"] = plain.chunk_by_chunk(tokenizer.model, tensor)

    times = interleaved({"chunks": chunks, "whole": at_once}, rounds)
    return {
        "rounds": times.as_json(),
        "chunks_s": times["chunks"],
        "whole_s": times["whole"],
        "faster": times.ratio("chunks", "whole"),
        "rows_max": float((rows["whole"] - rows["chunks"]).abs().max()),
        "seconds": SECONDS,
    }


@torch.inference_mode()
def streams(rounds: int) -> dict[str, Any]:
    """240 ms of eight streams in one step, against one stream's."""
    tokenizer = new_linguistic()
    config = tokenizer.model.config
    features = tokenizer.features(sound(SECONDS))[: config.chunk * STREAM_CHUNKS]
    chunks = np.split(features, STREAM_CHUNKS)

    def run(count: int) -> None:
        states = [tokenizer.model.start()] * count
        for chunk in chunks:
            states = [state for _, state in tokenizer.batch([(chunk, state) for state in states])]

    times = interleaved({"one": lambda: run(1), "eight": lambda: run(STREAMS)}, rounds)
    return {
        "rounds": times.as_json(),
        "one_chunk_s": times["one"] / STREAM_CHUNKS,
        "eight_chunks_s": times["eight"] / STREAM_CHUNKS,
        "over_one": times.ratio("eight", "one"),
    }


@torch.inference_mode()
def both(rounds: int) -> dict[str, Any]:
    """10 s to codes, both code books, as the pod does it; and the semantic one alone."""
    tokenizer = DualTokenizer(new_linguistic(), new_semantic())
    wave = sound(SECONDS)
    times = interleaved(
        {
            "codes": lambda: tokenizer.encode(wave, RATE),
            "semantic": lambda: tokenizer.semantic.batch([wave]),
        },
        rounds,
    )
    return {
        "rounds": times.as_json(),
        "codes_s": times["codes"],
        "semantic_s": times["semantic"],
        "factor": times["codes"] / SECONDS,
    }


def sound(seconds: float) -> NDArray[np.float32]:
    """Noise that comes and goes: (N,) at 16 kHz."""
    t = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.1 * noise * (1 + np.sin(2 * np.pi * 2 * t))).astype(np.float32)
