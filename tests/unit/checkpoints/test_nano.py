"""The nano preset is complete, small, the same every time, and its models make sound."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.campplus import SpeakerEncoder
from stepaudio_runtime.checkpoints.decoder import load_decoder
from stepaudio_runtime.checkpoints.lm import read_lm
from stepaudio_runtime.checkpoints.nano import generate_random_nano
from stepaudio_runtime.checkpoints.speech_tokenizers import load_tokenizers, verify_tokenizers
from stepaudio_runtime.checkpoints.voices import read_voices
from stepaudio_runtime.models.flow import FlowItem, noise_at


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_every_file_of_the_download_is_there(nano: Path) -> None:
    decoders = [
        f"{layout.TTS}/{folder}/{file}"
        for folder in ("CosyVoice-300M-25Hz", "CosyVoice-300M-25Hz-Music")
        for file in ("cosyvoice.yaml", "flow.pt", "hift.pt", "campplus.onnx")
    ]
    lms = [
        f"{folder}/{file}"
        for folder in ("Step-Audio-Chat", "Step-Audio-TTS-3B")
        for file in ("config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json")
    ]
    paraformer = "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"
    tokenizer = [
        f"Step-Audio-Tokenizer/{file}"
        for file in (
            "linguistic_tokenizer.npy",
            "speech_tokenizer_v1.onnx",
            *(f"{paraformer}/{file}" for file in ("model.pt", "am.mvn", "config.yaml")),
        )
    ]
    speakers = [
        f"{layout.TTS}/speakers/{file}" for file in ("speakers.json", "Treble_prompt.wav", "Bass_prompt.wav")
    ]
    assert sorted(digests(nano)) == sorted(["README.md", *decoders, *lms, *tokenizer, *speakers])


def test_the_same_bytes_again_and_others_for_another_seed(nano: Path, tmp_path: Path) -> None:
    generate_random_nano(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(nano)
    generate_random_nano(tmp_path / "other", seed=1)
    weights = ("flow.pt", "hift.pt", "model.pt", "model.safetensors", ".npy", ".onnx")
    first, other = digests(nano), digests(tmp_path / "other")
    for file in first:
        if file.endswith(weights):
            assert first[file] != other[file], file


def test_small_and_readable_by_every_user(nano: Path) -> None:
    files = [path for path in nano.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60_000_000
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_language_models(nano: Path) -> None:
    for name in (layout.CHAT, layout.TTS):
        lm = read_lm(nano / name)
        assert (lm.vocab_size, lm.audio_offset, lm.max_seq_len, lm.tied) == (8000, 2880, 4096, False)
        assert (lm.eot, lm.bot) == (3, 4)
        assert lm.bytes_total == (nano / name / "model.safetensors").stat().st_size


def test_tokenizers_give_rows_that_differ_over_time(nano: Path) -> None:
    folder = nano / layout.TOKENIZER
    parts = load_tokenizers(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        rows = parts.sanm.encode(torch.randn(9, 560, generator=generator))
        [hidden] = parts.semantic(torch.randn(1, 128, 40, generator=generator))
    for values, shape in ((rows, (9, 128)), (hidden, (10, 128))):
        assert values.shape == shape
        assert values.isfinite().all()
        assert values.flatten(0, -2).std(dim=0).min() > 1e-3
    assert parts.centroids.shape == (1024, 128)
    assert verify_tokenizers(folder).bytes_total == sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("folder", [layout.COSYVOICE, layout.COSYVOICE_MUSIC])
def test_decoder_is_audible_and_in_range(nano: Path, folder: str) -> None:
    models = load_decoder(nano / layout.TTS / folder)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 5120, (60,), generator=generator)
    prompt_mel = torch.randn(30, 80, generator=generator)
    item = FlowItem(ids, ids[:15], prompt_mel, torch.randn(192, generator=generator))
    with torch.inference_mode():
        noise = noise_at(models.flow.config, 0, -30, models.flow.frames(60), torch.device("cpu"))
        mel = models.flow.solve([item], [noise])[0][None]
        wave = models.hift(mel, models.hift.random(mel.shape[2], generator))
    assert wave.shape == (1, 256 * mel.shape[2])
    assert wave.isfinite().all()
    assert wave.abs().max() <= 0.99
    assert wave.std() > 0.01
    assert (wave.abs() == 0.99).float().mean() < 0.05


def test_speaker_embedding(nano: Path) -> None:
    encoder = SpeakerEncoder(nano / layout.TTS / layout.COSYVOICE / layout.CAMPPLUS, threads=2)
    rng = np.random.default_rng(0)
    one, other = (encoder(rng.standard_normal((n, 80)).astype(np.float32)) for n in (50, 333))
    assert one.shape == other.shape == (192,)
    assert one.dtype == np.float32
    assert np.abs(one - other).max() > 1e-2


def test_voices(nano: Path) -> None:
    voices = read_voices(nano / layout.TTS)
    assert [voice.name for voice in voices] == ["Treble", "Bass"]
    assert all(voice.transcript and voice.wav.is_file() for voice in voices)


@pytest.mark.parametrize(
    ("folder", "spoken", "mean_length"),
    [(layout.CHAT, slice(261, 2880), 24), (layout.TTS, slice(2880, 8000), 120)],
)
def test_language_models_speak_their_modality_and_end(
    nano: Path, folder: str, spoken: slice, mean_length: int
) -> None:
    """By a plain reading of the architecture; at temperature 0.7, as the services sample."""
    weights = {key: value.float() for key, value in load_file(nano / folder / "model.safetensors").items()}
    ids = torch.randint(5, 8000, (150,), generator=torch.Generator().manual_seed(0))
    logits = step1_logits(weights, ids)
    chances = (logits / 0.7).softmax(-1)
    end = chances[:, 3].mean()
    assert 0.5 / mean_length < end < 2 / mean_length
    assert chances[:, spoken].sum(-1).mean() + end > 0.999
    # Greedy decoding says something too.
    assert (logits.argmax(-1) == 3).float().mean() < 0.2


def step1_logits(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Logits (n, vocabulary) of a nano Step-1: 6 heads in 2 groups of 32, sqrt-ALiBi, no rotary positions."""
    n, heads, groups, width = len(ids), 6, 2, 32
    rows = torch.arange(n)
    distance = (rows[:, None] - rows).clamp(min=0).float().sqrt()
    slopes = 2.0 ** torch.tensor([-2.0, -4, -6, -8, -1, -3])
    bias = (-slopes[:, None, None] * distance).masked_fill(rows > rows[:, None], -torch.inf)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), weights[f"{name}.weight"], 1e-5)

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(4):
        p = f"model.layers.{layer}"
        h = norm(x, f"{p}.input_layernorm")
        q, k, v = (
            F.linear(h, weights[f"{p}.self_attn.{part}_proj.weight"]).view(n, -1, width).transpose(0, 1)
            for part in "qkv"
        )
        k, v = (part.repeat_interleave(heads // groups, dim=0) for part in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(0, 1).flatten(1)
        x = x + F.linear(attended, weights[f"{p}.self_attn.o_proj.weight"])
        h = norm(x, f"{p}.post_attention_layernorm")
        gate, up = (F.linear(h, weights[f"{p}.mlp.{part}_proj.weight"]) for part in ("gate", "up"))
        x = x + F.linear(F.silu(gate) * up, weights[f"{p}.mlp.down_proj.weight"])
    return F.linear(norm(x, "model.norm"), weights["lm_head.weight"])
