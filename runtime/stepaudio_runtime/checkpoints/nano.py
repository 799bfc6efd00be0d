"""Writes the nano preset: every model of the system at a small size, in the layout of the real download.

The weights are random, so the models make sounds and words, not sense. The same seed writes the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.nano_decoder import random_decoder, write_decoder
from stepaudio_runtime.checkpoints.nano_lm import random_lm, write_lm
from stepaudio_runtime.checkpoints.nano_tokenizers import random_tokenizers, write_tokenizers
from stepaudio_runtime.checkpoints.nano_voices import synthetic_voices, write_voices

_RANDOM = """\
Nano models of Step-Audio: the real architectures, file names and formats at a small size.

All weights are random (seed {seed}). They prove that a deployment works from end to end; what is said and
heard has no meaning.
"""


def generate_nano(directory: Path, seed: int = 0) -> None:
    """Write the three model folders under `directory` (created), about 45 MB; files there are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(_RANDOM.format(seed=seed), encoding="utf-8")
    write_tokenizers(directory / layout.TOKENIZER, random_tokenizers(seed))
    write_lm(directory / layout.CHAT, random_lm(seed, "chat"))
    tts = directory / layout.TTS
    write_lm(tts, random_lm(seed, "tts"))
    for name in (layout.COSYVOICE, layout.COSYVOICE_MUSIC):
        write_decoder(tts / name, random_decoder(seed, name))
    write_voices(tts / layout.SPEAKERS, synthetic_voices())
    _let_all_read(directory)


def _let_all_read(directory: Path) -> None:
    """Some writers leave files to their owner alone; a pod reads them as another user."""
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
