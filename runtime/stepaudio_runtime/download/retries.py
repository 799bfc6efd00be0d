"""What becomes of a failed try: wait and try again, or give up, and with which words. No I/O.

reason                 when                                                     exit status
SourceUnauthorized     401 or 403: at once                                      78, a person has to act
SourceNotFound         404: at once                                             78
SourceRateLimited      429 for longer than the patience; Retry-After is obeyed  75, later may do
SourceUnavailable      nothing came for longer than the patience                75
ChecksumMismatch       a file's content is wrong twice in a row                 75

A volume that takes no more ends it too, with the words of `volume`.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepaudio_runtime.download.remote import Fault, FaultKind
from stepaudio_runtime.errors import DownloadError

UNAUTHORIZED = "SourceUnauthorized"
NOT_FOUND = "SourceNotFound"
RATE_LIMITED = "SourceRateLimited"
UNAVAILABLE = "SourceUnavailable"
CHECKSUM = "ChecksumMismatch"


@dataclass(frozen=True)
class Patience:
    """How long a source may fail."""

    give_up_s: float = 600.0
    """A source that gave not one byte for so long is given up (s)."""
    first_wait_s: float = 0.5
    """Pause after a try that brought nothing (s); doubled each time."""
    longest_wait_s: float = 60.0
    """Longest pause of our own choice (s)."""
    longest_asked_s: float = 3600.0
    """Longest Retry-After that is obeyed in full (s)."""


def waiting_reason(fault: Fault) -> str:
    """What the source of `fault` is called while it is waited for, and when it is given up."""
    return RATE_LIMITED if fault.kind is FaultKind.BUSY else UNAVAILABLE


def wait_s(fault: Fault, fruitless: int, silent_s: float, patience: Patience) -> float:
    """Seconds to wait before the next try. Raises DownloadError where there should be none.

    `fruitless` counts the tries in a row that brought nothing, this one among them (0: this one brought
    bytes before it broke), `silent_s` the seconds since the source last gave a byte.
    """
    if fault.kind is FaultKind.UNAUTHORIZED:
        cure = "give a token that may read these models in models.source, in the Secret that it names"
        raise DownloadError(UNAUTHORIZED, what=fault.what, cure=cure, for_a_person=True)
    if fault.kind is FaultKind.MISSING:
        cure = "correct the names and revisions in models.source"
        raise DownloadError(NOT_FOUND, what=fault.what, cure=cure, for_a_person=True)
    if fruitless == 0:
        return 0.0
    busy = fault.kind is FaultKind.BUSY
    asked = min(fault.wait_s or 0.0, patience.longest_asked_s) if busy else 0.0
    # A source that says when to come back is alive: its word extends the patience.
    if silent_s > patience.give_up_s + (asked if busy else 0.0):
        what = f"{fault.what}; nothing came for {silent_s:.0f} s"
        raise DownloadError(
            waiting_reason(fault), what=what, cure="it is tried again later", for_a_person=False
        )
    growing = min(patience.longest_wait_s, patience.first_wait_s * 2.0 ** (fruitless - 1))
    return max(growing, asked)
