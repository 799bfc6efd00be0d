"""Names of the folders and files of a download; the nano generator writes the same ones. No I/O."""

from __future__ import annotations

TOKENIZER = "Step-Audio-Tokenizer"
CHAT = "Step-Audio-Chat"
TTS = "Step-Audio-TTS-3B"

PARAFORMER = "dengcunqin/speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online"
PARAFORMER_WEIGHTS = f"{PARAFORMER}/model.pt"
PARAFORMER_CMVN = f"{PARAFORMER}/am.mvn"
PARAFORMER_CONFIG = f"{PARAFORMER}/config.yaml"
CENTROIDS = "linguistic_tokenizer.npy"
SEMANTIC = "speech_tokenizer_v1.onnx"
TOKENIZER_FILES = (PARAFORMER_CONFIG, PARAFORMER_CMVN, PARAFORMER_WEIGHTS, CENTROIDS, SEMANTIC)
"""All that codes depend on."""

LM_CONFIG = "config.json"
LM_VOCABULARY = "tokenizer.model"
LM_INDEX = "model.safetensors.index.json"
LM_SINGLE = "model.safetensors"

COSYVOICE = "CosyVoice-300M-25Hz"
COSYVOICE_MUSIC = "CosyVoice-300M-25Hz-Music"
COSYVOICE_CONFIG = "cosyvoice.yaml"
FLOW = "flow.pt"
HIFT = "hift.pt"
CAMPPLUS = "campplus.onnx"

SPEAKERS = "speakers"
SPEAKERS_TABLE = "speakers.json"  # {name: {"wav": file beside it, "transcript": what is said in it}}
SPEAKERS_INFO = "speakers_info.json"  # the reference's form: {name: transcript}, audio in {name}_prompt.wav
