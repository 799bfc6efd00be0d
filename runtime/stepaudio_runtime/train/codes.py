"""The corpus as codes: what the flow and the language model train on, made once by the trained tokenizers.

Sampling forbids an id to come a third time close by (`codec.repetition`). A model trained on codes that do so
would be pushed off its way just there, so each code comes with its second nearest, and `lawful` uses it where
the nearest is forbidden: the model learns to say what it will be allowed to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stepaudio_runtime.audio.frontend import Cmvn, OnlineFrontend
from stepaudio_runtime.audio.mel import whisper_mel
from stepaudio_runtime.checkpoints import nano_trained as stored
from stepaudio_runtime.checkpoints.files import adopt
from stepaudio_runtime.checkpoints.nano_tokenizers import SANM, SEMANTIC
from stepaudio_runtime.checkpoints.speech_tokenizers import SpeechTokenizers
from stepaudio_runtime.codec.layout import interleave
from stepaudio_runtime.codec.repetition import repeats
from stepaudio_runtime.models.sanm import SanmModel
from stepaudio_runtime.models.semantic import SemanticModel


@dataclass(frozen=True, eq=False)
class Coded:
    """Codes of an utterance and, place by place, the second nearest ones; both (n,) in 0..5119."""

    codes: list[int]
    seconds: list[int]


class Coder:
    """Both tokenizers, answering with two codes a place. Waves are mono at 16 kHz, peak 0.999."""

    def __init__(self, models: SpeechTokenizers) -> None:
        self._models = models
        # Entries out of reach are most of the books: not looked at, they cost nothing.
        self._linguistic = _near(models.centroids)
        self._semantic = _near(models.semantic.quantizer._codebook.embed)

    @classmethod
    def from_weights(cls, folder: Path) -> Coder:
        """The tokenizers that the training wrote to `folder`. Raises ModelFileError."""
        held = stored.trained_tokenizers(folder)
        with torch.device("meta"):
            sanm, semantic = SanmModel(SANM), SemanticModel(SEMANTIC)
        encoder = {key: value for key, value in held.paraformer.items() if key.startswith("encoder.")}
        adopt(sanm, encoder, folder / stored.LINGUISTIC)
        adopt(semantic, held.semantic, folder / stored.SEMANTIC_FILE)
        return cls(
            SpeechTokenizers(sanm, Cmvn(held.shift, held.scale), torch.from_numpy(held.centroids), semantic)
        )

    @torch.inference_mode()
    def __call__(self, wave: NDArray[np.float32]) -> Coded:
        """Codes of a whole wave (N,)."""
        features = OnlineFrontend(self._models.cmvn).push(wave, last=True)
        rows = self._models.sanm.encode(torch.from_numpy(features))
        hidden = self._models.semantic(torch.from_numpy(whisper_mel(wave))[None])[0]
        linguistic = _two_nearest(rows, self._linguistic)
        semantic = _two_nearest(F.normalize(hidden, dim=-1), self._semantic)
        first, second = (interleave(linguistic[:, i].tolist(), semantic[:, i].tolist()) for i in (0, 1))
        return Coded(first, second)


def _near(book: Tensor) -> Tensor:
    """The entries up to the last one within reach; they come first."""
    return book[: int((book.abs().amax(dim=1) < 100).nonzero().max()) + 1]


def _two_nearest(rows: Tensor, book: Tensor) -> Tensor:
    ids: Tensor = torch.cdist(rows, book).topk(2, dim=1, largest=False).indices
    return ids


def lawful(coded: Coded, before: Sequence[int] = ()) -> list[int]:
    """Codes that the repetition rule allows after `before`: the second nearest where it forbids one."""
    said = list(before)
    for code, second in zip(coded.codes, coded.seconds, strict=True):
        forbidden = said and code == said[-1] and bool(repeats(np.array(said, np.int64)))
        said.append(second if forbidden else code)
    return said[len(before) :]


def save_codes(coded: list[Coded], path: Path) -> None:
    """All utterances' codes in one file, written whole or not at all."""
    lengths = np.array([len(each.codes) for each in coded])
    rows = np.array(
        [
            [code for each in coded for code in each.codes],
            [code for each in coded for code in each.seconds],
        ]
    )
    beside = path.with_name(path.name + ".part.npz")
    np.savez_compressed(beside, lengths=lengths, rows=rows.astype(np.int16))
    beside.replace(path)


def load_codes(path: Path) -> list[Coded]:
    """What `save_codes` wrote."""
    with np.load(path) as held:
        ends = np.cumsum(held["lengths"])
        rows = held["rows"].astype(np.int64)
    return [
        Coded(rows[0, end - n : end].tolist(), rows[1, end - n : end].tolist())
        for end, n in zip(ends.tolist(), (ends - np.concatenate([[0], ends[:-1]])).tolist(), strict=True)
    ]
