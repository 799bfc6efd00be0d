"""Stand-ins for the NVIDIA driver's libraries, compiled where they are needed."""

import shutil
import subprocess
from pathlib import Path

import pytest

NVML = "libnvidia-ml.so.1"
CUDA = "libcuda.so.1"
_SOURCES = {NVML: "nvml.c", CUDA: "old_cuda.c"}


def build(library: str, folder: Path) -> Path:
    """The compiled `library` in `folder`; skips the test where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip(f"the stand-in for {library} is compiled with gcc, which is not installed")
    built = folder / library
    source = Path(__file__).parent / _SOURCES[library]
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    return built
