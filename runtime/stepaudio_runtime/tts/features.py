"""What the models need of a created voice, as bytes for the voice store; and which models it fits.

An `.npz` of `codes` (n,) int32, `mel` (1, frames, 80) and `embedding` (1, 192) float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from stepaudio_runtime.contract import AUDIO_CODES
from stepaudio_runtime.tts.decoder import Prompt

LAYOUT = 1
"""Raised where the same wave gives other features, or they are stored in another way."""
_ENDS = 1 << 20  # bytes of each file's begin and end that are looked at
_BANDS, _EMBEDDING = 80, 192


def dump(prompt: Prompt) -> bytes:
    """`prompt` as bytes."""
    out = BytesIO()
    np.savez(
        out,
        codes=np.array(prompt.codes, np.int32),
        mel=prompt.mel.cpu().numpy(),
        embedding=prompt.embedding.cpu().numpy(),
    )
    return out.getvalue()


def parse(data: bytes) -> Prompt:
    """What `dump` wrote. Raises ValueError for anything else."""
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            codes, mel, embedding = arrays["codes"], arrays["mel"], arrays["embedding"]
    except (BadZipFile, KeyError, OSError, EOFError) as error:
        raise ValueError(f"not a voice's features: {error}") from error
    fits = (
        codes.ndim == 1
        and codes.dtype == np.int32
        and len(codes) > 0
        and codes.min() >= 0
        and codes.max() < AUDIO_CODES
        and mel.ndim == 3
        and mel.shape[::2] == (1, _BANDS)
        and embedding.shape == (1, _EMBEDDING)
        and mel.dtype == embedding.dtype == np.float32
    )
    if not fits:
        raise ValueError("a voice's features have other shapes than they should")
    return Prompt(tuple(codes.tolist()), torch.from_numpy(mel), torch.from_numpy(embedding))


def models_revision(files: Iterable[Path]) -> str:
    """16 hex digits that tell the models in `files` from others: by sizes, and both ends of each file.

    Reading gigabytes for it would make every start slower; weights that differ, differ there too.
    """
    digest = hashlib.sha256(f"layout {LAYOUT}".encode())
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"\n{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_ENDS))
            if size > _ENDS:
                opened.seek(max(_ENDS, size - _ENDS))
                digest.update(opened.read())
    return digest.hexdigest()[:16]
