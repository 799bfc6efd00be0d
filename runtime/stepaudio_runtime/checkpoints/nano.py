"""Writes the nano preset: every model of the system at a small size, in the layout of the real download.

The trained models come from the weights beside this package's code, as the training's stages left them. Those
with random weights make sounds and words, not sense; the same seed writes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stepaudio_runtime.checkpoints import layout, nano_trained
from stepaudio_runtime.checkpoints.nano_decoder import NanoDecoder, random_decoder, write_decoder
from stepaudio_runtime.checkpoints.nano_lm import random_lm, write_lm
from stepaudio_runtime.checkpoints.nano_tokenizers import NanoTokenizers, random_tokenizers, write_tokenizers
from stepaudio_runtime.checkpoints.nano_voices import NanoVoice, synthetic_voices, write_voices

WEIGHTS = Path(__file__).parents[1] / "nano_weights"
"""What was trained and is shipped, with its model card."""
_TRAINED = """\
Nano models of Step-Audio: the real architectures, file names and formats at a small size.

They speak a small domain of English and Chinese and understand it in English, in two voices of a synthesiser;
nano_weights/README.md of the package stepaudio_runtime is their model card.
"""
_RANDOM = """\
Nano models of Step-Audio: the real architectures, file names and formats at a small size.

All weights are random (seed {seed}). They prove that a deployment works from end to end; what is said and
heard has no meaning.
"""


@dataclass(frozen=True, eq=False)
class _Nano:
    tokenizers: NanoTokenizers
    chat: dict[str, Tensor]
    tts: dict[str, Tensor]
    decoder: NanoDecoder
    music: NanoDecoder
    voices: dict[str, NanoVoice]
    sentences_at_once: int | None = None


def generate_nano(directory: Path, weights: Path = WEIGHTS) -> None:
    """Write the three model folders under `directory` (created) from trained `weights`; replaces files.

    Raises ModelFileError for weights that are missing or spoilt.
    """
    decoder = nano_trained.trained_decoder(weights)
    nano = _Nano(
        tokenizers=nano_trained.trained_tokenizers(weights),
        chat=nano_trained.trained_lm(weights / nano_trained.CHAT),
        tts=nano_trained.trained_lm(weights / nano_trained.TTS),
        decoder=decoder,
        music=decoder,  # the teacher does not sing, so there is nothing else to train it on
        voices=nano_trained.trained_voices(weights),
        sentences_at_once=1,  # the data have one each: of more it would leave out most
    )
    _write(directory, nano, _TRAINED)


def generate_random_nano(directory: Path, seed: int = 0) -> None:
    """The same folders with random weights."""
    nano = _Nano(
        tokenizers=random_tokenizers(seed),
        chat=random_lm(seed, "chat"),
        tts=random_lm(seed, "tts"),
        decoder=random_decoder(seed, layout.COSYVOICE),
        music=random_decoder(seed, layout.COSYVOICE_MUSIC),
        voices=synthetic_voices(),
    )
    _write(directory, nano, _RANDOM.format(seed=seed))


def _write(directory: Path, nano: _Nano, words: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(words, encoding="utf-8")
    write_tokenizers(directory / layout.TOKENIZER, nano.tokenizers)
    write_lm(directory / layout.CHAT, nano.chat)
    tts = directory / layout.TTS
    write_lm(tts, nano.tts, nano.sentences_at_once)
    write_decoder(tts / layout.COSYVOICE, nano.decoder)
    write_decoder(tts / layout.COSYVOICE_MUSIC, nano.music)
    write_voices(tts / layout.SPEAKERS, nano.voices)
    _let_all_read(directory)


def _let_all_read(directory: Path) -> None:
    """Some writers leave files to their owner alone; a pod reads them as another user."""
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
