"""Parity and speed of the speech models on a GPU: `python -m tests.gpu.speech_on_device [--device cuda]`.

Run from the repository's root with `PYTHONPATH=runtime:.`; it needs torch (2.11 or newer), numpy and
safetensors and nothing else. Prints one JSON object; ends with status 1 where a tensor is out of bounds.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from tests.gpu.parity import checks
from tests.gpu.speed import about, new_decoder, parts, speed, warm

STREAMS = (1, 4, 8, 16)
SECONDS = 10.0
GOALS = {"first_chunk_s": 0.04, "real_time_factor": 0.02}
"""At one stream on one H200."""


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parity-only", action="store_true")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    compared = checks(device)
    wrong = [check for check in compared if not check.holds]
    found = {
        **about(device),
        "parity": {
            "tensors": len(compared),
            "worst_share_of_allowed": max(check.off / check.allow for check in compared),
            "wrong": [f"{check.what}: {check.off:.2e} > {check.allow:.0e}" for check in wrong],
        },
    }
    if not chosen.parity_only:
        found["goals"] = GOALS
        found["speed"] = {}
        for graphs in (False, True):
            for dtype in (torch.float32, torch.bfloat16):
                name = f"{dtype}, {'captured graphs' if graphs else 'eager'}".removeprefix("torch.")
                decoder = None  # one at a time: their memory is measured
                decoder = new_decoder(device, dtype, graphs=graphs)
                found["speed"][name] = {
                    "warm": warm(decoder),
                    "streams": speed(decoder, STREAMS if graphs else STREAMS[:1], SECONDS),
                    "parts_s": parts(decoder),
                }
    print(json.dumps(found, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
