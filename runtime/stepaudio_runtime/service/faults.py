"""When the models in this process are beyond cure: steps in a row that ended in what nobody foresaw.

After a CUDA error (an illegal access, a failed assertion, a lost card) no kernel of the process runs again,
and every request fails while all else looks well: only a new process cures it. A step that failed by itself,
for want of memory say, is followed by one that does not.
"""

import asyncio
import logging

from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.service.engine import EngineFailed

log = logging.getLogger(__name__)

FAULTS = 3  # in a row, for the pod to end


class Faults:
    """Counts the failed steps of `what`; errors of this project's own tree are foreseen and not for here."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._row = 0

    def sound(self) -> None:
        """A step has computed something."""
        self._row = 0

    def failed(self, error: Exception) -> None:
        """A step ended in `error`; raises EngineFailed, with the words of `error`, where it was the third."""
        self._row += 1
        if self._row == FAULTS:
            words = f"{type(error).__name__}: {error}"
            raise EngineFailed(
                f"{FAULTS} steps of {self._what} in a row failed, the last of {words}"
            ) from error


def end_of(loop: "asyncio.Task[None]", what: str) -> StepAudioError:
    """Why `loop`, which runs for ever but where it is cancelled, has ended."""
    error = loop.exception()
    if isinstance(error, StepAudioError):
        return error
    log.error("%s has died", what, exc_info=error)
    return EngineFailed(f"{what} has died of {error!r}; the pod's log has the rest")
