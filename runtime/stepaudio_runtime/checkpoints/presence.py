"""The first questions about a file: is it there, may it be read, is it what its name says. No torch."""

from __future__ import annotations

from pathlib import Path

from stepaudio_runtime.errors import ModelFileError, beginning

CURE = "copy or download this file again"


def require(path: Path) -> Path:
    """`path`, if it is a file with something in it that this user may read; raises ModelFileError."""
    try:
        with path.open("rb") as file:
            if file.read(1):
                return path
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        what = "no such file"
        raise ModelFileError("ModelFileMissing", file=path, what=what, cure=CURE) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        cure = "let the pod's user (10001) read it"
        raise ModelFileError("ModelFileMissing", file=path, what=what, cure=cure) from None
    raise ModelFileError("ModelFileTruncated", file=path, what="the file is empty", cure=CURE)


def not_a(path: Path, kind: str, error: Exception) -> ModelFileError:
    """The error for a file that does not parse: cut short in nearly every case."""
    detail = beginning(str(error), 160).rstrip(".")
    what = f"not a {kind} ({detail})" if detail else f"not a {kind}"
    return ModelFileError("ModelFileTruncated", file=path, what=what, cure=CURE)
