"""Both tokenizers give the reference's features, hidden rows and ids: whole waves, streams, any length."""

import re

import numpy as np
import pytest
import torch

from stepaudio_runtime.audio.frontend import OnlineFrontend, offline_features, parse_cmvn, wave_fbank
from stepaudio_runtime.audio.mel import whisper_mel
from stepaudio_runtime.checkpoints.semantic_onnx import read_semantic_onnx
from stepaudio_runtime.codec.layout import to_ids
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel
from stepaudio_runtime.tokenizer.dual import DualTokenizer
from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer
from stepaudio_runtime.tokenizer.stream import Stream
from stepaudio_runtime.tokenizer.windows import Windows

MARGIN_ALLOW = 1e-3  # margins are not in the README's table; this is far below their sizes


@pytest.fixture(scope="session")
def cmvn(golden):
    return parse_cmvn(golden.path("am.mvn").read_text())


@pytest.fixture(scope="session")
def linguistic(golden, cmvn):
    sizes = dict(golden.configs["sanm"])
    model = SanmModel(SanmConfig(**{**sizes, "chunk_size": tuple(sizes["chunk_size"])}))
    weights = golden.tensors("sanm_weights")
    model.load_state_dict({key: value for key, value in weights.items() if key.startswith("encoder.")})
    return LinguisticTokenizer(model, cmvn, weights["centroids"])


@pytest.fixture(scope="session")
def semantic(golden):
    weights = golden.tensors("s3tok_weights")
    sizes = {
        "n_mels": weights["encoder.conv1.weight"].shape[1],
        "n_audio_ctx": len(weights["encoder.positional_embedding"]),
        **golden.configs["s3tok"],
    }
    model = SemanticModel(SemanticConfig(**sizes))
    model.load_state_dict(weights)
    return SemanticTokenizer(model)


@pytest.fixture(scope="session")
def dual(linguistic, semantic):
    return DualTokenizer(linguistic, semantic)


@pytest.fixture(scope="session")
def sanm(golden):
    return golden.tensors("sanm")


def test_cmvn_is_read_from_the_text_file(golden, cmvn, close):
    weights = golden.tensors("sanm_weights")
    close(cmvn.shift, weights["cmvn_shift"], 0, "shift")
    close(cmvn.scale, weights["cmvn_scale"], 0, "scale")


def test_front_end(sanm, cmvn, close):
    wave = sanm["in.wave"].numpy()
    close(wave_fbank(wave)[None], sanm["out.fbank"], 3e-3, "fbank")
    close(offline_features(wave, cmvn)[None], sanm["out.offline_feats"], 1e-3, "offline")
    close(OnlineFrontend(cmvn).push(wave, last=True)[None], sanm["out.online_feats"], 1e-3, "online")


def test_encoder_chunk_by_chunk(sanm, linguistic, close):
    """The streaming form: every window, its first layer, its last layer, and the cache after it."""
    model, state = linguistic.model, linguistic.model.start()
    features, layer0 = sanm["out.online_feats"][0], {}
    hook = model.encoder.encoders0[0].register_forward_hook(lambda _m, _i, out: layer0.update(out=out[0]))
    normed = {}
    hook2 = model.encoder.after_norm.register_forward_hook(lambda _m, _i, out: normed.update(out=out))
    outputs, cached, compared, at = [], [], set(), 0
    with torch.inference_mode():
        for number, frames in enumerate(sanm["out.chunk_frames"].tolist()):
            chunk = features[at : at + frames]
            at += frames
            rows = model.config.overlap + frames
            window = model.windows(chunk, state)
            out, state = model(chunk, state)
            inner = {"window": window, "layer0": layer0["out"], "full": normed["out"]}
            for name, found in inner.items():  # stored for some of the chunks
                if (expected := sanm.get(f"out.chunk{number}.{name}")) is not None:
                    close(found[:, :rows], expected, 5e-5, f"{name} of chunk {number}")
                    compared.add(f"out.chunk{number}.{name}")
            outputs.append(out)
            cached.append(min(state.frames, model.config.look_back))
    hook.remove()
    hook2.remove()
    assert compared == {name for name in sanm if re.match(r"out\.chunk\d", name)}
    assert cached == sanm["out.cache_len"].tolist()
    close(torch.cat(outputs)[None], sanm["out.encoder"], 5e-5, "encoder")


def test_encoder_all_windows_at_once(sanm, linguistic, close):
    with torch.inference_mode():
        close(
            linguistic.model.encode(sanm["out.online_feats"][0])[None], sanm["out.encoder"], 5e-5, "encoder"
        )


def test_encoder_from_the_wave(sanm, linguistic, cmvn, close):
    features = OnlineFrontend(cmvn).push(sanm["in.wave"].numpy(), last=True)
    with torch.inference_mode():
        rows = linguistic.model.encode(torch.from_numpy(features))
    close(rows[None], sanm["out.encoder"], 5e-4, "encoder")


def test_linguistic_ids_of_the_whole_wave(sanm, linguistic, close):
    features = linguistic.features(sanm["in.wave"].numpy())
    [(found, _)] = linguistic.batch([(features, linguistic.model.start())])
    close(found.ids, sanm["out.ids"], 0, "ids")
    close(found.margin, sanm["out.margin"], MARGIN_ALLOW, "margin")


def test_linguistic_ids_of_the_stream(sanm, dual):
    stream, counts, ids = Stream(dual, 16_000, 1.0, Windows.seconds(1.92, 0.96)), [], []
    wave, sizes = sanm["in.wave"].numpy(), sanm["in.pieces"].tolist()
    pieces = np.split(wave, np.cumsum(sizes)[:-1])
    assert [len(piece) for piece in pieces] == sizes
    for number, piece in enumerate(pieces):
        [found] = dual.run([stream.push(piece, last=number == len(pieces) - 1)])
        stream.advance(found)
        counts.append(len(found.linguistic))
        ids += found.linguistic.ids.tolist()
    assert counts == sanm["out.ids_per_piece"].tolist()
    assert ids == sanm["out.ids"].tolist()


@pytest.mark.cases("s3tok", r"[^.]+(?=\.in\.|\.out\.)")
def test_semantic_tokenizer(case, semantic, close):
    with torch.inference_mode():
        [hidden] = semantic.model(case["in.mel"])
        ids, squared = semantic.quantise(case["out.hidden"][0])
    close(hidden[None], case["out.hidden"], 5e-5, "hidden")
    close(ids[None], case["out.ids"], 0, "ids")
    close(squared[:, 1] - squared[:, 0], case["out.margin"], MARGIN_ALLOW, "margin")
    wave = case["in.wave"].numpy()
    close(whisper_mel(wave)[None], case["in.mel"], 3e-4, "mel")
    [found] = semantic.batch([wave])
    close(found.ids[None], case["out.ids"], 0, "ids from the wave")


def test_weights_of_the_onnx_file_by_their_names(golden, close):
    read, want = read_semantic_onnx(golden.path("s3tok_names.onnx")), golden.tensors("s3tok_names")
    assert read.keys() == want.keys()
    for key, value in want.items():
        close(read[key], value, 0, key)


@pytest.mark.cases("wav2token", r"[^.]+(?=\.in\.|\.out\.)")
def test_wave_to_codes(case, dual, close):
    wave, rate = case["in.wave"].numpy(), int(case["in.sr"])
    found = dual.encode(wave, rate, trim_silence=bool(case["in.trim"]))
    # The allowance of resampling, raised with the level.
    allow = 5e-6 / max(float(case["in.wave"].abs().max()), 0.01)
    close(found.preprocessed, case["out.preprocessed"], allow, "preprocessed")
    close(found.linguistic.ids, case["out.linguistic"], 0, "linguistic")
    close(found.linguistic.margin, case["out.linguistic_margin"], MARGIN_ALLOW, "linguistic margin")
    close(found.semantic.ids, case["out.semantic"], 0, "semantic")
    close(found.semantic.margin, case["out.semantic_margin"], MARGIN_ALLOW, "semantic margin")
    assert found.codes == case["out.merged"].tolist()
    assert to_ids(found.codes) == case["out.tokens"].tolist()


def test_files_encoded_together_give_the_codes_of_each_alone(golden, dual):
    """All waves of the golden files in one batch, whole and cut short, each with its own reference ids."""
    cases = golden.cases("wav2token", r"[^.]+(?=\.in\.|\.out\.)").values()
    waves = [case["out.preprocessed"].numpy() for case in cases]
    found = dual.run([dual.work(wave) for cut in (1, 2, 3) for wave in (w[: len(w) // cut] for w in waves)])
    alone = [dual.run([dual.work(w[: len(w) // cut])])[0] for cut in (1, 2, 3) for w in waves]
    for case, together in zip(cases, found, strict=False):
        assert together.linguistic.ids.tolist() == case["out.linguistic"].tolist()
        assert together.semantic.ids.tolist() == case["out.semantic"].tolist()
    for together, single in zip(found, alone, strict=True):
        for book in ("linguistic", "semantic"):
            got, want = getattr(together, book), getattr(single, book)
            np.testing.assert_array_equal(got.ids, want.ids)
            np.testing.assert_allclose(got.margin, want.margin, atol=1e-4)


def test_numbers_of_ids_for_every_length(golden, dual):
    counts = golden.json("lengths")["counts"]
    wave = np.random.default_rng(0).normal(0, 0.1, max(map(int, counts))).astype(np.float32)
    found = dual.run([dual.work(wave[: int(samples)]) for samples in counts])
    got = [{"linguistic": len(each.linguistic), "semantic": len(each.semantic)} for each in found]
    assert dict(zip(counts, got, strict=True)) == counts


def test_numbers_of_semantic_ids_of_long_waves(golden, dual):
    counts = golden.json("lengths")["semantic_long"]
    wave = np.random.default_rng(1).normal(0, 0.1, max(map(int, counts))).astype(np.float32)
    found = dual.run([dual.work(wave[: int(samples)]) for samples in counts])
    assert [len(each.semantic) for each in found] == list(counts.values())
