"""Bodies of requests, as OpenAI's API has them, and what of them is served here.

A field that would change the answer and is not served is refused by name unless it holds its neutral value;
fields that change nothing here are taken and ignored.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stepaudio_runtime.audio.tempo import FASTEST, SLOWEST
from stepaudio_runtime.codec.controls import Directed, Reading, direct
from stepaudio_runtime.codec.tags import Group
from stepaudio_runtime.contract import AUDIO_CODES
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.sound import Manner
from stepaudio_runtime.gateway.tools import Offer, ToolChoice, Tools

INT64 = 2**63
MAX_VALUES = 100_000
"""Values in a body. Every one costs up to a hundred bytes once it is read, and three in what is sent."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    # OpenAI's own fields, and the values that ask for nothing
    "audio_format": (),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
    "include": ([],),
    "chunking_strategy": (),
}
IGNORED = frozenset(
    {
        "metadata",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)


class Body(BaseModel):
    """A body of which every field is either known, neutral, ignored, or refused by name."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    def refuse_unserved(self) -> None:
        """Raise InputError for the first field that is not served."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in IGNORED:
                continue
            if name not in NEUTRAL:
                raise InputError(
                    f"Unrecognized request argument supplied: {name[:64]}",
                    param=name[:64],
                    code="unknown_parameter",
                )
            if value not in NEUTRAL[name]:
                raise InputError(
                    f"`{name}` is not supported by this deployment with this value; leave it out",
                    param=name,
                    code="unsupported_parameter",
                )


B = TypeVar("B", bound=Body)


def read_body(raw: bytes | bytearray, schema: type[B]) -> B:
    """The JSON of a request, checked field by field; takes its time for a large one. Raises InputError."""
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise InputError(f"the body has more than {MAX_VALUES:,} values", code="too_many_values")
    try:
        return schema.model_validate_json(raw)
    except ValidationError as fault:
        raise input_error(fault) from fault


class VoiceId(BaseModel):
    """A voice by its id."""

    model_config = ConfigDict(strict=True)
    id: Annotated[str, Field(min_length=1, max_length=128)]


VoiceName = Annotated[str, Field(min_length=1, max_length=128)] | VoiceId


Speed = Annotated[float, Field(ge=SLOWEST, le=FASTEST)]
"""How many times as fast as the model speaks; the pitch stays."""
Volume = Annotated[float, Field(ge=0, le=4)]
"""A factor on the samples; what would be too loud is rounded off."""


ControlName = Annotated[str, Field(min_length=1, max_length=64)]


class _Spoken(BaseModel):
    """How the model is to speak, and what is done to its speech afterwards."""

    emotion: ControlName | None = None
    language: ControlName | None = None
    rate: ControlName | None = None
    style: ControlName | None = None
    instructions: Annotated[str, Field(max_length=4096)] | None = None
    speed: Speed | None = None
    volume: Volume | None = None

    def direct(self, text: str, reading: Reading) -> Directed:
        """`text` as this asks for it to be spoken. Raises InputError."""
        typed = {group: value for group in Group if (value := getattr(self, group.value)) is not None}
        return direct(text, typed=typed, instructions=self.instructions or "", reading=reading)


def manner_of(body: _Spoken) -> Manner:
    """What `body` asks to be done to the model's speech."""
    return Manner(
        1.0 if body.speed is None else body.speed,
        1.0 if body.volume is None else body.volume,
    )


class AudioOutput(_Spoken):
    """How the answer is to be spoken."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    format: Literal["wav", "flac", "mp3", "opus", "aac", "pcm16"]
    voice: VoiceName | None = None


class StreamOptions(BaseModel):
    """What a stream carries besides the answer."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


Stop = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(Body):
    """Body of `POST /v1/chat/completions`; the messages are read by `conversation.py`."""

    model: str
    messages: Annotated[list[Any], Field(min_length=1, max_length=4096)]
    modalities: Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=2)] | None = None
    audio: AudioOutput | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=1024)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def offer(self) -> Offer:
        """The tools that the model may call. Raises InputError."""
        return Offer(self.tools, self.tool_choice, parallel=self.parallel_tool_calls is not False)

    @property
    def speaks(self) -> bool:
        """Whether the answer is to be spoken."""
        return "audio" in (self.modalities or ())

    def check(self) -> None:
        """What fields say together. Raises InputError."""
        self.refuse_unserved()
        if self.n not in (None, 1):
            raise InputError(
                "only n=1 is served; send several requests", param="n", code="unsupported_parameter"
            )
        if self.speaks and self.audio is None:
            raise InputError(
                '`audio` is required when `modalities` has "audio"', param="audio", code="missing_parameter"
            )
        if self.modalities == ["audio"]:
            raise InputError(
                'use ["text"] or ["text", "audio"]', param="modalities", code="unsupported_parameter"
            )
        if self.speaks and self.stream and self.audio and self.audio.format != "pcm16":
            raise InputError(
                "a stream carries audio as pcm16 only", param="audio.format", code="unsupported_value"
            )


Code = Annotated[int, Field(ge=0, lt=AUDIO_CODES)]
MAX_CODES = 8192
"""Audio codes in one request, about 197 s; the TTS pod's own bound may be lower."""


class SpeechBody(Body, _Spoken):
    """Body of `POST /v1/audio/speech`: exactly one of `input` and `codes`."""

    model: str
    input: str | None = None
    codes: Annotated[list[Code], Field(min_length=1, max_length=MAX_CODES)] | None = None
    voice: VoiceName | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] | None = None
    seed: Annotated[int, Field(ge=0, lt=INT64)] | None = None

    def check(self, max_chars: int) -> None:
        """What fields say together. Raises InputError."""
        self.refuse_unserved()
        if self.codes is not None:
            self._check_codes()
            return
        if self.input is None:
            raise InputError(
                "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
            )
        if not self.input.strip():
            raise InputError("`input` has nothing to say", param="input", code="empty_input")
        if len(self.input) > max_chars:
            raise InputError(
                f"`input` has {len(self.input)} characters, at most {max_chars} are taken",
                param="input",
                code="string_above_max_length",
            )

    def _check_codes(self) -> None:
        if self.input is not None:
            raise InputError("give one of `input` and `codes`", param="input", code="input_or_codes")
        asked = (*(group.value for group in Group), "instructions")
        for name in asked:
            if getattr(self, name) is not None:
                raise InputError(
                    f"`{name}` directs how a text is read: it says nothing about `codes`; leave it out",
                    param=name,
                    code="unsupported_parameter",
                )


class StreamedSpeech(Body, _Spoken):
    """First message of `/v1/audio/speech/stream`."""

    type: Literal["start"]
    model: str
    voice: VoiceName | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "pcm"
    seed: Annotated[int, Field(ge=0, lt=INT64)] | None = None


class StreamedText(BaseModel):
    """A message with more text."""

    model_config = ConfigDict(strict=True)
    text: str


class Form(Body):
    """Fields of a form besides its files."""

    model_config = ConfigDict(strict=False)  # the fields of a form are text


class TokensForm(Form):
    """Fields of `POST /v1/audio/tokens` besides its file."""

    trim: bool = False
    gain: Annotated[float, Field(ge=1e-3, le=1e3)] | None = None


class TranscriptionForm(Form):
    """Fields of `POST /v1/audio/transcriptions` besides its file."""

    model: str
    language: Annotated[str, Field(max_length=64, pattern=r"^[\w\- ]*$")] | None = None
    prompt: Annotated[str, Field(max_length=8192)] | None = None
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    timestamp_granularities: list[Literal["segment"]] = []
    stream: bool = False

    def check(self) -> None:
        """What fields say together. Raises InputError."""
        if self.stream and self.response_format not in {"json", "text"}:
            raise InputError(
                f"a stream has no {self.response_format}", param="response_format", code="unsupported_value"
            )


_Words = StringConstraints(strip_whitespace=True, min_length=1)


class VoiceForm(Form):
    """Fields of `POST /v1/voices` besides `wave` and `consent_recording`."""

    name: str
    consent_person: Annotated[str, _Words, Field(max_length=200)]
    consent_statement: Annotated[str, _Words, Field(max_length=2000)]
    transcript: Annotated[str, _Words, Field(max_length=2000)] | None = None


_UNIONS = frozenset({"str", "constrained-str", "VoiceId", "NamedChoice"})


def input_error(fault: ValidationError) -> InputError:
    """OpenAI's error for what pydantic found first."""
    first = fault.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return InputError(f"We could not parse the JSON body of your request. {first['msg']}")
    param = ""
    for step in first["loc"]:
        if isinstance(step, int):
            param += f"[{step}]"
        elif step not in _UNIONS and "[" not in step:  # a union's branch is no part of the body
            param += f".{step}" if param else step
    missing = first["type"] == "missing"
    message = f"Missing required parameter: '{param}'." if missing else f"{param or 'body'}: {first['msg']}"
    return InputError(
        message, param=param or None, code="missing_required_parameter" if missing else "invalid_value"
    )
