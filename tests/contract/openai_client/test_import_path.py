"""The gateway's process imports neither torch nor vLLM: its image has none."""

import subprocess
import sys

SCRIPT = """
import sys
import stepaudio_runtime.cli
from stepaudio_runtime.gateway import serve_gateway
import stepaudio_runtime.gateway.app, stepaudio_runtime.gateway.watch
heavy = {"torch", "vllm", "onnxruntime", "transformers"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_no_torch_on_the_import_path():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
