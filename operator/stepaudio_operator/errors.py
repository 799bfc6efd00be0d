"""The operator's exceptions: one tree, translated at one edge (`reconcile`).

StepAudioError
├── SpecError            a resource says something that cannot be done; carries (path, message) pairs
├── SettingsError        the operator's own settings are wrong; ends the process
├── LeaseLost            another replica leads; ends the process
└── ClusterError         the API server answered with an error, or not at all
    ├── Rejected         400, 422: the object itself is refused; trying again cannot help
    ├── Forbidden        401, 403: a permission is missing
    ├── NotFound         404
    ├── Conflict         409: somebody else changed or made it first; observe again
    │   └── StillGoing   what has the name belongs to an earlier owner and is on its way out; wait
    ├── Expired          410: the watch is too old; list again
    ├── Throttled        429: `retry_after_s` says how long to wait
    └── Unavailable      5xx, timeout, no connection
"""

from __future__ import annotations

from collections.abc import Sequence


class StepAudioError(Exception):
    """Root of everything that the operator raises on purpose."""


class SpecError(StepAudioError):
    """A resource cannot be understood. `problems` holds (field path, what is wrong and what to do)."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)
        super().__init__("; ".join(f"{path}: {message}" for path, message in self.problems))


class SettingsError(StepAudioError):
    """The operator's own settings are wrong."""


class LeaseLost(StepAudioError):  # noqa: N818 - an event that ends the process, not a mistake
    """The Lease belongs to another replica."""


class ClusterError(StepAudioError):
    """The API server refused a call or could not be reached.

    `status` is the HTTP status (0 where there was no answer), `reason` the API server's CamelCase reason,
    `retry_after_s` the seconds it asked to wait, where it did.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class Rejected(ClusterError):  # noqa: N818 - named after the answer, as the tree above says
    """400 or 422."""


class Forbidden(ClusterError):  # noqa: N818
    """401 or 403."""


class NotFound(ClusterError):  # noqa: N818
    """404."""


class Conflict(ClusterError):  # noqa: N818
    """409."""


class StillGoing(Conflict):
    """What has the name belongs to an earlier owner, and is on its way out."""


class Expired(ClusterError):  # noqa: N818
    """410."""


class Throttled(ClusterError):  # noqa: N818
    """429."""


class Unavailable(ClusterError):  # noqa: N818
    """5xx, a timeout or no connection."""
