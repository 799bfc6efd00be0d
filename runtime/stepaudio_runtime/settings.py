"""Settings of the pods, read once from the environment by `stepaudio serve`; units stand with each field.

The variables shared with the operator are in `contract.Env`; those below are for tests and for hands.
A value that cannot be right ends the pod with a ConfigError that names the variable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from stepaudio_runtime.contract import (
    DEFAULT_MAX_AUDIO_S,
    MODELS_MOUNT,
    POOL_PORT,
    TERMINATION_LOG,
    Component,
    Env,
)
from stepaudio_runtime.errors import ConfigError

ENV_HOST: Final = "STEPAUDIO_HOST"
ENV_PORT: Final = "STEPAUDIO_PORT"
ENV_TERMINATION_LOG: Final = "STEPAUDIO_TERMINATION_LOG"
ENV_LOAD_STALL_TIMEOUT_S: Final = "STEPAUDIO_LOAD_STALL_TIMEOUT_S"
ENV_THREADS: Final = "STEPAUDIO_THREADS"
ENV_MAX_SPEECH_CODES: Final = "STEPAUDIO_MAX_SPEECH_CODES"
ENV_MAX_INPUT_CHARS: Final = "STEPAUDIO_MAX_INPUT_CHARS"
ENV_MAX_HELD_AUDIO_S: Final = "STEPAUDIO_MAX_HELD_AUDIO_S"
ENV_MAX_SESSIONS: Final = "STEPAUDIO_MAX_SESSIONS"
ENV_SESSION_IDLE_S: Final = "STEPAUDIO_SESSION_IDLE_S"
ENV_MAX_STREAM_S: Final = "STEPAUDIO_MAX_STREAM_S"
ENV_SEMANTIC_WINDOW_S: Final = "STEPAUDIO_SEMANTIC_WINDOW_S"
ENV_SEMANTIC_HOP_S: Final = "STEPAUDIO_SEMANTIC_HOP_S"
ENV_RUN_DIR: Final = "STEPAUDIO_RUN_DIR"
ENV_GROUP_PORT: Final = "STEPAUDIO_GROUP_PORT"


@dataclass(frozen=True)
class PodSettings:
    """What every pool pod needs."""

    component: Component
    models_dir: Path  # holds the three model folders
    revision: str = ""  # of the pool, shown in /status
    host: str = "0.0.0.0"  # noqa: S104 - a pod is reached through its address
    port: int = POOL_PORT
    drain_timeout_s: float = 60.0  # how long SIGTERM waits for requests in flight
    stall_timeout_s: float = 120.0  # requests in flight without a step for this long end the pod
    canary_interval_s: float = 60.0  # how often an idle pod proves itself
    load_stall_timeout_s: float = 600.0  # a load that reads nothing and says nothing for this long ends
    max_in_flight: int = 64  # requests; beyond it 429
    threads: int = 0  # of torch in this process; 0 leaves torch's own choice
    termination_log: Path = TERMINATION_LOG
    run_dir: Path = Path("/tmp/stepaudio")  # noqa: S108 - an emptyDir of the pod; sockets and caches

    @classmethod
    def from_env(cls, env: Mapping[str, str], component: Component) -> "PodSettings":
        """Settings of this process; raises ConfigError."""
        read = _Reader(env)
        return cls(
            component=component,
            models_dir=Path(env.get(Env.MODELS_DIR) or MODELS_MOUNT),
            revision=env.get(Env.REVISION, ""),
            host=env.get(ENV_HOST) or cls.host,
            port=read.integer(ENV_PORT, cls.port, 1, 65535),
            drain_timeout_s=read.number(Env.DRAIN_TIMEOUT_S, cls.drain_timeout_s, 0, 86_400),
            stall_timeout_s=read.number(Env.STALL_TIMEOUT_S, cls.stall_timeout_s, 1, 360_000_000),
            canary_interval_s=read.number(Env.CANARY_INTERVAL_S, cls.canary_interval_s, 1, 360_000_000),
            load_stall_timeout_s=read.number(
                ENV_LOAD_STALL_TIMEOUT_S, cls.load_stall_timeout_s, 1, 360_000_000
            ),
            max_in_flight=read.integer(Env.MAX_IN_FLIGHT, cls.max_in_flight, 1, 100_000),
            threads=read.integer(ENV_THREADS, cls.threads, 0, 1024),
            termination_log=Path(env.get(ENV_TERMINATION_LOG) or cls.termination_log),
            run_dir=Path(env.get(ENV_RUN_DIR) or cls.run_dir),
        )


_QUANTIZATIONS: Mapping[str, Literal["FP8", "INT4"] | None] = {"": None, "FP8": "FP8", "INT4": "INT4"}


@dataclass(frozen=True)
class Group:
    """Of a model that several pods share: how many they are, which of them this is, and the pod of rank 0,
    which leads: it alone serves.
    """

    nodes: int
    rank: int
    leader: str  # host name or address
    leader_port: int = POOL_PORT  # where the leader serves its health and its requests
    port: int = 29501  # of the leader, where the engine's processes find each other

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Group | None":
        """The group of this pod; None where it is alone. Raises ConfigError."""
        read = _Reader(env)
        nodes = read.integer(Env.NODES, 1, 1, 64)
        if nodes == 1:
            return None
        host, _, port = env.get(Env.LEADER_ADDRESS, "").partition(":")
        if not host:
            raise ConfigError(
                what=f"{Env.NODES}={nodes} and no {Env.LEADER_ADDRESS}", cure="name the pod of rank 0"
            )
        return cls(
            nodes=nodes,
            rank=read.integer(Env.NODE_RANK, 0, 0, nodes - 1),
            leader=host,
            leader_port=int(port) if port.isdigit() else cls.leader_port,
            port=read.integer(ENV_GROUP_PORT, cls.port, 1, 65535),
        )


@dataclass(frozen=True)
class EngineSettings:
    """How vLLM runs a language model."""

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    tensor_parallel: int = 1  # devices (on a CPU: processes) that share one model
    max_model_len: int | None = None  # tokens of prompt and answer; None: what config.json allows
    gpu_memory_utilization: float = 0.90  # share of a GPU's memory; CUDA only
    kv_cache_gib: float = 1.0  # GiB of KV cache; CPU only
    quantization: Literal["FP8", "INT4"] | None = None  # of the matrices; INT4 is the checkpoint's own
    group: Group | None = None  # None: this pod has the whole model

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "EngineSettings":
        """Settings of this process; raises ConfigError."""
        read = _Reader(env)
        length = read.integer(Env.MAX_MODEL_LEN, 0, 0, 1 << 24)
        device = read.choice(Env.DEVICE, cls.device, ("cpu", "cuda"))
        dtype = read.choice(Env.DTYPE, "bfloat16" if device == "cuda" else cls.dtype, ("float32", "bfloat16"))
        return cls(
            device="cuda" if device == "cuda" else "cpu",
            dtype="bfloat16" if dtype == "bfloat16" else "float32",
            tensor_parallel=read.integer(Env.TENSOR_PARALLEL, cls.tensor_parallel, 1, 64),
            max_model_len=length or None,
            gpu_memory_utilization=read.number(
                Env.GPU_MEMORY_UTILIZATION, cls.gpu_memory_utilization, 0.05, 1.0
            ),
            kv_cache_gib=read.number(Env.KV_CACHE_GIB, cls.kv_cache_gib, 0.001, 4096),
            quantization=_QUANTIZATIONS[read.choice(Env.QUANTIZATION, "", tuple(_QUANTIZATIONS))],
            group=Group.from_env(env),
        )

    @property
    def kv_cache_bytes(self) -> int:
        """`kv_cache_gib` in bytes."""
        return int(self.kv_cache_gib * (1 << 30))


@dataclass(frozen=True)
class TokenizerSettings:
    """Bounds of the tokenizer pod."""

    max_audio_s: float = DEFAULT_MAX_AUDIO_S  # seconds of audio in one request
    max_held_audio_s: float = 600.0  # seconds of audio of all requests together; beyond it 429
    max_sessions: int = 32  # streams open at a time; beyond it 429
    session_idle_s: float = 30.0  # a stream whose client says nothing for this long is closed
    max_stream_s: float = 3600.0  # seconds of audio in one stream
    semantic_window_s: float = 1.92  # what a stream gets that asks for nothing else
    semantic_hop_s: float = 0.96

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "TokenizerSettings":
        """Settings of this process; raises ConfigError."""
        read = _Reader(env)
        settings = cls(
            max_audio_s=read.number(Env.MAX_AUDIO_S, cls.max_audio_s, 0.1, 3600),
            max_held_audio_s=read.number(ENV_MAX_HELD_AUDIO_S, cls.max_held_audio_s, 1, 1e6),
            max_sessions=read.integer(ENV_MAX_SESSIONS, cls.max_sessions, 0, 10_000),
            session_idle_s=read.number(ENV_SESSION_IDLE_S, cls.session_idle_s, 0.1, 3600),
            max_stream_s=read.number(ENV_MAX_STREAM_S, cls.max_stream_s, 1, 86_400),
            semantic_window_s=read.number(ENV_SEMANTIC_WINDOW_S, cls.semantic_window_s, 0.24, 30),
            semantic_hop_s=read.number(ENV_SEMANTIC_HOP_S, cls.semantic_hop_s, 0.24, 30),
        )
        if settings.semantic_hop_s > settings.semantic_window_s:
            raise ConfigError(
                what=f"{ENV_SEMANTIC_HOP_S}={settings.semantic_hop_s:g} is longer than the window of "
                f"{settings.semantic_window_s:g} s",
                cure=f"lower it, or raise {ENV_SEMANTIC_WINDOW_S}",
            )
        return settings


@dataclass(frozen=True)
class TtsSettings:
    """Bounds of the TTS pod."""

    max_codes: int = 2048  # audio codes in one answer: 41.7 make a second
    max_input_chars: int = 4096  # characters of text in one request
    voices_url: str = ""  # of the store of created voices; empty where there is none
    with_tokenizer: bool = False  # whether the pod serves the tokenizer too

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "TtsSettings":
        """Settings of this process; raises ConfigError."""
        read = _Reader(env)
        return cls(
            max_codes=read.integer(ENV_MAX_SPEECH_CODES, cls.max_codes, 5, 8192),
            max_input_chars=read.integer(ENV_MAX_INPUT_CHARS, cls.max_input_chars, 1, 100_000),
            voices_url=env.get(Env.VOICES_URL, "").strip(),
            with_tokenizer=read.choice(Env.WITH_TOKENIZER, "off", ("off", "on")) == "on",
        )


class _Reader:
    """Reads variables, each with its bounds; an empty one counts as absent."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.number(name, default, low, high)
        if value != int(value):
            raise ConfigError(what=f"{name}={self._env[name]!r} is not a whole number", cure="correct it")
        return int(value)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self._env.get(name, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(what=f"{name}={text!r} is not a number", cure="correct it") from None
        if not low <= value <= high:  # also false for NaN
            raise ConfigError(what=f"{name}={text} is outside {low:g} to {high:g}", cure="correct it")
        return value

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self._env.get(name, "").strip() or default
        if value not in allowed:
            raise ConfigError(
                what=f"{name}={value!r} is unknown", cure=f"use one of {', '.join(filter(None, allowed))}"
            )
        return value
