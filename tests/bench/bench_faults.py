"""From a cause to its words: `python -m tests.bench.bench_faults [--rows memory,image,...]`.

Faults are caused on a real kubelet, one after the other (`tests/e2e/faults.py`), and the time is taken until
the deployment's condition has the right reason, and where no person is needed until all is well again. The
deployment of `make up` has to run. Rows that are not run keep their last figures. Writes
docs/benchmarks/faults.json and the section of docs/benchmarks.md.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepaudio_cluster.api import Cluster
from stepaudio_cluster.make_up import Up
from stepaudio_cluster.settings import DEFAULT_NAME, Places, Wish
from tests.bench.on_a_kubelet import report
from tests.e2e.faults import ROWS, Stage, staged
from tests.e2e.nano import Nano

PATIENCE_S = 240.0
GOAL_S = 30.0


def main() -> int:
    """All rows that were asked for; status 1 where one came late."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="default: all")
    wanted = parser.parse_args().rows.split(",")
    up = Up(DEFAULT_NAME, Places.of(DEFAULT_NAME).base / "image-logs")
    late = 0
    with staged(Nano(Cluster.up(Wish(DEFAULT_NAME)), up, Path("reply.wav"))) as stage:
        for name in wanted:
            found = measure(stage, name)
            print(f"{name}: {found}", flush=True)
            report.FAULTS.write({**report.FAULTS.read(), "machine": report.machine(), name: found})
            late += found["said_s"] > GOAL_S
    return 1 if late else 0


def measure(stage: Stage, name: str) -> dict[str, Any]:
    """One row: how long until it is said, in which words, and until it is well."""
    row = ROWS[name]
    stage.begin(name)
    began = stage.applied[name]
    _until(lambda: stage.condition(name).get("reason") == row.reason, f"{name} says {row.reason}")
    found: dict[str, Any] = {"reason": row.reason, "said_s": round(time.monotonic() - began, 1)}
    found["message"] = stage.condition(name)["message"]
    if row.forgive is not None:
        forgiven = time.monotonic()
        row.forgive(stage, name)
        _until(lambda: stage.is_well(name), f"{name} comes right")
        found["well_s"] = round(time.monotonic() - forgiven, 1)
    stage.end(name)
    return found


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not after {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
