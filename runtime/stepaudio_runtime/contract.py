"""The wire contract as the runtime sees it: every name, variable, port, path, route and header shared
with the operator or spoken between pods. What is said there, the JSON, is in `bodies.py`.

The operator has its own table (`stepaudio_operator/names.py`); neither package imports the other, and
`tests/contract/test_wire_contract.py` holds the two and `docs/architecture.md` together. Nothing here
computes beyond joining names, and nothing is read from the environment at import.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

# --- Kubernetes names -------------------------------------------------------------------------------

API_GROUP: Final = "stepaudio.io"
API_VERSION: Final = "v1alpha1"


class Component(StrEnum):
    """The four kinds of pool."""

    CHAT = "chat"
    TTS = "tts"
    TOKENIZER = "tokenizer"
    GATEWAY = "gateway"


LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_DEPLOYMENT: Final = f"{API_GROUP}/deployment"
LABEL_POOL: Final = f"{API_GROUP}/pool"
LABEL_REVISION: Final = f"{API_GROUP}/revision"
APP_NAME: Final = "step-audio"

ROUTING_KEY: Final = "routing.json"
"""Key of the routing ConfigMap's data that holds the routing object."""

VOICES_KEY: Final = "voices.json"
"""Key of the ConfigMap's data that holds the voices that stand in Git."""

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
"""Label by which Kubernetes ties an EndpointSlice to its Service."""


def pool_name(deployment: str, component: Component) -> str:
    """Name of a pool, and of the Service in front of it."""
    return f"{deployment}-{component.value}"


def routing_configmap_name(deployment: str) -> str:
    """Name of the ConfigMap that holds the routing object."""
    return f"{deployment}-routing"


def voices_configmap_name(deployment: str) -> str:
    """Name of the ConfigMap that holds the voices that stand in Git."""
    return f"{deployment}-voices"


def pod_revision(pod_name: str, pool: str) -> str | None:
    """Revision of a pod named `{pool}-{revision}-{slot}`, or of one named `{pool}-{revision}-{slot}-0`, which
    leads a group of several; None where the name is not of that form.
    """
    prefix = f"{pool}-"
    if not pod_name.startswith(prefix):
        return None
    revision, dash, slot = pod_name[len(prefix) :].partition("-")
    slot, dashed, rank = slot.partition("-")
    is_revision = len(revision) == REVISION_DIGITS and all(c in "0123456789abcdef" for c in revision)
    is_alone_or_leads = rank == "0" if dashed else True
    return revision if dash and slot.isdigit() and is_revision and is_alone_or_leads else None


REVISION_DIGITS: Final = 8
"""Hex digits in a revision."""

# --- Process ----------------------------------------------------------------------------------------

COMMAND: Final = "stepaudio"  # `stepaudio serve COMPONENT`

PORT_NAME: Final = "http"
POOL_PORT: Final = 8000
GATEWAY_PORT: Final = 8080
GATEWAY_SERVICE_PORT: Final = 80

RUN_AS_UID: Final = 10001
RUN_AS_GID: Final = 10001

MODELS_MOUNT: Final = Path("/models")
NANO_MODELS_DIR: Final = Path("/opt/stepaudio/nano")
TERMINATION_LOG: Final = Path("/dev/termination-log")

TOKENIZER_FOLDER: Final = "Step-Audio-Tokenizer"
CHAT_FOLDER: Final = "Step-Audio-Chat"
TTS_FOLDER: Final = "Step-Audio-TTS-3B"

EXIT_CONFIG: Final = 78
"""Exit status for a fault of configuration or model files (sysexits' EX_CONFIG): no restart cures it."""

EXIT_UNAVAILABLE: Final = 75
"""Exit status where something outside the pod failed (sysexits' EX_TEMPFAIL): it condemns no revision."""

GRACE_BEYOND_DRAIN_S: Final = 30
"""terminationGracePeriodSeconds = drain timeout + this, in seconds."""

DEFAULT_MAX_AUDIO_S: Final = 30.0


class StartReason(StrEnum):
    """First word of the line that a pod leaves behind when it cannot start."""

    MODEL_FILE_MISSING = "ModelFileMissing"
    MODEL_FILE_TRUNCATED = "ModelFileTruncated"
    MODEL_SHAPE_MISMATCH = "ModelShapeMismatch"
    MODEL_CONFIG_INVALID = "ModelConfigInvalid"


class Env:
    """Environment variables of the pods."""

    MODELS_DIR: Final = "STEPAUDIO_MODELS_DIR"
    MODELS_SOURCE: Final = "STEPAUDIO_MODELS_SOURCE"
    MODELS_TOKEN: Final = "STEPAUDIO_MODELS_TOKEN"  # noqa: S105 - the variable's name
    RECIPE: Final = "STEPAUDIO_RECIPE"
    DEPLOYMENT: Final = "STEPAUDIO_DEPLOYMENT"
    COMPONENT: Final = "STEPAUDIO_COMPONENT"
    REVISION: Final = "STEPAUDIO_REVISION"
    POD_NAME: Final = "POD_NAME"
    POD_NAMESPACE: Final = "POD_NAMESPACE"
    DRAIN_TIMEOUT_S: Final = "STEPAUDIO_DRAIN_TIMEOUT_S"
    # engine
    DTYPE: Final = "STEPAUDIO_DTYPE"
    TENSOR_PARALLEL: Final = "STEPAUDIO_TENSOR_PARALLEL"
    MAX_MODEL_LEN: Final = "STEPAUDIO_MAX_MODEL_LEN"
    GPU_MEMORY_UTILIZATION: Final = "STEPAUDIO_GPU_MEMORY_UTILIZATION"
    DEVICE: Final = "STEPAUDIO_DEVICE"
    KV_CACHE_GIB: Final = "STEPAUDIO_KV_CACHE_GIB"
    QUANTIZATION: Final = "STEPAUDIO_QUANTIZATION"
    # of a replica that consists of several pods
    NODES: Final = "STEPAUDIO_NODES"
    NODE_RANK: Final = "STEPAUDIO_NODE_RANK"
    LEADER_ADDRESS: Final = "STEPAUDIO_LEADER_ADDRESS"
    # health
    CANARY_INTERVAL_S: Final = "STEPAUDIO_CANARY_INTERVAL_S"
    STALL_TIMEOUT_S: Final = "STEPAUDIO_STALL_TIMEOUT_S"
    # tts
    WITH_TOKENIZER: Final = "STEPAUDIO_WITH_TOKENIZER"
    # gateway and tts
    VOICES_URL: Final = "STEPAUDIO_VOICES_URL"
    # gateway
    VOICES_CONFIGMAP: Final = "STEPAUDIO_VOICES_CONFIGMAP"
    WATERMARK: Final = "STEPAUDIO_WATERMARK"
    ROUTING_CONFIGMAP: Final = "STEPAUDIO_ROUTING_CONFIGMAP"
    API_KEYS_DIR: Final = "STEPAUDIO_API_KEYS_DIR"
    MAX_AUDIO_S: Final = "STEPAUDIO_MAX_AUDIO_S"
    MAX_IN_FLIGHT: Final = "STEPAUDIO_MAX_IN_FLIGHT"


API_KEY_PREFIX: Final = "sha256:"
"""A line of a file under STEPAUDIO_API_KEYS_DIR is this and the hex digest of one API key."""

# --- Routes -----------------------------------------------------------------------------------------


class Route:
    """Paths. The first four are served by every pool pod and by the gateway."""

    HEALTHZ: Final = "/healthz"
    READYZ: Final = "/readyz"
    STATUS: Final = "/status"
    METRICS: Final = "/metrics"
    # chat pod
    COMPLETIONS: Final = "/v1/completions"
    TOKENIZER_MODEL: Final = "/stepaudio/tokenizer.model"
    MODEL_INFO: Final = "/stepaudio/model"
    # tokenizer pod
    AUDIO_TOKENS: Final = "/v1/audio/tokens"  # the gateway serves it too
    AUDIO_TOKENS_STREAM: Final = "/v1/audio/tokens/stream"  # a WebSocket
    # tts pod
    SPEECH: Final = "/v1/speech"
    VOICES: Final = "/v1/voices"  # the model's own; the gateway serves it too, with the created ones
    # gateway
    FIGURES: Final = "/stepaudio/figures"
    DECLARED_VOICES: Final = "/stepaudio/voices"
    # gateway, as OpenAI names them
    CHAT_COMPLETIONS: Final = "/v1/chat/completions"
    AUDIO_SPEECH: Final = "/v1/audio/speech"
    AUDIO_SPEECH_STREAM: Final = "/v1/audio/speech/stream"  # a WebSocket
    AUDIO_TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
    MODELS: Final = "/v1/models"


HEADER_SAMPLE_RATE: Final = "X-Sample-Rate"
HEADER_TEXT_TOKENS: Final = "X-Text-Tokens"
"""Of speech: how many tokens its text has."""
HEADER_CREATED_VOICE: Final = "X-Created-Voice"
"""Of speech: `1` where its voice was created through the API; absent for the model's own."""
HEADER_ETAG: Final = "ETag"
"""Of a chat pod's `tokenizer.model`: its SHA-256 in hex, in quotes."""
HEADER_RETRY_AFTER: Final = "Retry-After"
HEADER_NOTES: Final = "X-Notes"
"""Of the gateway's answers: what of the request was ignored, a JSON list."""
HEADER_REQUEST_ID: Final = "X-Request-Id"

TYPE_OCTETS: Final = "application/octet-stream"
TYPE_L16: Final = "audio/L16"
"""Signed 16 bit PCM. Little-endian between our pods (the RFC says big; the header's rate is binding)."""

SPEECH_RATE: Final = 22050
"""Sampling rate of what the vocoder makes, Hz."""
MIN_RATE: Final = 8_000
"""Lowest sampling rate taken as input, Hz."""
MAX_RATE: Final = 192_000
"""Highest sampling rate taken as input, Hz."""

# --- Token ids --------------------------------------------------------------------------------------

LINGUISTIC_CODES: Final = 1024
SEMANTIC_CODES: Final = 4096
AUDIO_CODES: Final = LINGUISTIC_CODES + SEMANTIC_CODES  # 5120: linguistic first
AUDIO_OFFSET: Final = 65536
"""Id of `<audio_0>` unless config.json says otherwise under `audio_token_offset`."""
AUDIO_OFFSET_KEY: Final = "audio_token_offset"
SENTENCES_KEY: Final = "sentences_at_once"
"""Of config.json: how many sentences a TTS model says in one answer; absent: as many as fit."""

PAD_ID: Final = 0
BOS_ID: Final = 1
EOS_ID: Final = 2
EOT_ID: Final = 3
BOT_ID: Final = 4
EOT_TEXT: Final = "<|EOT|>"
BOT_TEXT: Final = "<|BOT|>"


def audio_text(code: int) -> str:
    """An audio code as it is written in text."""
    return f"<audio_{code}>"
