"""Loads the `Step-Audio-Tokenizer` folder: the Paraformer encoder with its statistics and centroids, and the
semantic tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stepaudio_runtime.audio.frontend import Cmvn, parse_cmvn
from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.files import adopt, read_array, read_state, read_text
from stepaudio_runtime.checkpoints.plain_yaml import Section, read_yaml
from stepaudio_runtime.checkpoints.presence import CURE, not_a, require
from stepaudio_runtime.checkpoints.semantic_onnx import read_semantic_onnx
from stepaudio_runtime.contract import LINGUISTIC_CODES, SEMANTIC_CODES
from stepaudio_runtime.errors import ModelFileError
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel

_HEAD_WIDTH = 64  # of the semantic encoder, as in every Whisper model; no file says it


@dataclass(frozen=True, eq=False)
class SpeechTokenizers:
    """What both tokenizers are made of, on one device; `centroids` (1024, output_size)."""

    sanm: SanmModel
    cmvn: Cmvn
    centroids: Tensor
    semantic: SemanticModel


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer folder's files, all there and not empty, and their size in bytes."""

    files: tuple[Path, ...]
    bytes_total: int


def verify_tokenizers(folder: Path) -> TokenizerFiles:
    """That every file is there, in no time; what is in them is judged by `load_tokenizers`."""
    files = tuple(require(folder / name) for name in layout.TOKENIZER_FILES)
    return TokenizerFiles(files, sum(file.stat().st_size for file in files))


def load_tokenizers(folder: Path, device: torch.device | str = "cpu") -> SpeechTokenizers:
    """Everything in a `Step-Audio-Tokenizer` folder. Raises ModelFileError."""
    config_file = folder / layout.PARAFORMER_CONFIG
    config = sanm_settings(read_yaml(config_file))
    cmvn = _cmvn(folder / layout.PARAFORMER_CMVN)
    centroids = _centroids(folder / layout.CENTROIDS, config.output_size)
    weights = folder / layout.PARAFORMER_WEIGHTS
    # The file is a whole recogniser; its decoder and predictor have no part in the tokenizer.
    state = {key: value for key, value in read_state(weights).items() if key.startswith("encoder.")}
    with torch.device("meta"):
        sanm = SanmModel(config)
    adopt(sanm, state, weights, config_file)
    return SpeechTokenizers(
        sanm=sanm.to(device),
        cmvn=cmvn,
        centroids=centroids.to(device),
        semantic=load_semantic(folder / layout.SEMANTIC).to(device),
    )


def sanm_settings(top: Section) -> SanmConfig:
    """The encoder's sizes. Chunks are not read: the tokenizer runs with its own, whatever the file says."""
    if top.data.get("encoder") not in ("SANMEncoderChunkOpt", "SANMEncoder"):
        raise top.wrong("encoder", f"is {top.data.get('encoder')!r}, not SANMEncoderChunkOpt")
    encoder = top.section("encoder_conf")
    encoder.expect("input_layer", "pe_online", "pe")
    encoder.expect("normalize_before", True)
    encoder.expect("sanm_shfit", 0)
    if "frontend_conf" in top.data:
        frontend = top.section("frontend_conf")
        frontend.expect("fs", 16000)
        frontend.expect("n_mels", 80)
        frontend.expect("lfr_m", 7)
        frontend.expect("lfr_n", 6)
        frontend.expect("window", "hamming")
    config = SanmConfig(
        output_size=encoder.integer("output_size"),
        attention_heads=encoder.integer("attention_heads"),
        linear_units=encoder.integer("linear_units"),
        num_blocks=encoder.integer("num_blocks"),
        kernel_size=encoder.integer("kernel_size"),
    )
    if config.output_size % config.attention_heads:
        raise encoder.wrong("attention_heads", f"does not divide output_size {config.output_size}")
    return config


def load_semantic(path: Path) -> SemanticModel:
    """The semantic tokenizer; its sizes are those of its weights."""
    require(path)
    state = read_semantic_onnx(path)
    blocks = {key.split(".")[2] for key in state if key.startswith("encoder.blocks.")}
    try:
        width, mels, _ = state["encoder.conv1.weight"].shape
        positions, _ = state["encoder.positional_embedding"].shape
        codes, _ = state["quantizer._codebook.embed"].shape
        if width % _HEAD_WIDTH:
            raise ValueError(f"a width of {width} is no multiple of {_HEAD_WIDTH}")
        if codes != SEMANTIC_CODES:
            raise ValueError(f"{codes} codes instead of {SEMANTIC_CODES}")
    except ValueError as error:
        raise ModelFileError("ModelShapeMismatch", file=path, what=str(error), cure=CURE) from error
    config = SemanticConfig(
        n_mels=mels,
        n_audio_ctx=positions,
        n_audio_state=width,
        n_audio_head=width // _HEAD_WIDTH,
        n_audio_layer=len(blocks),
        n_codebook_size=codes,
    )
    with torch.device("meta"):
        semantic = SemanticModel(config)
    return adopt(semantic, state, path)


def _cmvn(path: Path) -> Cmvn:
    try:
        return parse_cmvn(read_text(path))
    except ValueError as error:
        raise not_a(path, "whole table of mean and variance", error) from error


def _centroids(path: Path, width: int) -> Tensor:
    centroids = read_array(path)
    if centroids.shape != (LINGUISTIC_CODES, width):
        what = f"shape {list(centroids.shape)}, not [{LINGUISTIC_CODES}, {width}]"
        raise ModelFileError("ModelShapeMismatch", file=path, what=what, cure=CURE)
    return torch.from_numpy(centroids)
