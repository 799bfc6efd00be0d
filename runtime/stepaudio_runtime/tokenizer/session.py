"""The protocol of a token stream, without I/O: what a message means in each state, and what is said when.

    Opening --start--> Streaming --end--> Ending --all ids given--> Closed
       any state --fault, silence--> Closed

The client's messages: `{"type": "start", "rate", ...}`, then PCM in binary messages of any size (a sample may
be cut in two), then `{"type": "end"}`. The server's: `started`, `gain` (once, where it was estimated),
`tokens`, `done`, or `error` and a close code. A silent client is one that sends nothing while it could;
`deadline` says until when it may. Time is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.wave import check_samples
from stepaudio_runtime.codec.layout import LINGUISTIC_RUN, SEMANTIC_RUN, interleave
from stepaudio_runtime.contract import MAX_RATE, MIN_RATE
from stepaudio_runtime.errors import AudioError, InputError
from stepaudio_runtime.tokenizer.windows import Windows

MAX_FRAME_BYTES = 1 << 20
"""Of one message: 1.4 s at 192 kHz in float32, 33 s at 16 kHz in 16 bit."""
MAX_TEXT_CHARS = 4096
MIN_GAIN, MAX_GAIN = 1e-3, 1e3
MIN_HOP_S = 0.24
MAX_WINDOW_S = 30.0
MAX_OVERLAP = 8
"""A window is at most so many hops long: every hop costs a whole window."""

BYTES = {"pcm16": 2, "float32": 4}
KNOWN_FIELDS = frozenset({"type", "rate", "format", "gain", "semantic_window_s", "semantic_hop_s"})


class CloseCode(IntEnum):
    """WebSocket close codes, as RFC 6455 and its registry have them."""

    NORMAL = 1000
    UNSUPPORTED = 1003
    INVALID = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    TRY_AGAIN = 1013


@dataclass(frozen=True)
class Bounds:
    """Times in seconds, windows by default."""

    idle_s: float
    max_stream_s: float
    windows: Windows


@dataclass(frozen=True)
class Open:
    """Begin a stream; `gain` None: estimate it."""

    rate: int
    gain: float | None
    windows: Windows


@dataclass(frozen=True, eq=False)
class Feed:
    """Samples (N,) at the stream's rate for the models; `last`: the stream ends with them."""

    samples: NDArray[np.float32]
    last: bool


@dataclass(frozen=True)
class Say:
    """A message for the client."""

    event: dict[str, Any]


@dataclass(frozen=True)
class Hang:
    """Close the connection."""

    code: CloseCode
    reason: str


Action = Open | Feed | Say | Hang


class State(Enum):
    """Where a session stands."""

    OPENING = "opening"
    STREAMING = "streaming"
    ENDING = "ending"
    CLOSED = "closed"


@dataclass
class Session:
    """One session. Every method returns what is to be done, in order; after Hang it is closed."""

    bounds: Bounds
    now: float
    state: State = State.OPENING
    _format: str = "pcm16"
    _rate: int = 0
    _rest: bytes = b""
    _samples: int = 0
    _gain_known: bool = False
    _linguistic: list[int] = field(default_factory=list)  # not interleaved yet
    _semantic: list[int] = field(default_factory=list)
    _given: dict[str, int] = field(default_factory=lambda: {"linguistic": 0, "semantic": 0, "codes": 0})

    @property
    def deadline(self) -> float | None:
        """When the client will have been silent for too long; None where it need not say anything."""
        return self.now + self.bounds.idle_s if self.state in (State.OPENING, State.STREAMING) else None

    # --- what the client does -----------------------------------------------------------------------

    def text(self, text: str, now: float) -> list[Action]:
        """A text message."""
        if self.state is State.CLOSED:
            return []
        self.now = now
        try:
            message = _message(text)
            if message["type"] == "start":
                return self._start(message)
            if self.state is State.OPENING:
                raise _protocol("the first message is `start`", "start_expected")
            if self.state is State.ENDING:
                raise _protocol("the stream has ended", "stream_ended")
            return self._end()
        except InputError as error:
            return self.fail(error)

    def audio(self, data: bytes, now: float) -> list[Action]:
        """A binary message."""
        if self.state is State.CLOSED:
            return []
        self.now = now
        try:
            if self.state is State.OPENING:
                raise _protocol("audio before `start`", "start_expected")
            if self.state is not State.STREAMING:
                raise _protocol("audio after `end`", "stream_ended")
            if len(data) > MAX_FRAME_BYTES:
                message = f"a frame of {len(data)} bytes; at most {MAX_FRAME_BYTES} are taken"
                raise InputError(message, param="audio", code="frame_too_large")
            samples = self._decode(data)
            self._samples += len(samples)
            if self._samples > self.bounds.max_stream_s * self._rate:
                message = f"the stream is longer than {self.bounds.max_stream_s:g} s; start another one"
                raise AudioError(message, param="audio", code="stream_too_long")
        except InputError as error:
            return self.fail(error)
        return [Feed(samples, last=False)] if len(samples) else []

    def silent(self, now: float) -> list[Action]:
        """The clock says `now`: closes a session whose client was silent for too long."""
        if self.deadline is None or now < self.deadline:
            return []
        message = f"nothing came for {self.bounds.idle_s:g} s"
        return self.fail(InputError(message, code="session_idle"))

    # --- what the models say ------------------------------------------------------------------------

    def tokens(
        self, linguistic: Sequence[int], semantic: Sequence[int], *, gain: float | None, last: bool
    ) -> list[Action]:
        """Ids of what was fed; `gain` once it is known. With `last` the session is over."""
        if self.state is State.CLOSED:
            return []
        said: list[Action] = []
        if gain is not None and not self._gain_known:
            self._gain_known = True
            said.append(Say({"type": "gain", "gain": gain}))
        self._linguistic += linguistic
        self._semantic += semantic
        codes = interleave(self._linguistic, self._semantic)
        rounds = len(codes) // (LINGUISTIC_RUN + SEMANTIC_RUN)
        del self._linguistic[: rounds * LINGUISTIC_RUN], self._semantic[: rounds * SEMANTIC_RUN]
        ids = {"linguistic": list(linguistic), "semantic": list(semantic), "codes": codes}
        for name, found in ids.items():
            self._given[name] += len(found)
        if linguistic or semantic:
            said.append(Say({"type": "tokens", **ids}))
        if last:
            self.state = State.CLOSED
            duration_s = self._samples / self._rate
            said += [Say({"type": "done", **self._given, "duration_s": duration_s}), _hang("done")]
        return said

    def fail(self, error: Exception) -> list[Action]:
        """Something went wrong: say it and close. What nobody foresaw is called an internal error."""
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        if isinstance(error, InputError):
            detail = {
                "message": error.message,
                "type": "invalid_request_error",
                "param": error.param,
                "code": error.code,
            }
        else:
            detail = {
                "message": "internal error",
                "type": "internal_error",
                "param": None,
                "code": "internal_error",
            }
        return [Say({"type": "error", "error": detail}), _hang(detail["code"] or "")]

    # --- inside -------------------------------------------------------------------------------------

    def _start(self, message: dict[str, Any]) -> list[Action]:
        if self.state is not State.OPENING:
            raise _protocol("the stream has started", "stream_started")
        opened, self._format = _parse_start(message, self.bounds.windows)
        self._rate = opened.rate
        self._gain_known = opened.gain is not None
        self.state = State.STREAMING
        started = {
            "type": "started",
            "rate": opened.rate,
            "format": self._format,
            "gain": opened.gain,
            "semantic_window_s": opened.windows.length_s,
            "semantic_hop_s": opened.windows.hop_s,
            "idle_timeout_s": self.bounds.idle_s,
            "max_stream_s": self.bounds.max_stream_s,
            "max_frame_bytes": MAX_FRAME_BYTES,
        }
        return [Open(opened.rate, opened.gain, opened.windows), Say(started)]

    def _end(self) -> list[Action]:
        if self._rest:
            message = f"the audio ends within a sample, {len(self._rest)} bytes too many"
            raise AudioError(message, param="audio", code="audio_invalid")
        self.state = State.ENDING
        return [Feed(np.zeros(0, np.float32), last=True)]

    def _decode(self, data: bytes) -> NDArray[np.float32]:
        data = self._rest + data
        whole = len(data) - len(data) % BYTES[self._format]
        self._rest = data[whole:]
        if self._format == "pcm16":
            return np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(1 << 15)
        return checked(np.frombuffer(data[:whole], "<f4").astype(np.float32))


def checked(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """`samples`; raises AudioError, naming the audio, where they are not fit to be worked on."""
    try:
        check_samples(samples)
    except AudioError as error:
        raise AudioError(error.message, param="audio", code="audio_invalid") from error
    return samples


_CODES = {
    "done": CloseCode.NORMAL,
    "invalid_message": CloseCode.INVALID,
    "audio_invalid": CloseCode.INVALID,
    "frame_too_large": CloseCode.TOO_BIG,
    "internal_error": CloseCode.INTERNAL,
}
"""Close codes by reason; every other one is a breach of the rules."""


def _hang(reason: str) -> Hang:
    return Hang(_CODES.get(reason, CloseCode.POLICY), reason)


def _protocol(message: str, code: str) -> InputError:
    return InputError(message, param="type", code=code)


def _message(text: str) -> dict[str, Any]:
    """A message of the client: an object whose type is known. Raises InputError."""
    if len(text) > MAX_TEXT_CHARS:
        raise InputError(f"a message of {len(text)} characters", code="invalid_message")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("the message is not JSON", code="invalid_message") from error
    if not isinstance(message, dict) or message.get("type") not in ("start", "end"):
        raise InputError(
            'the message is no object with "type": "start" or "end"', param="type", code="invalid_message"
        )
    return message


def _parse_start(message: dict[str, Any], windows: Windows) -> tuple[Open, str]:
    """What a stream is to be, and the format of its samples. Raises InputError with the field at fault."""
    for name in message:
        if name not in KNOWN_FIELDS:
            raise InputError(f"`{name[:64]}` is unknown", param=name[:64], code="unknown_parameter")
    rate, form = message.get("rate"), message.get("format", "pcm16")
    if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
        what = f"rate is not an integer from {MIN_RATE} to {MAX_RATE} Hz"
        raise InputError(what, param="rate", code="rate_invalid")
    if form not in tuple(BYTES):
        raise InputError(f"format is none of {', '.join(BYTES)}", param="format", code="format_invalid")
    asked = message.get("gain", "auto")
    gain = None if asked == "auto" else _number(asked, MIN_GAIN, MAX_GAIN)
    if asked != "auto" and gain is None:
        what = f'gain is neither "auto" nor a number from {MIN_GAIN:g} to {MAX_GAIN:g}'
        raise InputError(what, param="gain", code="gain_invalid")
    return Open(rate, gain, _parse_windows(message, windows)), str(form)


def _parse_windows(message: dict[str, Any], windows: Windows) -> Windows:
    length_s = _number(message.get("semantic_window_s", windows.length_s), MIN_HOP_S, MAX_WINDOW_S)
    hop_s = _number(message.get("semantic_hop_s", min(windows.hop_s, length_s or 0)), MIN_HOP_S, MAX_WINDOW_S)
    if length_s is None or hop_s is None or not hop_s <= length_s <= MAX_OVERLAP * hop_s:
        what = (
            f"windows of {MIN_HOP_S:g} to {MAX_WINDOW_S:g} s are taken, one to {MAX_OVERLAP} hops long, with "
            f"hops of at least {MIN_HOP_S:g} s"
        )
        raise InputError(what, param="semantic_window_s", code="window_invalid")
    return Windows.seconds(length_s, hop_s)


def _number(value: object, low: float, high: float) -> float | None:
    """`value` where it is a number in range."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    return None
