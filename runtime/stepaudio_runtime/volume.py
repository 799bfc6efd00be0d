"""What a volume says when it takes no more, in the words by which a job ends. Pure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from stepaudio_runtime.errors import JobError

FULL = "VolumeFull"
NOT_WRITABLE = "VolumeNotWritable"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def of_volume(error: OSError, folder: Path, kind: type[JobError], larger: str) -> JobError | OSError:
    """The `kind` of error that `error` is while a job writes to `folder`; `error` itself where it is none.

    `larger` says how the volume is made larger.
    """
    if error.errno in _FULL:
        what = f"{error.filename or folder} cannot grow: {error.strerror}"
        cure = f"{larger} or lift the quota; what is made is kept"
        return kind(FULL, what=what, cure=cure, for_a_person=True)
    if error.errno in _FORBIDDEN:
        what = f"{error.filename or folder} cannot be written: {error.strerror}"
        cure = f"let the user {os.getuid()} write there"
        return kind(NOT_WRITABLE, what=what, cure=cure, for_a_person=True)
    return error
