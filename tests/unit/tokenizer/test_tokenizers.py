"""The tokenizers with random weights: streams equal whole waves, silence and scraps of audio are answered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.audio.frontend import Cmvn
from stepaudio_runtime.errors import AudioError
from stepaudio_runtime.models.nearest import nearest
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel, semantic_length
from stepaudio_runtime.tokenizer.dual import DualTokenizer
from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        norm = tensor.ndim == 1 and name.endswith("weight")
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + float(norm))
    return model


@pytest.fixture(scope="module")
def linguistic():
    sizes = {"output_size": 24, "attention_heads": 3, "linear_units": 32, "num_blocks": 3}
    model = randomised(SanmModel(SanmConfig(**sizes)), 1)
    cmvn = Cmvn(np.full(560, -8, np.float32), np.full(560, 0.1, np.float32))
    return LinguisticTokenizer(model, cmvn, torch.randn(64, 24, generator=torch.Generator().manual_seed(2)))


@pytest.fixture(scope="module")
def semantic():
    sizes = {"n_audio_state": 32, "n_audio_head": 4, "n_audio_layer": 2, "n_codebook_size": 50}
    return SemanticTokenizer(randomised(SemanticModel(SemanticConfig(**sizes)), 3))


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@given(
    sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=8),
    seed=st.integers(0, 1_000),
)
@settings(deadline=None, max_examples=20)
def test_a_stream_gives_the_ids_of_the_whole_wave_however_it_is_cut(linguistic, sizes, seed):
    wave = noise(sum(sizes), seed)
    session = linguistic.session()
    pieces = np.split(wave, np.cumsum(sizes)[:-1])
    found = [session.push(piece, last=piece is pieces[-1]) for piece in pieces]
    whole = linguistic.encode(wave)
    np.testing.assert_array_equal(np.concatenate([part.ids for part in found]), whole.ids)
    np.testing.assert_allclose(np.concatenate([part.margin for part in found]), whole.margin, atol=1e-5)


@given(
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    rest=st.integers(0, 3),
    overlap=st.integers(1, 6),
    look_back=st.integers(1, 5),
)
@settings(deadline=None, max_examples=20)
def test_encoding_stretches_of_any_size_equals_encoding_at_once(chunks, rest, overlap, look_back):
    config = SanmConfig(
        input_size=16,
        output_size=8,
        attention_heads=2,
        linear_units=12,
        num_blocks=3,
        chunk_size=(0, 4, overlap),
        encoder_chunk_look_back=look_back,
    )
    model = randomised(SanmModel(config), 4)
    features = torch.randn(4 * sum(chunks) + rest, 16, generator=torch.Generator().manual_seed(5))
    state, rows = model.start(), []
    with torch.inference_mode():
        whole = model.encode(features)
        for stretch in features.split([*(4 * count for count in chunks), *([rest] if rest else [])]):
            out, state = model(stretch, state)
            rows.append(out)
    torch.testing.assert_close(torch.cat(rows), whole, atol=1e-5, rtol=0)
    assert state.frames == len(features)
    assert {cache.shape[1] for cache in state.cache} == {min(4 * look_back, len(features))}


def test_the_past_counts_and_the_future_does_not(linguistic):
    """Frames attend up to 16 rows before their window in every layer, and to nothing after their chunk."""
    features = torch.randn(40, 560, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        whole = linguistic.model.encode(features)
        cut = linguistic.model.encode(features[:20])
        changed = features.clone()
        changed[0] *= -3
        other = linguistic.model.encode(changed)
    torch.testing.assert_close(whole[:20], cut, atol=1e-5, rtol=0)
    assert (whole[20:24] - other[20:24]).abs().max() > 1e-4


def test_frames_after_the_end_of_a_stream_are_refused(linguistic):
    model = linguistic.model
    with torch.inference_mode():
        _, state = model(torch.zeros(6, 560), model.start())
        with pytest.raises(ValueError, match="after the end"):
            model(torch.zeros(4, 560), state)


@pytest.mark.parametrize("level", [0.0, 1e-7, 1.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 192_000])
@pytest.mark.parametrize("samples", [0, 1, 399, 880, 5_000])
@pytest.mark.parametrize("trim_silence", [False, True])
def test_scraps_and_silence_are_answered(linguistic, semantic, samples, rate, level, trim_silence):
    wave = noise(samples) * np.float32(level)
    found = DualTokenizer(linguistic, semantic).encode(wave, rate, trim_silence=trim_silence)
    rounds = min(len(found.linguistic) // 2, len(found.semantic) // 3)
    assert len(found.codes) == 5 * rounds
    assert np.isfinite(found.preprocessed).all()
    assert len(found.semantic) == (
        semantic_length(len(found.preprocessed) // 160) if len(found.preprocessed) >= 480 else 0
    )


@pytest.mark.parametrize(
    ("value", "rate"), [(np.nan, 16_000), (np.inf, 44_100), (1e30, 8_000), (0.1, 7_999), (0.1, 0)]
)
def test_waves_that_would_poison_arithmetic_are_refused(linguistic, semantic, value, rate):
    wave = noise(2_000)
    wave[1_000] = value
    with pytest.raises(AudioError):
        DualTokenizer(linguistic, semantic).encode(wave, rate)


def test_long_waves_are_cut_into_pieces_that_stand_alone(semantic):
    wave = noise(480_000 + 4_000)
    wave[480_000:] *= 0.01  # its own maximum decides
    whole = semantic.encode(wave).ids
    np.testing.assert_array_equal(whole[:750], semantic.encode(wave[:480_000]).ids)
    np.testing.assert_array_equal(whole[750:], semantic.encode(wave[480_000:]).ids)


def test_a_mel_beyond_the_positions_is_refused(semantic):
    with pytest.raises(ValueError, match="positions"):
        semantic.model(torch.zeros(1, 128, 6_001))


@given(st.integers(0, 20), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None)
def test_the_nearest_code_is_the_nearest(rows, codes, seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(codes, 5, generator=generator)
    points = torch.randn(rows, 5, generator=generator)
    ids, squared = nearest(points, table)
    exact = (points.double()[:, None] - table.double()[None]).square().sum(dim=2)
    assert ids.tolist() == (exact.argmin(dim=1).tolist() if rows else [])
    padded = torch.nn.functional.pad(exact, (0, 1), value=torch.inf).sort(dim=1).values[:, :2]
    torch.testing.assert_close(squared, padded, atol=1e-9, rtol=1e-9)


def test_on_ties_the_first_code_wins():
    ids, squared = nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 5.0], [5.0, 0.0]]))
    assert ids.tolist() == [0]
    assert squared.tolist() == [[25.0, 25.0]]
