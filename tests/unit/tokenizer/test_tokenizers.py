"""The tokenizers with random weights: batches equal each alone, silence and scraps are answered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.errors import AudioError
from stepaudio_runtime.models.nearest import CodeBook
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import semantic_length


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5
    )  # chunks before, chunks in the batch, frames beyond them
)
@settings(deadline=None, max_examples=30)
def test_streams_in_one_batch_give_what_each_gives_alone(linguistic, streams):
    """Streams at different places, of different lengths, with nothing to do, and at their end."""
    model, generator = linguistic.model, torch.Generator().manual_seed(7)
    stretches, alone = [], []
    with torch.inference_mode():
        for before, chunks, rest in streams:
            _, state = model(torch.randn(4 * before, 560, generator=generator), model.start())
            features = torch.randn(4 * chunks + rest, 560, generator=generator)
            stretches.append((features, state))
            alone.append(model(features, state))
        together = model.batch(stretches)
    for (rows, state), (own_rows, own_state) in zip(together, alone, strict=True):
        torch.testing.assert_close(rows, own_rows, atol=1e-5, rtol=0)
        torch.testing.assert_close(state.tail, own_state.tail, atol=0, rtol=0)
        torch.testing.assert_close(state.cache, own_state.cache, atol=1e-5, rtol=0)
        assert state.frames == own_state.frames


def test_a_stream_holds_no_memory_of_those_it_shared_a_batch_with(linguistic):
    model = linguistic.model
    with torch.inference_mode():
        results = model.batch([(torch.zeros(4, 560), model.start()) for _ in range(5)])
    for _, state in results:
        for tensor in (state.tail, state.cache):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


@given(st.lists(st.integers(480, 30_000), min_size=1, max_size=6), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_pieces_in_one_batch_give_the_ids_of_each_alone(semantic, sizes, seed):
    pieces = [noise(size, seed + number) for number, size in enumerate([*sizes, sizes[0]])]
    for together, piece in zip(semantic.batch(pieces), pieces, strict=True):
        [alone] = semantic.batch([piece])
        np.testing.assert_array_equal(together.ids, alone.ids)
        np.testing.assert_allclose(together.margin, alone.margin, atol=1e-5)


@given(
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    rest=st.integers(0, 3),
    overlap=st.integers(1, 6),
    look_back=st.integers(1, 5),
)
@settings(deadline=None, max_examples=20)
def test_encoding_stretches_of_any_size_equals_encoding_at_once(randomised, chunks, rest, overlap, look_back):
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
def test_scraps_and_silence_are_answered(dual, samples, rate, level, trim_silence):
    wave = noise(samples) * np.float32(level)
    found = dual.encode(wave, rate, trim_silence=trim_silence)
    rounds = min(len(found.linguistic) // 2, len(found.semantic) // 3)
    assert len(found.codes) == 5 * rounds
    assert np.isfinite(found.preprocessed).all()
    assert len(found.semantic) == (
        semantic_length(len(found.preprocessed) // 160) if len(found.preprocessed) >= 480 else 0
    )


@pytest.mark.parametrize(
    ("value", "rate"), [(np.nan, 16_000), (np.inf, 44_100), (1e30, 8_000), (0.1, 7_999), (0.1, 0)]
)
def test_waves_that_would_poison_arithmetic_are_refused(dual, value, rate):
    wave = noise(2_000)
    wave[1_000] = value
    with pytest.raises(AudioError):
        dual.encode(wave, rate)


def test_long_waves_are_cut_into_pieces_that_stand_alone(dual):
    wave = noise(480_000 + 4_000)
    wave[480_000:] *= 0.01  # its own maximum decides
    waves = (wave, wave[:480_000], wave[480_000:])
    whole, first, second = (found.semantic.ids for found in dual.run([dual.work(each) for each in waves]))
    np.testing.assert_array_equal(whole[:750], first)
    np.testing.assert_array_equal(whole[750:], second)


def test_a_mel_beyond_the_positions_is_refused(semantic):
    with pytest.raises(ValueError, match="positions"):
        semantic.model([torch.zeros(128, 6_001)])


@given(st.integers(0, 20), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None)
def test_the_nearest_code_is_the_nearest(rows, codes, seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(codes, 5, generator=generator)
    points = torch.randn(rows, 5, generator=generator)
    ids, squared = CodeBook(table).nearest(points)
    exact = (points.double()[:, None] - table.double()[None]).square().sum(dim=2)
    assert ids.tolist() == (exact.argmin(dim=1).tolist() if rows else [])
    padded = torch.nn.functional.pad(exact, (0, 1), value=torch.inf).sort(dim=1).values[:, :2]
    torch.testing.assert_close(squared, padded, atol=1e-9, rtol=1e-9)


def test_on_ties_the_first_code_wins():
    ids, squared = CodeBook(torch.tensor([[3.0, 4.0], [0.0, 5.0], [5.0, 0.0]])).nearest(torch.zeros(1, 2))
    assert ids.tolist() == [0]
    assert squared.tolist() == [[25.0, 25.0]]
