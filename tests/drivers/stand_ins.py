"""Stand-ins for the libraries of NVIDIA's driver, compiled where they are needed."""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class StandIn:
    """A source of this folder, and the library that it stands in for, of the driver or of CUDA's runtime too:
    programs need that one in `LD_PRELOAD` as well as in `LD_LIBRARY_PATH`.
    """

    source: str
    library: str
    runtime: bool = False


NVML = StandIn("nvml.c", "libnvidia-ml.so.1")
OLD_DRIVER = StandIn("old_driver.c", "libcuda.so.1")
FULL_CARD = StandIn("full_card.c", "libcuda.so.1", runtime=True)


def build(what: StandIn, folder: Path) -> Path:
    """The compiled library in `folder`; skips the test where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip(f"the stand-in for {what.library} is compiled with gcc, which is not installed")
    built, source = folder / what.library, Path(__file__).with_name(what.source)
    headers = [f"-I{_cuda_headers()}"] if what.runtime else []
    subprocess.run(["gcc", "-shared", "-fPIC", *headers, "-o", str(built), str(source)], check=True)
    return built


def _cuda_headers() -> Path:
    """Triton has them all; those of the package of CUDA's runtime lack what they include."""
    triton = importlib.util.find_spec("triton")
    assert triton is not None and triton.origin is not None, "torch of CUDA comes with triton"
    return Path(triton.origin).parent / "backends/nvidia/include"
