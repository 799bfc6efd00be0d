"""What is said over the wire, part two of the contract: the JSON of requests, answers and ConfigMaps.

Names, routes and headers stand in `contract.py`; `tests/contract/test_wire_contract.py` compares both with
the operator and `docs/architecture.md`.
"""

from enum import StrEnum
from typing import Final, Literal, NotRequired, TypedDict


class Phase(StrEnum):
    """`phase` of `GET /status`."""

    LOADING = "Loading"
    READY = "Ready"
    DRAINING = "Draining"
    FAILED = "Failed"


class LoadStatus(TypedDict):
    """Progress of loading or downloading a model, in bytes; seconds that are left, where that is known."""

    bytesLoaded: int
    bytesTotal: int
    etaSeconds: int | None


class GpuStatus(TypedDict):
    """One GPU of a pod: temperature in degrees Celsius, ECC errors that lost data, the last XID."""

    product: str
    usedBytes: int
    totalBytes: int
    temperature: int | None
    eccErrors: int | None
    xid: int | None


class LatelyStatus(TypedDict):
    """A pod's work in the last minute: requests in flight on average, and the mean times that they waited
    before work on them began, and until the first sound; None where there was nothing to measure.
    """

    inFlight: float
    queueSeconds: float | None
    firstAudioSeconds: float | None


class PodStatus(TypedDict):
    """Body of `GET /status`. `waiting` is a gateway's: see docs/architecture.md."""

    component: str
    revision: str
    phase: Literal["Loading", "Ready", "Draining", "Failed"]
    ready: bool
    draining: bool
    inFlight: int
    lately: LatelyStatus
    load: LoadStatus
    gpus: list[GpuStatus]
    routingGeneration: int | None
    waiting: dict[str, int] | None
    reason: str
    message: str


class SampleCounts(TypedDict):
    """Samples of training data: made so far, the refused ones among them, and wanted in all."""

    made: int
    refused: int
    total: int


class DataStatus(PodStatus):
    """Body of `GET /status` of a pod that makes training data."""

    samples: SampleCounts


class DataFigures(TypedDict):
    """Termination message of such a pod whose data are whole: samples taken, refused, seconds of speech."""

    samples: int
    refused: int
    seconds: int


class NotReady(TypedDict):
    """Body of `GET /readyz` with status 503."""

    reason: str
    message: str


class ErrorDetail(TypedDict):
    """What went wrong, in OpenAI's fields."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """Body of every 4xx and 5xx."""

    error: ErrorDetail


class ModelInfo(TypedDict):
    """Body of a chat pod's `GET /stepaudio/model`: ids are token ids of the language model."""

    model: str
    audio_offset: int
    vocab_size: int
    bos: int
    eot: int
    bot: int
    max_model_len: int


class AudioTokens(TypedDict):
    """Body of the tokenizer pod's answer: codes are 0..5119, interleaved 2 linguistic to 3 semantic."""

    codes: list[int]
    linguistic: int
    semantic: int
    duration_s: float


class SpeechRequest(TypedDict):
    """Body of the TTS pod's `POST /v1/speech`: exactly one of `input` and `codes`."""

    input: NotRequired[str]
    codes: NotRequired[list[int]]
    voice: NotRequired[str]
    seed: NotRequired[int]


class Voice(TypedDict):
    """One voice of the TTS pod."""

    id: str
    name: str


class VoiceList(TypedDict):
    """Body of `GET /v1/voices`."""

    data: list[Voice]


class RoutingWake(TypedDict):
    """What a gateway does with a request for a pool that sleeps: hold it so long, if at all, then 503."""

    holdSeconds: int | None
    retryAfterSeconds: int


class RoutingPool(TypedDict):
    """One pool of the routing object: `revisions` maps a revision to its weight; `wake`: it may sleep."""

    service: str
    port: int
    revisions: dict[str, int]
    wake: NotRequired[RoutingWake]


class RoutingObject(TypedDict):
    """The JSON under `routing.json` of the ConfigMap `NAME-routing`."""

    generation: int
    release: str
    serving: bool
    retryAfterSeconds: int | None
    pools: dict[str, RoutingPool]


class RevisionFigures(TypedDict):
    """What one gateway has seen of one revision: `firstByte` counts answers by time, see below."""

    requests: int
    errors: int
    firstByte: list[int]


class ServedFigures(TypedDict):
    """Body of a gateway's `GET /stepaudio/figures`: by pool and revision, those that it serves now."""

    pools: dict[str, dict[str, RevisionFigures]]


class VoiceSource(TypedDict):
    """A recording in a ConfigMap of the deployment's namespace, under `binaryData`."""

    configMap: str
    key: str
    sha256: str


class WantedVoice(TypedDict):
    """One StepAudioVoice: `digest` is of all that it says."""

    uid: str
    name: str
    digest: str
    wave: VoiceSource
    transcript: NotRequired[str]
    person: str
    statement: str
    consentRecording: NotRequired[VoiceSource]


class VoicesObject(TypedDict):
    """The JSON under `voices.json` of the ConfigMap `NAME-voices`; `owner` is `namespace/deployment`."""

    owner: str
    voices: list[WantedVoice]


class DeclaredState(TypedDict):
    """What has become of one of them at a gateway; the last two are known of a stored one."""

    digest: str
    state: Literal["Pending", "Stored", "Failed"]
    reason: str
    message: str
    durationSeconds: float | None
    transcribed: bool | None


class DeclaredStates(TypedDict):
    """Body of a gateway's `GET /stepaudio/voices`, by the uid of the StepAudioVoice."""

    voices: dict[str, DeclaredState]


FIRST_BYTE_BOUNDS_S: Final = tuple(round(0.01 * 1.2**n, 4) for n in range(53))
"""Upper bounds of the counts in `firstByte` (s), each a fifth above the one before; one more count holds what
took longer.
"""
