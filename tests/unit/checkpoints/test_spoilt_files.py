"""Every way that a file of a model folder can be bad ends in one line that names the file and the cure.

Each file is removed, emptied and cut short in turn; then weights of wrong shapes and keys, configurations
that contradict them, and pickles that would run code.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.campplus import SpeakerEncoder
from stepaudio_runtime.checkpoints.decoder import load_decoder
from stepaudio_runtime.checkpoints.lm import read_lm
from stepaudio_runtime.checkpoints.speech_tokenizers import load_tokenizers
from stepaudio_runtime.checkpoints.voices import read_voices
from stepaudio_runtime.errors import ModelFileError

TOKENIZER, DECODER = layout.TOKENIZER, f"{layout.TTS}/{layout.COSYVOICE}"
FLOW, HIFT, YAML = (f"{DECODER}/{name}" for name in ("flow.pt", "hift.pt", "cosyvoice.yaml"))
CAMPPLUS = f"{DECODER}/campplus.onnx"
PARAFORMER = f"{TOKENIZER}/{layout.PARAFORMER_WEIGHTS}"
CENTROIDS, SEMANTIC = f"{TOKENIZER}/{layout.CENTROIDS}", f"{TOKENIZER}/{layout.SEMANTIC}"
PARAFORMER_YAML, CMVN = f"{TOKENIZER}/{layout.PARAFORMER_CONFIG}", f"{TOKENIZER}/{layout.PARAFORMER_CMVN}"
LM_CONFIG, LM_WEIGHTS = f"{layout.CHAT}/config.json", f"{layout.CHAT}/model.safetensors"
VOCABULARY = f"{layout.CHAT}/tokenizer.model"
SPEAKERS = f"{layout.TTS}/speakers/speakers.json"
BASS = f"{layout.TTS}/speakers/Bass_prompt.wav"

FILES = [
    *(FLOW, HIFT, YAML, CAMPPLUS),
    *(PARAFORMER, PARAFORMER_YAML, CMVN, CENTROIDS, SEMANTIC),
    *(LM_CONFIG, LM_WEIGHTS, VOCABULARY),
    *(SPEAKERS, BASS),
]


def load(models: Path, file: str) -> None:
    """Load the part of the folder that `file` belongs to."""
    if file == CAMPPLUS:
        SpeakerEncoder(models / file)
    elif file.startswith(DECODER):
        load_decoder(models / DECODER)
    elif file.startswith(TOKENIZER):
        load_tokenizers(models / TOKENIZER)
    elif file.startswith(layout.CHAT):
        read_lm(models / layout.CHAT)
    else:
        read_voices(models / layout.TTS)


def refusal(models: Path, file: str, loads: str | None = None) -> ModelFileError:
    """The error of loading, after checking that it is one line that names `file` and ends in a cure."""
    with pytest.raises(ModelFileError) as caught:
        load(models, loads or file)
    error = caught.value
    assert error.file == models / file
    assert re.fullmatch(rf"{error.reason}: .+ \({re.escape(str(models / file))}\); .+", str(error)), str(
        error
    )
    assert len(str(error).encode()) < 1024
    return error


def replace(models: Path, file: str, content: bytes) -> None:
    (models / file).unlink()
    (models / file).write_bytes(content)


def edit_text(models: Path, file: str, old: str, new: str) -> None:
    text = (models / file).read_text(encoding="utf-8")
    assert old in text
    replace(models, file, text.replace(old, new, 1).encode())


def edit_state(models: Path, file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = torch.load(models / file, weights_only=True)
    change(state)
    (models / file).unlink()
    torch.save(state, models / file)


@pytest.mark.parametrize("file", FILES)
def test_untouched_files_load(nano: Path, file: str) -> None:
    load(nano, file)


@pytest.mark.parametrize("file", FILES)
def test_missing(copy: Path, file: str) -> None:
    (copy / file).unlink()
    assert refusal(copy, file).reason == "ModelFileMissing"


@pytest.mark.parametrize("file", FILES)
def test_empty(copy: Path, file: str) -> None:
    replace(copy, file, b"")
    assert refusal(copy, file).reason == "ModelFileTruncated"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("file", [file for file in FILES if file != BASS])
def test_cut_short(copy: Path, file: str, part: float) -> None:
    content = (copy / file).read_bytes()
    replace(copy, file, content[: int(len(content) * part)])
    # A text that still parses lacks settings instead.
    settings = {YAML, PARAFORMER_YAML}
    allowed = {"ModelFileTruncated"} | ({"ModelConfigInvalid"} if file in settings else set())
    assert refusal(copy, file).reason in allowed


@pytest.mark.parametrize(
    "file", [FLOW, HIFT, PARAFORMER, CENTROIDS, SEMANTIC, LM_WEIGHTS, VOCABULARY, CAMPPLUS]
)
def test_something_else_under_its_name(copy: Path, file: str) -> None:
    replace(copy, file, b"<!DOCTYPE html><html><body>404: not found</body></html>\n" * 100)
    assert refusal(copy, file).reason == "ModelFileTruncated"


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (FLOW, "decoder.estimator.mid_blocks.0.0.mlp.1.weight"),
        (HIFT, "f0_predictor.classifier.weight"),
        (HIFT, "conv_pre.weight_v"),
        (PARAFORMER, "encoder.encoders.0.norm1.weight"),
    ],
)
def test_wrong_shape_and_missing_key(copy: Path, file: str, key: str) -> None:
    original = (copy / file).read_bytes()
    edit_state(copy, file, lambda state: state.update({key: torch.cat((state[key], state[key]))}))
    error = refusal(copy, file)
    assert error.reason == "ModelShapeMismatch"
    assert key.removesuffix("_v") in error.what
    replace(copy, file, original)
    edit_state(copy, file, lambda state: state.pop(key))
    assert refusal(copy, file).reason == "ModelShapeMismatch"


@pytest.mark.parametrize("file", [FLOW, HIFT, PARAFORMER])
def test_weights_of_another_architecture(copy: Path, file: str) -> None:
    edit_state(copy, file, lambda state: state.update({"encoder.up_layer.conv.weight": torch.zeros(3)}))
    error = refusal(copy, file)
    assert error.reason == "ModelShapeMismatch"
    assert "encoder.up_layer.conv.weight" in error.what


@pytest.mark.parametrize("file", [FLOW, HIFT, PARAFORMER])
def test_a_wrapped_state_dict_is_the_same_checkpoint(copy: Path, file: str) -> None:
    state = torch.load(copy / file, weights_only=True)
    (copy / file).unlink()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, copy / file)
    load(copy, file)


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.target),)

    def __init__(self, target: Path) -> None:
        self.target = target


@pytest.mark.parametrize("file", [FLOW, HIFT, PARAFORMER])
def test_a_pickle_with_code_is_refused_and_not_run(copy: Path, tmp_path: Path, file: str) -> None:
    target = tmp_path / "made by the pickle"
    for write in (
        lambda: torch.save({"weight": _Bomb(target)}, copy / file),
        lambda: replace(copy, file, pickle.dumps({"weight": _Bomb(target)}, protocol=2)),
    ):
        (copy / file).unlink()
        (copy / file).touch()
        write()
        assert refusal(copy, file).reason == "ModelConfigInvalid"
        assert not target.exists()


def test_an_array_of_objects_is_refused_and_not_run(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "made by the pickle"
    (copy / CENTROIDS).unlink()
    np.save(copy / CENTROIDS, np.array([_Bomb(target)], dtype=object), allow_pickle=True)
    refusal(copy, CENTROIDS)
    assert not target.exists()


def test_centroids_of_another_width(copy: Path) -> None:
    (copy / CENTROIDS).unlink()
    np.save(copy / CENTROIDS, np.zeros((1024, 32), np.float32))
    assert refusal(copy, CENTROIDS).reason == "ModelShapeMismatch"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("flow: !new:", "flow: [!new:"),  # no YAML
        ("MaskedDiffWithXvec", "CausalMaskedDiffWithXvec"),
        ("use_cnn_module: False", "use_cnn_module: True"),
        ("vocab_size: 5121", "vocab_size: many"),
        ("input_frame_rate: 41.67", "input_frame_rate: 0"),
        ("spk_embed_dim: !ref <spk_embed_dim>", "spk_embed_dim: !ref <nothing>"),
        ("__set_seed1: !apply:random.seed [1986]", "a: !!python/object/apply:os.getcwd []"),
        ("sampling_rate: !ref <sample_rate>", "sampling_rate: 24000"),
        ("attention_heads: 4", "attention_heads: 5"),
        ("resblock_kernel_sizes: [3, 7, 11]", "resblock_kernel_sizes: [3, 7]"),
    ],
)
def test_bad_decoder_configuration(copy: Path, old: str, new: str) -> None:
    edit_text(copy, YAML, old, new)
    assert refusal(copy, YAML).reason == "ModelConfigInvalid"


def test_configuration_of_another_size_than_the_weights(copy: Path) -> None:
    edit_text(copy, YAML, "vocab_size: 5121", "vocab_size: 4096")
    error = refusal(copy, FLOW, loads=YAML)
    assert error.reason == "ModelShapeMismatch"
    assert error.what == "input_embedding.weight is [5121, 128], not [4096, 128] as cosyvoice.yaml says"


def test_nothing_that_the_yaml_names_is_called(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "made by the yaml"
    edit_text(copy, YAML, "!apply:random.seed [1986]", f"!apply:os.mkdir ['{target}']")
    load(copy, YAML)
    assert not target.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SANMEncoderChunkOpt", "ConformerEncoder"),
        ("attention_heads: 4", "attention_heads: 7"),
        ("lfr_m: 7", "lfr_m: 5"),
    ],
)
def test_bad_tokenizer_configuration(copy: Path, old: str, new: str) -> None:
    edit_text(copy, PARAFORMER_YAML, old, new)
    assert refusal(copy, PARAFORMER_YAML).reason == "ModelConfigInvalid"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llama"),
        ("hidden_size", None),
        ("num_attention_groups", 5),
        ("audio_token_offset", 65536),
        ("tie_word_embeddings", True),
    ],
)
def test_bad_language_model_configuration(copy: Path, key: str, value: object) -> None:
    config = json.loads((copy / LM_CONFIG).read_text())
    replace(copy, LM_CONFIG, json.dumps({**config, key: value}).encode())
    assert refusal(copy, LM_CONFIG).reason == "ModelConfigInvalid"


def test_the_weights_tell_whether_embeddings_are_tied(copy: Path) -> None:
    config = json.loads((copy / LM_CONFIG).read_text())
    del config["tie_word_embeddings"]
    replace(copy, LM_CONFIG, json.dumps(config).encode())
    assert read_lm(copy / layout.CHAT).tied is False
    tensors = load_file(copy / LM_WEIGHTS)
    del tensors["lm_head.weight"]
    (copy / LM_WEIGHTS).unlink()
    save_file(tensors, copy / LM_WEIGHTS)
    assert read_lm(copy / layout.CHAT).tied is True
    replace(copy, LM_CONFIG, json.dumps({**config, "tie_word_embeddings": False}).encode())
    assert refusal(copy, LM_CONFIG).reason == "ModelConfigInvalid"


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.3.self_attn.k_proj.weight"])
def test_language_model_weights_of_another_shape(copy: Path, name: str) -> None:
    tensors = load_file(copy / LM_WEIGHTS)
    tensors[name] = torch.cat((tensors[name], tensors[name]))
    (copy / LM_WEIGHTS).unlink()
    save_file(tensors, copy / LM_WEIGHTS)
    error = refusal(copy, LM_WEIGHTS)
    assert (error.reason, name in error.what) == ("ModelShapeMismatch", True)


def test_sharded_weights(copy: Path) -> None:
    folder = copy / layout.CHAT
    tensors = load_file(copy / LM_WEIGHTS)
    (copy / LM_WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / layout.LM_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert [file.name for file in read_lm(folder).files] == list(shards)

    last = f"{layout.CHAT}/model-00002-of-00002.safetensors"
    replace(copy, last, (copy / last).read_bytes()[:-1])
    assert refusal(copy, last).reason == "ModelFileTruncated"
    (copy / last).unlink()
    assert refusal(copy, last).reason == "ModelFileMissing"
    weight_map[names[0]] = "../../../etc/passwd"
    index = f"{layout.CHAT}/{layout.LM_INDEX}"
    replace(copy, index, json.dumps({"weight_map": weight_map}).encode())
    assert refusal(copy, index).reason == "ModelConfigInvalid"


def test_vocabulary_cut_between_two_pieces(copy: Path) -> None:
    """Such a file is a valid, smaller protobuf."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString((copy / VOCABULARY).read_bytes())
    head = sentencepiece_model_pb2.ModelProto()
    head.pieces.extend(model.pieces[:1000])
    replace(copy, VOCABULARY, head.SerializeToString())
    assert refusal(copy, VOCABULARY).reason == "ModelFileTruncated"


def test_vocabulary_of_another_model(copy: Path) -> None:
    content = (copy / VOCABULARY).read_bytes()
    replace(copy, VOCABULARY, content.replace(b"<|EOT|>", b"<|XXX|>"))
    assert refusal(copy, VOCABULARY).reason == "ModelConfigInvalid"


@pytest.mark.parametrize(
    "table",
    [
        [],
        {},
        {"Bass": ""},
        {"Bass": {"wav": "../Bass_prompt.wav", "transcript": "x"}},
        {"Bass": {"wav": "a.wav"}},
    ],
)
def test_bad_table_of_voices(copy: Path, table: object) -> None:
    replace(copy, SPEAKERS, json.dumps(table).encode())
    assert refusal(copy, SPEAKERS).reason == "ModelConfigInvalid"


def test_the_references_table_of_voices(copy: Path) -> None:
    (copy / SPEAKERS).unlink()
    table = copy / layout.TTS / "speakers" / "speakers_info.json"
    table.write_text(json.dumps({"Bass": "good morning"}))
    voices = read_voices(copy / layout.TTS)
    assert [(voice.name, voice.transcript, voice.wav.name) for voice in voices] == [
        ("Bass", "good morning", "Bass_prompt.wav")
    ]
