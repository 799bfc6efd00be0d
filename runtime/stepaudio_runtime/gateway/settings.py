"""Settings of the gateway, read from the environment once, in `serve.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stepaudio_runtime.codec.chat_template import TRANSCRIPTION_PROMPT
from stepaudio_runtime.codec.controls import Reading
from stepaudio_runtime.contract import DEFAULT_MAX_AUDIO_S, GATEWAY_PORT, TERMINATION_LOG, Component, Env
from stepaudio_runtime.errors import ConfigError

MIB = 1024 * 1024

CHAT_MODEL = "step-audio-chat"
TTS_MODEL = "step-audio-tts"
MODELS: Mapping[str, Component] = {CHAT_MODEL: Component.CHAT, TTS_MODEL: Component.TTS}
"""The pool of each model that clients can name."""
MODEL_NAMES = frozenset(MODELS)

STATIC_ROUTING = "STEPAUDIO_STATIC_ROUTING"
HOST = "STEPAUDIO_HOST"
PORT = "STEPAUDIO_PORT"
MAX_BODY_MIB = "STEPAUDIO_MAX_BODY_MIB"
REQUEST_TIMEOUT_S = "STEPAUDIO_REQUEST_TIMEOUT_S"
MAX_INPUT_CHARS = "STEPAUDIO_MAX_INPUT_CHARS"
TRANSCRIPTION_PROMPT_VARIABLE = "STEPAUDIO_TRANSCRIPTION_PROMPT"
MODEL_ALIASES = "STEPAUDIO_MODEL_ALIASES"
VOICE_ALIASES = "STEPAUDIO_VOICE_ALIASES"
CONTROLS = "STEPAUDIO_CONTROLS"
STREAM_IDLE_S = "STEPAUDIO_STREAM_IDLE_S"
MAX_VOICES = "STEPAUDIO_MAX_VOICES"
PAGE = "STEPAUDIO_PAGE"


@dataclass(frozen=True)
class GatewaySettings:
    """Everything about one gateway that is decided outside it. Times in seconds, sizes in bytes."""

    host: str = "0.0.0.0"  # noqa: S104 - a pod serves its Service
    port: int = GATEWAY_PORT
    """Where the gateway listens; STEPAUDIO_HOST and STEPAUDIO_PORT, for use outside a cluster."""

    revision: str = ""
    """Reported in /status."""

    namespace: str = "default"
    """Where the routing ConfigMap and the EndpointSlices are."""

    routing_configmap: str = ""
    """ConfigMap to watch; empty only with `static_routing`."""

    static_routing: Path | None = None
    """A JSON file with explicit URLs instead of Kubernetes, for development and tests; see
    `static_routing.py` for its form."""

    api_keys_dir: Path | None = None
    """Folder with files of `sha256:<hex>` lines; None leaves the API open."""

    max_in_flight: int = 64
    """Requests served at a time; one more is answered 429."""

    max_audio_s: float = DEFAULT_MAX_AUDIO_S
    """Longest audio taken in one part, seconds."""

    max_body: int = 64 * MIB
    """Largest request body, bytes: 30 s of 192 kHz stereo in 24 bit is 46 MiB as base64."""

    body_budget: int = 128 * MIB
    """Bytes of request bodies held by all requests together, at least one of the largest; beyond it 429. For
    a moment a body may cost six times as much, since a text with one emoji takes four bytes a character: two
    of the largest fit into a pod's 1 GiB."""

    max_input_chars: int = 4096
    """Longest `input` of /v1/audio/speech, characters (OpenAI's limit)."""

    stream_idle_s: float = 30.0
    """A stream of text in which nothing comes and nothing is spoken for so long is closed, seconds."""

    request_timeout_s: float = 600.0
    """A request that is not answered in full by then is ended: 504, or a cut stream."""

    connect_timeout_s: float = 2.0
    """For a connection to a pod."""

    silence_timeout_s: float = 300.0
    """Longest silence of a pod in the middle of an answer. A long sentence spoken on a CPU takes minutes
    and is silent until done."""

    drain_timeout_s: float = 30.0
    """How long SIGTERM waits for what is in flight."""

    termination_log: Path = TERMINATION_LOG

    max_new_tokens: int = 2048
    """Length of an answer where the request does not limit it, tokens (the reference's)."""

    transcription_prompt: str = TRANSCRIPTION_PROMPT
    """System prompt that makes the chat model transcribe ("write down the speech that you hear")."""

    model_aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of the models, such as `tts-1` for `step-audio-tts`."""

    voice_aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of voices, such as `alloy` for one of this deployment's."""

    controls: Reading = Reading.COMPATIBLE
    """Whether unknown tags in front of a text, words that `instructions` cannot mean and contradictions are
    errors (strict), or are read aloud, ignored with a note, and decided (compatible)."""

    voices_url: str = ""
    """Store of created voices, `file:///folder` or `s3://bucket/prefix`; empty: none can be created."""

    voices_configmap: str = ""
    """ConfigMap with the voices that stand in Git; empty: there are none."""

    max_voices: int = 1000
    """Created voices kept at most."""

    watermark: bool = True
    """Whether speech in created voices carries an inaudible mark."""

    page: bool = True
    """Whether `/` is the web page, STEPAUDIO_PAGE=on, or nothing, off."""

    decode_threads: int = 2
    """Threads that decode audio, and as many that resample and encode, off the event loop."""


def read_settings(environ: Mapping[str, str]) -> GatewaySettings:
    """Settings from environment variables. Raises ConfigError that names the variable at fault."""
    defaults = GatewaySettings()
    static = environ.get(STATIC_ROUTING)
    keys_dir = environ.get(Env.API_KEYS_DIR)
    configmap = environ.get(Env.ROUTING_CONFIGMAP, "")
    if not static and not configmap:
        raise ConfigError(
            what=f"neither {Env.ROUTING_CONFIGMAP} nor {STATIC_ROUTING} is set",
            cure="name the routing ConfigMap, or a routing file outside a cluster",
        )
    max_body = int(_number(environ, MAX_BODY_MIB, defaults.max_body / MIB, 0.001, 4096) * MIB)
    return GatewaySettings(
        host=environ.get(HOST, defaults.host),
        port=int(_number(environ, PORT, defaults.port, 1, 65535)),
        revision=environ.get(Env.REVISION, ""),
        namespace=environ.get(Env.POD_NAMESPACE, defaults.namespace),
        routing_configmap=configmap,
        static_routing=Path(static) if static else None,
        api_keys_dir=Path(keys_dir) if keys_dir else None,
        max_in_flight=int(_number(environ, Env.MAX_IN_FLIGHT, defaults.max_in_flight, 1, 100_000)),
        max_audio_s=_number(environ, Env.MAX_AUDIO_S, defaults.max_audio_s, 0.1, 3600),
        max_body=max_body,
        body_budget=max(defaults.body_budget, max_body),
        max_input_chars=int(_number(environ, MAX_INPUT_CHARS, defaults.max_input_chars, 1, 10_000_000)),
        stream_idle_s=_number(environ, STREAM_IDLE_S, defaults.stream_idle_s, 0.5, 3600),
        request_timeout_s=_number(environ, REQUEST_TIMEOUT_S, defaults.request_timeout_s, 1, 86_400),
        drain_timeout_s=_number(environ, Env.DRAIN_TIMEOUT_S, defaults.drain_timeout_s, 0, 86_400),
        transcription_prompt=environ.get(TRANSCRIPTION_PROMPT_VARIABLE, defaults.transcription_prompt),
        model_aliases=_aliases(environ, MODEL_ALIASES, targets=MODEL_NAMES),
        voice_aliases=_aliases(environ, VOICE_ALIASES),
        controls=_reading(environ),
        voices_url=environ.get(Env.VOICES_URL, "").strip(),
        voices_configmap=environ.get(Env.VOICES_CONFIGMAP, ""),
        max_voices=int(_number(environ, MAX_VOICES, defaults.max_voices, 1, 100_000)),
        watermark=_switch(environ, Env.WATERMARK, defaults.watermark),
        page=_switch(environ, PAGE, defaults.page),
    )


def _aliases(environ: Mapping[str, str], name: str, targets: frozenset[str] = frozenset()) -> dict[str, str]:
    """`other=own,other=own`. Where there are `targets`, own is one of them and other none."""
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in environ.get(name, "").split(","))):
        alias, equals, target = (part.strip() for part in entry.partition("="))
        if not (alias and equals and target) or alias in found or alias in targets:
            raise ConfigError(
                what=f"{name} has {entry!r}", cure="write other=own, separated by commas, each name once"
            )
        if targets and target not in targets:
            raise ConfigError(
                what=f"{name} maps {alias!r} to {target!r}", cure=f"map to {' or '.join(sorted(targets))}"
            )
        found[alias] = target
    return found


def _reading(environ: Mapping[str, str]) -> Reading:
    text = environ.get(CONTROLS) or Reading.COMPATIBLE
    try:
        return Reading(text)
    except ValueError:
        raise ConfigError(what=f"{CONTROLS}={text!r}", cure=f"use {' or '.join(Reading)}") from None


def _switch(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name) or ("on" if default else "off")
    if text not in {"on", "off"}:
        raise ConfigError(what=f"{name}={text!r}", cure="use on or off")
    return text == "on"


def _number(environ: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environ.get(name)
    if text is None or text == "":
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ConfigError(what=f"{name}={text!r}", cure=f"set it to a number from {low:g} to {high:g}")
    return value
