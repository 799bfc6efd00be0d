"""The TTS language model in vLLM: prompt ids in, audio codes out, restricted to audio ids and end of turn.

vLLM's engine core is a process of its own; this side only schedules and streams ids.
"""

import math
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from stepaudio_runtime.codec.layout import CODE_RATE
from stepaudio_runtime.contract import EOT_ID
from stepaudio_runtime.errors import InputError, beginning
from stepaudio_runtime.service.engine import (
    CPU_SEQUENCES,
    SHUTDOWN_TIMEOUT_S,
    EngineFailed,
    vllm_quantization,
)
from stepaudio_runtime.service.last_lines import POINTER, SHOWN_CHARACTERS, LastLines, overheard
from stepaudio_runtime.settings import EngineSettings
from stepaudio_runtime.tts.text import wide_characters

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

TEMPERATURE = 0.7
SLOWEST_WIDE_CHARACTERS_PER_S = 2.0  # a Chinese character is a syllable
SLOWEST_NARROW_CHARACTERS_PER_S = 6.0
PAUSES_S = 2.0  # before, after and between


@dataclass(frozen=True)
class SpeechLm:
    """A loaded model. `audio_offset` is the id of code 0; `max_model_len` counts prompt and answer; `heard`
    is what its processes wrote.
    """

    engine: "AsyncLLM"
    audio_offset: int
    max_model_len: int
    heard: LastLines = field(default_factory=LastLines)

    @property
    def dead(self) -> bool:
        """Whether the engine has died; it does not come back."""
        return bool(self.engine.errored)

    def series(self) -> bytes:
        """vLLM's own Prometheus series (`vllm:...`): requests, KV cache, prefix cache."""
        from vllm.v1.metrics.prometheus import get_prometheus_registry

        lines = generate_latest(get_prometheus_registry()).splitlines(keepends=True)
        return b"".join(line for line in lines if b"vllm:" in line[:12])

    def close(self) -> None:
        """End the engine's process."""
        self.engine.shutdown(timeout=SHUTDOWN_TIMEOUT_S)

    def room(self, prompt: Sequence[int], wanted: int) -> int:
        """Codes that may be generated after `prompt`, at most `wanted`; raises InputError where none fit."""
        room = self.max_model_len - len(prompt) - 1
        if room < 1:
            raise InputError(
                f"the text is too long: {len(prompt)} tokens with its voice, of {self.max_model_len} in all",
                param="input",
                code="input_too_long",
            )
        return min(room, wanted)

    async def stream(self, prompt: Sequence[int], *, max_codes: int, seed: int) -> AsyncGenerator[list[int]]:
        """Codes 0..5119 of the answer as they come, without the end of turn. Closing it aborts the request.

        Raises InputError where `prompt` leaves no room for an answer.
        """
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=TEMPERATURE,
            max_tokens=self.room(prompt, max_codes),
            seed=seed,
            stop_token_ids=[EOT_ID],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"audio_from": self.audio_offset, "repetition_aware": True},
        )
        tokens = TokensPrompt(prompt_token_ids=list(prompt))
        answer = self.engine.generate(tokens, params, f"speech-{uuid.uuid4().hex}")
        async with aclosing(answer):
            async for output in answer:
                ids = output.outputs[0].token_ids
                if codes := [id_ - self.audio_offset for id_ in ids if id_ != EOT_ID]:
                    yield codes


def start_speech_lm(
    folder: Path, settings: EngineSettings, *, max_model_len: int, audio_offset: int
) -> SpeechLm:
    """Start vLLM on the model in `folder`: blocking, for a minute or more. Set its environment before.

    Raises EngineFailed with what its processes died of.
    """
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype=settings.dtype,
        tensor_parallel_size=settings.tensor_parallel,
        max_model_len=max_model_len,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_memory_bytes=settings.kv_cache_bytes if settings.device == "cpu" else None,
        enforce_eager=settings.device == "cpu",
        max_num_seqs=CPU_SEQUENCES if settings.device == "cpu" else None,
        generation_config="vllm",
        quantization=vllm_quantization(settings),
        disable_log_stats=False,  # for the series of its scheduler and KV cache
        enable_log_requests=False,
    )
    with overheard() as heard:
        try:
            engine = AsyncLLM.from_engine_args(arguments)
        except Exception as error:  # vLLM raises whatever its processes died of
            cause = error
        else:
            return SpeechLm(engine, audio_offset, max_model_len, heard)
    raise EngineFailed(f"vLLM did not start: {cause_of(cause, heard)}") from cause


def cause_of(error: Exception, heard: LastLines) -> str:
    """In one line: the error, or where that only points at another process, what that one said."""
    if POINTER in str(error):
        return heard.last_error()
    return f"{type(error).__name__}: {beginning(str(error), SHOWN_CHARACTERS)}"


def speech_bound(text: str) -> int:
    """Most codes that `text` can sensibly take: a model that goes on beyond has lost its thread.

    The time of a very slow speaker and the pauses, in codes.
    """
    wide = wide_characters(text)
    spoken_s = wide / SLOWEST_WIDE_CHARACTERS_PER_S + (len(text) - wide) / SLOWEST_NARROW_CHARACTERS_PER_S
    return math.ceil((spoken_s + PAUSES_S) * CODE_RATE)
