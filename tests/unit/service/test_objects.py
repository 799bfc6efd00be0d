"""What imports vLLM looks for garbage seldom from its first line on: the pods' command and both main
modules of vLLM, which its own processes import again before anything else.
"""

import subprocess
import sys

import pytest

from stepaudio_runtime.service.objects import BETWEEN_LOOKS

MAINS = (
    "stepaudio_runtime.cli",
    "stepaudio_runtime.service.vllm_server",
    "stepaudio_runtime.service.vllm_worker",
)


@pytest.mark.parametrize("main", MAINS)
def test_it_looks_seldom(main: str) -> None:
    asked = f"import gc, {main}; print(gc.get_threshold()[0])"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert int(said.stdout) == BETWEEN_LOOKS > 700
