"""Weights as the training's stages leave them: read, widened, and put into the published shapes.

They are safetensors of half precision, one file a stage (`stepaudio train`). Code books are stored without
the entries that are never used.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from stepaudio_runtime.checkpoints.nano_decoder import NanoDecoder
from stepaudio_runtime.checkpoints.nano_tokenizers import (
    CENTROIDS,
    SEMANTIC,
    NanoTokenizers,
    with_recogniser,
)
from stepaudio_runtime.checkpoints.nano_voices import NanoVoice
from stepaudio_runtime.checkpoints.presence import not_a, require

LINGUISTIC, SEMANTIC_FILE, SPEAKER, FLOW, HIFT, TTS, CHAT, VOICES = (
    f"{name}.safetensors"
    for name in ("linguistic", "semantic", "speaker", "flow", "vocoder", "tts", "chat", "voices")
)
CODEBOOK = "quantizer._codebook.embed"
POSITIONS = "encoder.positional_embedding"
FAR = 1e3
"""Distance of a code book's unused entries: never the nearest to rows whose values are near 1."""


def read_stage(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (floating point ones as float32) and words of a stage's file. Raises ModelFileError."""
    require(path)
    try:
        with safe_open(path, framework="pt") as held:
            words = held.metadata() or {}
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # safetensors' own error derives from Exception alone
        raise not_a(path, "whole safetensors file", error) from error
    return {
        name: value.float() if value.is_floating_point() else value for name, value in tensors.items()
    }, words


def trained_tokenizers(folder: Path) -> NanoTokenizers:
    """Both tokenizers."""
    linguistic, _ = read_stage(folder / LINGUISTIC)
    semantic, _ = read_stage(folder / SEMANTIC_FILE)
    semantic[CODEBOOK] = _filled_up(semantic[CODEBOOK], SEMANTIC.n_codebook_size)
    # No positions at nano size: a sound has the same code wherever it stands.
    semantic[POSITIONS] = torch.zeros(SEMANTIC.n_audio_ctx, SEMANTIC.n_audio_state)
    encoder = {key: value for key, value in linguistic.items() if key.startswith("encoder.")}
    return NanoTokenizers(
        paraformer=with_recogniser(encoder),
        shift=linguistic["shift"].numpy(),
        scale=linguistic["scale"].numpy(),
        centroids=_filled_up(linguistic["centroids"], CENTROIDS).numpy(),
        semantic=semantic,
    )


def trained_decoder(folder: Path) -> NanoDecoder:
    """Flow, vocoder and the speaker's network."""
    speaker, _ = read_stage(folder / SPEAKER)
    return NanoDecoder(
        flow=read_stage(folder / FLOW)[0],
        hift=read_stage(folder / HIFT)[0],
        speaker={name: value.numpy() for name, value in speaker.items()},
    )


def trained_lm(path: Path) -> dict[str, Tensor]:
    """A language model's weights in the published precision."""
    return {name: value.bfloat16() for name, value in read_stage(path)[0].items()}


def trained_voices(folder: Path) -> dict[str, NanoVoice]:
    """The voices' recordings, in the order of the file's table."""
    tensors, words = read_stage(folder / VOICES)
    table: dict[str, str] = json.loads(words["transcripts"])
    return {
        name: NanoVoice(transcript, (tensors[name].float() / 32768).numpy())
        for name, transcript in table.items()
    }


def _filled_up(used: Tensor, entries: int) -> Tensor:
    rest = torch.zeros(entries - len(used), used.shape[1])
    rest[:, 0] = FAR
    return torch.cat((used, rest))
