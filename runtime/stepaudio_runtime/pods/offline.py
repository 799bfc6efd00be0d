"""`stepaudio encode`, `decode` and `speak`: the pods' models on files, without a server."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from stepaudio_runtime.audio.wave import to_pcm16
from stepaudio_runtime.bodies import AudioTokens
from stepaudio_runtime.contract import SPEECH_RATE, Component
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.loading import load_speaker, load_tokenizer, load_voice_box
from stepaudio_runtime.pods.sound_file import read_mono, write_mono
from stepaudio_runtime.service.engine import cpu_threads, engine_environment
from stepaudio_runtime.settings import EngineSettings, PodSettings, TtsSettings
from stepaudio_runtime.tts.hops import HopPlan
from stepaudio_runtime.tts.metrics import SpeechMetrics
from stepaudio_runtime.tts.request import parse_speech
from stepaudio_runtime.tts.speaker import Speaker


def encode_file(wav: Path, env: Mapping[str, str], *, trim: bool) -> AudioTokens:
    """Codes of an audio file; raises AudioError for what is none."""
    settings = PodSettings.from_env(env, Component.TOKENIZER)
    wave, rate = read_mono(wav)
    tokenizer = load_tokenizer(settings, EngineSettings.from_env(env), _state(settings))
    tokens = tokenizer.encode(wave, rate, trim_silence=trim)
    return {
        "codes": tokens.codes,
        "linguistic": len(tokens.linguistic),
        "semantic": len(tokens.semantic),
        "duration_s": len(wave) / rate,
    }


def decode_file(codes: Path, wav: Path, env: Mapping[str, str], *, voice: str | None, seed: int) -> float:
    """Speak the codes of a JSON file into `wav`; returns its length in seconds."""
    settings = PodSettings.from_env(env, Component.TTS)
    try:
        found = json.loads(codes.read_text())
    except ValueError as error:
        raise InputError(f"{codes} is not JSON: {error}") from error
    body = {"codes": found["codes"] if isinstance(found, dict) and "codes" in found else found}
    speech = parse_speech({**body, "voice": voice, "seed": seed}, TtsSettings.from_env(env))
    box = load_voice_box(settings, EngineSettings.from_env(env))
    prompt = box.voices.get(speech.voice).prompt
    return _write(wav, box.decoders[None].decode(speech.codes, prompt, seed))


async def speak_file(text: str, wav: Path, env: Mapping[str, str], *, voice: str | None, seed: int) -> float:
    """Speak `text` into `wav`; returns its length in seconds. Starts vLLM, and ends it."""
    speech = parse_speech({"input": text, "voice": voice, "seed": seed}, TtsSettings.from_env(env))
    async with open_speaker(env) as speaker:
        return _write(wav, np.concatenate([wave async for wave in speaker.speak(speech)]))


@asynccontextmanager
async def open_speaker(env: Mapping[str, str], plan: HopPlan | None = None) -> AsyncGenerator[Speaker]:
    """The TTS models in this process and vLLM in its own, until the end of the block."""
    settings = PodSettings.from_env(env, Component.TTS)
    engine, bounds = EngineSettings.from_env(env), TtsSettings.from_env(env)
    os.environ.update(engine_environment(engine, settings.run_dir, cpu_threads(settings.threads)))
    metrics = SpeechMetrics(CollectorRegistry())
    speaker = await load_speaker(settings, engine, bounds, _state(settings), metrics, plan=plan)
    running = asyncio.create_task(speaker.scheduler.run())
    try:
        yield speaker
    finally:
        running.cancel()
        speaker.lm.close()


def _state(settings: PodSettings) -> PodState:
    return PodState(settings.component.value)


def _write(path: Path, wave: NDArray[np.float32]) -> float:
    samples = to_pcm16(wave)
    write_mono(path, samples, SPEECH_RATE)
    return len(samples) / SPEECH_RATE
