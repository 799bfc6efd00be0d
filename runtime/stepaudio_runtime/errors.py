"""Every exception this runtime raises on purpose.

    StepAudioError                  anything below; `reason` is CamelCase, `str()` is one line
    ├── ModelFileError              a file of the model folder cannot be used: the pod stops (exit status 78)
    ├── ConfigError                 a setting of this process is wrong or contradicts the model: the pod stops
    ├── JobError                    a job cannot go on: it stops, 78 for a person, 75 for later
    │   ├── DownloadError           model files cannot be had
    │   └── DataError               training data cannot be made
    ├── InputError                  what the caller sent is wrong: 400, with the parameter at fault
    │   └── AudioError              the caller's audio is empty, too long, or not audio
    ├── OutputError                 a model answered with something unusable: 502
    ├── Overloaded                  the bound on work in flight is reached: 429 with Retry-After
    └── Unavailable                 loading, draining or without a backend: 503 with Retry-After

They are translated to HTTP answers and exit statuses at one edge each, never in between.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

ModelFileReason = Literal[
    "ModelFileMissing", "ModelFileTruncated", "ModelShapeMismatch", "ModelConfigInvalid"
]


_AND_MORE = " ..."


def _one_line(text: str) -> str:
    return " ".join(text.split())


def beginning(text: str, limit: int) -> str:
    """In one line the whole sentences that `text` begins with, of at most `limit` characters together.

    For what others say of an error: the cause comes first, advice follows. A first sentence that is longer
    ends after a word.
    """
    line = _one_line(text)
    if len(line) <= limit:
        return line
    if ends := [end.end() - 1 for end in re.finditer(r"[.!?]\s", line[: limit + 1])]:
        return line[: ends[-1]]
    cut = line[: limit - len(_AND_MORE)]
    return (cut.rpartition(" ")[0] or cut) + _AND_MORE


class StepAudioError(Exception):
    """Root of the tree. `reason` is a CamelCase word fit for a Kubernetes condition."""

    reason: str = "InternalError"

    def __init__(self, message: str) -> None:
        self.message = _one_line(message)
        super().__init__(self.message)


class ModelFileError(StepAudioError):
    """A file of a model folder is missing, truncated, of the wrong shape, or says something impossible.

    `str()` is the single line `Reason: what (file); cure`, as printed and written to the termination log.
    """

    def __init__(self, reason: ModelFileReason, *, file: Path | str, what: str, cure: str) -> None:
        self.reason = reason
        self.file = Path(file)
        self.what = _one_line(what)
        self.cure = _one_line(cure)
        super().__init__(f"{reason}: {self.what} ({self.file}); {self.cure}")


class ConfigError(StepAudioError):
    """A setting of this process is wrong, or contradicts the model's own configuration.

    `str()` is the single line `ConfigInvalid: what; cure`.
    """

    reason = "ConfigInvalid"

    def __init__(self, *, what: str, cure: str) -> None:
        self.what = _one_line(what)
        self.cure = _one_line(cure)
        super().__init__(f"{self.reason}: {self.what}; {self.cure}")


class JobError(StepAudioError):
    """What a job was started for cannot be done.

    `str()` is the single line `Reason: what; cure`. `for_a_person`: waiting does not cure it.
    """

    def __init__(self, reason: str, *, what: str, cure: str, for_a_person: bool) -> None:
        self.reason = reason
        self.what = _one_line(what)
        self.cure = _one_line(cure)
        self.for_a_person = for_a_person
        super().__init__(f"{reason}: {self.what}; {self.cure}")


class DownloadError(JobError):
    """Model files cannot be brought from where they are published, or there is no room for them."""


class DataError(JobError):
    """A run of the data engine ended before its data were made; what was made is kept."""


class InputError(StepAudioError):
    """What the caller sent cannot be served as it is: an OpenAI-style 400.

    `param` names the part of the request at fault, `code` is a stable snake_case word.
    """

    reason = "InvalidRequest"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.param = param
        self.code = code
        super().__init__(message)


class AudioError(InputError):
    """The caller's audio is empty, too long, of an unusable rate, or not audio."""

    reason = "InvalidAudio"


class OutputError(StepAudioError):
    """A model's answer cannot be used, for example no audio ids where speech was asked for."""

    reason = "BadModelOutput"


class Overloaded(StepAudioError):  # noqa: N818 - a state of the server, not a fault
    """The bound on requests in flight is reached; try again after `retry_after_s` seconds."""

    reason = "Overloaded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Unavailable(StepAudioError):  # noqa: N818 - a state of the server, not a fault
    """Loading, draining, or no backend is ready; try again after `retry_after_s` seconds."""

    reason = "Unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)
