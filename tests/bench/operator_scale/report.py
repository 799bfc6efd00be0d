"""The figures of the operator's runs as JSON and as a section of docs/benchmarks.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
TITLE = "## The operator at scale"


@dataclass
class Run:
    """One fleet. Times in seconds; `writes` by verb and kind until all were Ready, leases apart; `edit_rate`
    a second.
    """

    kind: str
    count: int
    created_s: float = 0.0
    ready_s: float = 0.0
    wait_p50_s: float = 0.0
    wait_p99_s: float = 0.0
    writes: Mapping[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    steady_s: float = 0.0
    steady_writes: float = 0.0
    edit_rate: float = 0.0
    edit_p50_s: float = 0.0
    edit_p99_s: float = 0.0
    lease_s: float = 0.0
    restart_idle_s: float = 0.0
    restart_writes: float = 0.0
    deleted_s: float = 0.0
    script_s: float | None = None
    logged_errors: int = 0

    @property
    def all_writes(self) -> float:
        """Writes until all were Ready and the operator idle."""
        return sum(self.writes.values())


def write(runs: Sequence[Run], machine: Mapping[str, Any]) -> None:
    """Replaces the section, and in the JSON file the fleets that were measured now; others of this machine
    stay.
    """
    raw = DOCS / "benchmarks" / "operator.json"
    raw.parent.mkdir(exist_ok=True)
    before = json.loads(raw.read_text()) if raw.exists() else {}
    measured = {(run.kind, run.count) for run in runs}
    if before.get("machine") == machine:
        kept = [Run(**old) for old in before["runs"] if (old["kind"], old["count"]) not in measured]
        runs = sorted([*kept, *runs], key=lambda run: (run.kind != "tts-only", run.count))
    raw.write_text(json.dumps({"machine": machine, "runs": [asdict(r) for r in runs]}, indent=1) + "\n")
    page = DOCS / "benchmarks.md"
    old = page.read_text() if page.exists() else "# Benchmarks\n"
    before, _, rest = old.partition(TITLE)
    following = rest.find("\n## ")
    after = rest[following:].lstrip("\n") if following >= 0 else ""
    page.write_text(f"{before.rstrip()}\n\n{section(runs, machine)}\n{after}")


def section(runs: Sequence[Run], machine: Mapping[str, Any]) -> str:
    """The section's markdown."""
    rows = [
        "| deployments | all Ready | create to Ready p50 / p99 | writes each | CPU a write | peak memory |"
        " edits p50 / p99 | steady | restart: idle after the lease, writes | the same by a script |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        script = f"{run.script_s:.0f} s ({run.ready_s / run.script_s:.2f} x)" if run.script_s else "–"
        rows.append(
            f"| {run.count:,} {run.kind} | {run.ready_s:.1f} s"
            f" | {run.wait_p50_s:.1f} / {run.wait_p99_s:.1f} s"
            f" | {run.all_writes / run.count:.1f} | {1000 * run.cpu_s / max(run.all_writes, 1):.1f} ms"
            f" | {run.peak_mib:.0f} MiB"
            f" | {run.edit_p50_s:.2f} / {run.edit_p99_s:.2f} s at {run.edit_rate:g}/s"
            f" | {run.steady_writes:.0f} writes in {run.steady_s:.0f} s"
            f" | {run.restart_idle_s:.1f} s, {run.restart_writes:.0f} | {script} |"
        )
    return f"""{TITLE}

`make bench-operator` on {machine["cores"]} cores ({machine["processor"]}), {machine["memory_gib"]} GiB;
control plane, simulated kubelets (kwok), load and operator share them. Shipped defaults. Simulated pods are
Ready at once: this is what the control plane costs, not what serving does. Writes are those of the operator
without leases; an edit (of the rollout budget, which goes through every pool) is timed from the request until
a watch shows the deployment Ready for it. The script is Python too: the same final objects and statuses, 16
deployments at a time. Raw figures: [operator.json](benchmarks/operator.json).

{chr(10).join(rows)}
"""
