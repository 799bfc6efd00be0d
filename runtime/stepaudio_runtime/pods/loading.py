"""From model folders to the pods' services: verify every file first, then load.

Everything blocks and is called from worker threads or offline. torch is imported by the functions that need
it: the chat agent verifies its folder without.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepaudio_runtime.chat.vocabulary import Vocabulary
from stepaudio_runtime.checkpoints.lm import LmFolder, read_lm
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.contract import (
    BOS_ID,
    BOT_ID,
    CHAT_FOLDER,
    EOT_ID,
    TOKENIZER_FOLDER,
    TTS_FOLDER,
)
from stepaudio_runtime.errors import ConfigError, ModelFileError
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.chat import ChatModel
from stepaudio_runtime.service.engine import cpu_threads
from stepaudio_runtime.settings import EngineSettings, PodSettings, TtsSettings
from stepaudio_vllm import Step1ConfigError, check_model_folder

COMPILED = 256
"""Products and convolutions that oneDNN keeps compiled, each for one length. It would keep 1,024, which is
hundreds of MiB where utterances of every length come by; a quarter of them costs no time.
"""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stepaudio_runtime.tokenizer.dual import DualTokenizer
    from stepaudio_runtime.tts.decoder import SpeechDecoder
    from stepaudio_runtime.tts.hops import HopPlan
    from stepaudio_runtime.tts.metrics import SpeechMetrics
    from stepaudio_runtime.tts.shelf import Shelf
    from stepaudio_runtime.tts.speaker import Speaker
    from stepaudio_runtime.tts.voices import Recording, VoicePrompt, Voices

CHAT_MODEL = "step-audio-chat"
"""Name of the chat model in requests to its pod."""

STEP_STREAMS = {"cpu": 4, "cuda": 16}
"""Streams of speech that share a step: on a CPU they save little by it, and wait for each other."""


# --- chat -------------------------------------------------------------------------------------------


def verify_chat(settings: PodSettings, engine: EngineSettings) -> ChatModel:
    """The chat model's folder, verified; raises ModelFileError or ConfigError."""
    folder = settings.models_dir / CHAT_FOLDER
    lm = _verified_lm(folder, engine)
    return ChatModel(
        folder=folder,
        bytes_total=lm.bytes_total,
        info={
            "model": CHAT_MODEL,
            "audio_offset": lm.audio_offset,
            "vocab_size": lm.vocab_size,
            "bos": BOS_ID,
            "eot": EOT_ID,
            "bot": BOT_ID,
            "max_model_len": _max_model_len(lm, engine),
        },
        tokenizer_model=lm.vocabulary.read_bytes(),
    )


def _verified_lm(folder: Path, engine: EngineSettings) -> LmFolder:
    lm = read_lm(folder)
    check_quantization(lm, engine)
    try:
        check_model_folder(folder)
    except Step1ConfigError as error:
        raise ModelFileError(
            "ModelConfigInvalid", file=folder / "config.json", what=str(error), cure="correct it"
        ) from error
    return lm


def check_quantization(lm: LmFolder, engine: EngineSettings) -> None:
    """Raise ConfigError where the setting and the checkpoint do not mean the same weights."""
    if engine.quantization == "INT4" and lm.bits != 4:
        is_ = "is not quantised" if lm.bits is None else f"has {lm.bits} bits"
        raise ConfigError(
            what=f"quantization INT4 is set, the checkpoint in {lm.folder} {is_}",
            cure="put a checkpoint of 4 bits there, or remove quantization",
        )
    if engine.quantization == "FP8" and lm.bits is not None:
        raise ConfigError(
            what=f"quantization FP8 is set, the checkpoint in {lm.folder} is quantised already",
            cure="remove quantization, or put the bf16 files there",
        )


def _max_model_len(lm: LmFolder, engine: EngineSettings) -> int:
    """Tokens of prompt and answer: what is set, bounded by what the model was made for."""
    if engine.max_model_len is not None and engine.max_model_len > lm.max_seq_len:
        raise ConfigError(
            what=f"a length of {engine.max_model_len} tokens is set, the model takes {lm.max_seq_len}",
            cure="lower maxModelLen",
        )
    return engine.max_model_len or lm.max_seq_len


# --- tokenizer --------------------------------------------------------------------------------------


def load_tokenizer(settings: PodSettings, engine: EngineSettings, state: PodState) -> DualTokenizer:
    """The tokenizers, as their pod and the command line use them."""
    _prepare_processor(settings, engine)
    state.load_progress(state.bytes_loaded, state.bytes_total + _tokenizer_bytes(settings.models_dir))
    return _load_tokenizer(settings.models_dir, engine, state)


def _tokenizer_bytes(models_dir: Path) -> int:
    folder = models_dir / TOKENIZER_FOLDER
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _load_tokenizer(models_dir: Path, engine: EngineSettings, state: PodState) -> DualTokenizer:
    import torch

    from stepaudio_runtime.checkpoints.speech_tokenizers import load_tokenizers
    from stepaudio_runtime.tokenizer.dual import DualTokenizer
    from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
    from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer

    folder = models_dir / TOKENIZER_FOLDER
    parts = load_tokenizers(folder, torch.device(engine.device))
    state.load_progress(state.bytes_loaded + _tokenizer_bytes(models_dir), state.bytes_total)
    linguistic = LinguisticTokenizer(parts.sanm, parts.cmvn, parts.centroids)
    return DualTokenizer(linguistic, SemanticTokenizer(parts.semantic))


def _prepare_processor(settings: PodSettings, engine: EngineSettings) -> None:
    import torch

    if engine.device == "cpu":
        torch.set_num_threads(cpu_threads(settings.threads))
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(COMPILED))  # read at the first product


# --- tts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VoiceBox:
    """What makes sound of codes: voices, and decoders by instruction (None: plain speech)."""

    voices: Voices
    decoders: Mapping[Instruction | None, SpeechDecoder]


def load_voice_box(settings: PodSettings, engine: EngineSettings, state: PodState | None = None) -> VoiceBox:
    """Decoders of the TTS folder, and its voices as the tokenizers and the speaker encoder hear them."""
    import torch

    from stepaudio_runtime.checkpoints import layout
    from stepaudio_runtime.checkpoints.decoder import load_decoder
    from stepaudio_runtime.tts.decoder import SpeechDecoder

    _prepare_processor(settings, engine)
    device = torch.device(engine.device)
    folder = settings.models_dir / TTS_FOLDER
    decoders: dict[Instruction | None, SpeechDecoder] = {}
    for name, instructions in ((layout.COSYVOICE, (None,)), (layout.COSYVOICE_MUSIC, tuple(Instruction))):
        models = load_decoder(folder / name, device)
        decoder = SpeechDecoder(models.flow, models.hift, device, dtype=getattr(torch, engine.dtype))
        decoder.warm()
        decoders.update(dict.fromkeys(instructions, decoder))
    voices = _load_voices(folder, settings.models_dir, engine, state or PodState(settings.component.value))
    return VoiceBox(voices, decoders)


def _load_voices(folder: Path, models_dir: Path, engine: EngineSettings, state: PodState) -> Voices:
    from stepaudio_runtime.checkpoints.voices import read_voices
    from stepaudio_runtime.pods.sound_file import read_mono
    from stepaudio_runtime.tts.voices import Recording, Voices

    stored = read_voices(folder)
    recordings = [Recording(voice.name, voice.transcript, *read_mono(voice.wav)) for voice in stored]
    return Voices(_voice_prompts(recordings, folder, models_dir, engine, state))


def _voice_prompts(
    recordings: Iterable[Recording], folder: Path, models_dir: Path, engine: EngineSettings, state: PodState
) -> list[VoicePrompt]:
    """What the models need of `recordings`. The tokenizers are loaded for it and let go again."""
    from stepaudio_runtime.audio.fbank import speaker_features
    from stepaudio_runtime.checkpoints import layout
    from stepaudio_runtime.checkpoints.campplus import SpeakerEncoder
    from stepaudio_runtime.tts.voices import voice_prompt

    speaker_encoder = SpeakerEncoder(folder / layout.COSYVOICE / layout.CAMPPLUS)
    tokenizer = _load_tokenizer(models_dir, engine, state)

    def codes(wave: NDArray[np.float32], rate: int) -> list[int]:
        return tokenizer.encode(wave, rate, trim_silence=True).codes

    def embed(wave: NDArray[np.float32]) -> NDArray[np.float32]:
        return speaker_encoder(speaker_features(wave))

    return [voice_prompt(recording, codes, embed) for recording in recordings]


def _shelf(
    built_in: Voices,
    bounds: TtsSettings,
    settings: PodSettings,
    engine: EngineSettings,
    on_done: Callable[[], None],
) -> Shelf:
    """The voices of the model, and those of the store where there is one."""
    from stepaudio_runtime.checkpoints import layout
    from stepaudio_runtime.service.worker import Worker
    from stepaudio_runtime.tts.features import models_revision
    from stepaudio_runtime.tts.shelf import Shelf
    from stepaudio_runtime.voices.store import open_store

    if not bounds.voices_url:
        return Shelf(built_in)
    folder = settings.models_dir / TTS_FOLDER
    hearing = [file for file in (settings.models_dir / TOKENIZER_FOLDER).rglob("*") if file.is_file()]
    # A thread of its own: speech goes on while a voice is prepared, once for all pods.
    worker = Worker("voices", bound=8, on_done=on_done)

    async def prepare(recording: Recording) -> VoicePrompt:
        def work() -> VoicePrompt:
            state = PodState(settings.component.value)
            return _voice_prompts([recording], folder, settings.models_dir, engine, state)[0]

        return await worker.run(work)

    revision = models_revision([*hearing, folder / layout.COSYVOICE / layout.CAMPPLUS])
    return Shelf(built_in, open_store(bounds.voices_url), prepare, revision)


async def load_speaker(
    settings: PodSettings,
    engine: EngineSettings,
    bounds: TtsSettings,
    state: PodState,
    metrics: SpeechMetrics,
    *,
    plan: HopPlan | None = None,
) -> Speaker:
    """The TTS model, complete: vLLM starts in its own process while flow, vocoder and voices load here.

    `plan` cuts speech into hops, by default as it is served. The engine's environment variables must be set
    before.
    """
    from stepaudio_runtime.service.worker import Worker
    from stepaudio_runtime.tts.hops import HopPlan
    from stepaudio_runtime.tts.scheduler import Scheduler
    from stepaudio_runtime.tts.speaker import Speaker
    from stepaudio_runtime.tts.speech_lm import SpeechLm, start_speech_lm

    folder = settings.models_dir / TTS_FOLDER
    state.load("verifying the model folder")
    lm_folder = await asyncio.to_thread(_verified_lm, folder, engine)
    max_model_len = _max_model_len(lm_folder, engine)
    # All that will be loaded from the first on, so that a share of it never falls.
    state.load_progress(0, lm_folder.bytes_total + _tokenizer_bytes(settings.models_dir))
    worker = Worker("decoder", bound=settings.max_in_flight, on_done=state.beat)
    # Bad files are found by the voice box in seconds: vLLM is not kept busy for a pod that cannot start.
    state.load("loading flow, vocoder and voices")
    box = await worker.run(lambda: load_voice_box(settings, engine, state))

    def start() -> SpeechLm:
        return start_speech_lm(
            folder, engine, max_model_len=max_model_len, audio_offset=lm_folder.audio_offset
        )

    state.load("vLLM is loading the speech model")
    lm = await Worker("engine").run(start)
    vocabulary = Vocabulary(lm_folder.vocabulary.read_bytes(), audio_offset=lm_folder.audio_offset)
    scheduler = Scheduler(
        worker,
        bound=settings.max_in_flight,
        batch=STEP_STREAMS[engine.device],
        clock=time.monotonic,
        metrics=metrics,
        on_progress=state.beat,
    )
    plan = plan or HopPlan()
    return Speaker(
        lm,
        vocabulary.encode,
        await asyncio.to_thread(_shelf, box.voices, bounds, settings, engine, state.beat),
        box.decoders,
        scheduler,
        metrics,
        max_codes=bounds.max_codes,
        plan=plan,
        next_plan=replace(plan, first=plan.size(1)),
        sentences_at_once=lm_folder.sentences_at_once,
    )


# --- all --------------------------------------------------------------------------------------------


def verify_all(models_dir: Path) -> Iterator[str]:
    """Load every model of the folders that are there, one line each; raises ModelFileError.

    At least one of the three folders must be there: a deployment may hold only what it serves.
    """
    from stepaudio_runtime.contract import Component

    settings = PodSettings(Component.TTS, models_dir)
    engine = EngineSettings()
    present = [name for name in (TOKENIZER_FOLDER, CHAT_FOLDER, TTS_FOLDER) if (models_dir / name).is_dir()]
    if not present:
        raise ModelFileError(
            "ModelFileMissing",
            file=models_dir,
            what="none of the model folders is here",
            cure=f"give the folder that holds {TOKENIZER_FOLDER}, {CHAT_FOLDER} or {TTS_FOLDER}",
        )
    if TOKENIZER_FOLDER in present:
        state = PodState("tokenizer")
        load_tokenizer(settings, engine, state)
        yield f"{TOKENIZER_FOLDER}: {_mib(state.bytes_total)}, both tokenizers load"
    if CHAT_FOLDER in present:
        chat = verify_chat(settings, engine)
        yield f"{CHAT_FOLDER}: {_mib(chat.bytes_total)}, vocabulary {chat.info['vocab_size']}"
    if TTS_FOLDER in present:
        lm = _verified_lm(models_dir / TTS_FOLDER, engine)
        box = load_voice_box(settings, engine)
        yield (
            f"{TTS_FOLDER}: {_mib(lm.bytes_total)}, vocabulary {lm.vocab_size}, flow and vocoder load, "
            f"voices {', '.join(box.voices.names)}"
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
