"""The figures of the operator's runs as JSON and as a section of docs/benchmarks.md."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.operator_scale.trouble import Trouble

DOCS = Path(__file__).parents[3] / "docs"
TITLE = "## The operator at scale"
EDITING_S = 30.0
"""Edits are made for so long."""
EDIT_GOAL_S = 1.0
"""In which 99 of 100 should be there."""


@dataclass
class Edits:
    """Changes at a steady `rate` (a second), each timed until its deployment is Ready again; the operator's
    `writes` an edit, and the CPU seconds of every program meanwhile.
    """

    rate: float
    p50_s: float
    p99_s: float
    writes: float
    cpu_s: Mapping[str, float]


@dataclass
class Run:
    """One fleet, in so many namespaces. Times in seconds; `writes` by verb and kind until all were Ready,
    leases apart; `cpu_s` by program until then, `others_cores` what everything else on the machine took;
    `edits` by what they change.
    """

    kind: str
    count: int
    namespaces: int = 1
    created_s: float = 0.0
    ready_s: float = 0.0
    wait_p50_s: float = 0.0
    wait_p99_s: float = 0.0
    writes: Mapping[str, float] = field(default_factory=dict)
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    others_cores: float = 0.0
    peak_mib: float = 0.0
    steady_s: float = 0.0
    steady_writes: float = 0.0
    edits: dict[str, Edits] = field(default_factory=dict)
    lease_s: float = 0.0
    restart_idle_s: float = 0.0
    restart_writes: float = 0.0
    deleted_s: float = 0.0
    script_s: float | None = None
    logged_errors: int = 0

    @property
    def name(self) -> str:
        """Of the fleet, and of its first namespace."""
        return f"{self.kind}-{self.count}" + (f"-in-{self.namespaces}" if self.namespaces > 1 else "")

    @property
    def all_writes(self) -> float:
        """Writes until all were Ready and the operator idle."""
        return sum(self.writes.values())


def write(runs: Sequence[Run], troubles: Sequence[Trouble], machine: Mapping[str, Any]) -> None:
    """Replaces the section, and in the JSON file what was measured now; the rest of this machine's stays."""
    raw = DOCS / "benchmarks" / "operator.json"
    raw.parent.mkdir(exist_ok=True)
    before = json.loads(raw.read_text()) if raw.exists() else {}
    measured = {run.name for run in runs}
    if before.get("machine") == machine:
        kept = [run for run in map(_run, before["runs"]) if run.name not in measured]
        runs = sorted([*kept, *runs], key=lambda run: (run.kind != "tts-only", run.count, run.namespaces))
        troubles = troubles or [Trouble(**old) for old in before["trouble"]]
    content = {"machine": machine, "runs": list(map(asdict, runs)), "trouble": list(map(asdict, troubles))}
    raw.write_text(json.dumps(content, indent=1) + "\n")
    page = DOCS / "benchmarks.md"
    old = page.read_text() if page.exists() else "# Benchmarks\n"
    before_, _, rest = old.partition(TITLE)
    following = rest.find("\n## ")
    after = rest[following:].lstrip("\n") if following >= 0 else ""
    page.write_text(f"{before_.rstrip()}\n\n{section(runs, troubles, machine)}\n{after}")


def _run(stored: Mapping[str, Any]) -> Run:
    return Run(**{**stored, "edits": {what: Edits(**edits) for what, edits in stored["edits"].items()}})


def _places(run: Run) -> str:
    return f" in {run.namespaces} namespaces" if run.namespaces > 1 else ""


def _why(runs: Sequence[Run]) -> str:
    """Where the time of edits went that took longer than they should; nothing where none did."""
    slow = [
        f"{what} of {run.count:,} {run.kind}{_places(run)}: API server {edits.cpu_s['kube-apiserver']:.0f},"
        f" controller manager {edits.cpu_s['kube-controller-manager']:.0f}, etcd {edits.cpu_s['etcd']:.0f},"
        f" the operator {edits.cpu_s['operator']:.0f}"
        for run in runs
        for what, edits in run.edits.items()
        if edits.p99_s > EDIT_GOAL_S
    ]
    if not slow:
        return ""
    text = (
        f"Edits that took more than {EDIT_GOAL_S:g} s kept the cores busy; seconds of CPU for"
        f" {EDITING_S:.0f} s of them, {'; '.join(slow)}. For every budget that changes the controller"
        " manager's disruption controller walks through all pods of its namespace."
    )
    return f"\n{textwrap.fill(text, 110, break_on_hyphens=False)}\n"


def _edits(edits: Edits) -> str:
    pace = f"{edits.rate:g}/s ({edits.rate * edits.writes:.0f} writes/s)"
    return f"{edits.p50_s:.2f} / {edits.p99_s:.2f} s at {pace}"


def section(runs: Sequence[Run], troubles: Sequence[Trouble], machine: Mapping[str, Any]) -> str:
    """The section's markdown."""
    rows = [
        "| deployments | others had | all Ready | create to Ready p50 / p99 | writes each | CPU a write |"
        " peak memory | edits of one pool, of every pool: p50 / p99 | steady |"
        " restart: idle after the lease, writes | the same by a script |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        script = "–"
        if run.script_s:
            pace = f"{run.all_writes / run.script_s:.0f} writes/s"
            script = f"{run.script_s:.0f} s ({run.ready_s / run.script_s:.2f} x), {pace}"
        rows.append(
            f"| {run.count:,} {run.kind}{_places(run)} | {run.others_cores:.1f} cores | {run.ready_s:.1f} s"
            f" | {run.wait_p50_s:.1f} / {run.wait_p99_s:.1f} s"
            f" | {run.all_writes / run.count:.1f} | {1000 * run.cpu_s['operator'] / run.all_writes:.1f} ms"
            f" | {run.peak_mib:.0f} MiB"
            f" | {'; '.join(map(_edits, run.edits.values()))}"
            f" | {run.steady_writes:.0f} writes in {run.steady_s:.0f} s"
            f" | {run.restart_idle_s:.1f} s, {run.restart_writes:.0f} | {script} |"
        )
    worse = [
        "| what | deployments | all where they should be | writes each | CPU a write | good pods lost |",
        "|---|---|---|---|---|---|",
    ]
    for found in troubles:
        worse.append(
            f"| {found.what} | {found.count:,} | {found.settled_s:.0f} s | {found.writes / found.count:.1f}"
            f" | {1000 * found.cpu_s / max(found.writes, 1):.1f} ms | {found.lost} |"
        )
    text = f"""{TITLE}

`make bench-operator` on {machine["cores"]} cores ({machine["processor"]}), {machine["memory_gib"]} GiB;
control plane, simulated kubelets (kwok), load and operator share them, and with whatever else ran ("others
had", on average). Shipped defaults. Simulated pods are Ready at once: this is what the control plane costs,
not what serving does. Writes are those of the operator without leases; an edit (of `tts.gpu.memory`, or of
the rollout budget, which reaches every pool and its disruption budget) is timed from the request until a
watch shows the deployment Ready for it. The script is Python too: the same final objects and statuses, 16
deployments at a time; edits that take as many writes a second as it reaches queue for the API server. Raw
figures, with the CPU seconds of every program: [operator.json](benchmarks/operator.json); where the
operator's own time goes: [operator-profile.txt](benchmarks/operator-profile.txt).

{chr(10).join(rows)}
"""
    text += _why(runs)
    if not troubles:
        return text
    return f"""{text}
Simulated pods that do not do well: a deployment is where it should be when it is Ready, or, of a bad
revision, when it is back at the good one and says `RevisionQuarantined`. Gateways are played by a server that
speaks their `/status` and figures.

{chr(10).join(worse)}
"""
