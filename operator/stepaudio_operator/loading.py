"""How far the pods of a pool are with loading their models: what its status and its message say. Pure.

Progress comes in steps of `STEP_PERCENT` and from the first step on, so that a load makes at most ten writes
however long it takes. What a pod said holds until it says something else: one that does not answer in time
while it loads makes no write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepaudio_operator.jobs import percent_step
from stepaudio_operator.records import PodRecord, PodReport

STEP_PERCENT = 10
SHOWN = 64
"""Pods whose progress stands in the status."""

GB, MB = 10**9, 10**6


def loading(
    pods: Iterable[PodRecord], reports: Mapping[str, PodReport], before: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """`status.loading` of a pool, by pod. `reports` are by the pods' uids, `before` is what stands there."""
    stored = {entry.get("pod"): dict(entry) for entry in before}
    found = []
    for pod in sorted(pods, key=lambda p: p.name):
        if pod.may_serve or not pod.live or pod.running_since is None:
            continue
        report = reports.get(pod.uid)
        entry = stored.get(pod.name) if report is None else _entry(pod, report)
        if entry is not None:
            found.append(entry)
    return found[:SHOWN]


def in_words(entries: Iterable[Mapping[str, Any]], pods: Iterable[PodRecord]) -> str:
    """What a message says of the progress of `pods`; empty where nothing is known."""
    wanted = {pod.name for pod in pods}
    said = [
        f"{entry['pod']} has loaded {entry['percent']}% of {_size(entry['bytesTotal'])}"
        for entry in entries
        if entry["pod"] in wanted
    ]
    return "".join(f"; {line}" for line in said[:4])


def _size(total: int) -> str:
    return f"{total / GB:.1f}GB" if total >= GB else f"{total / MB:.0f}MB"


def _entry(pod: PodRecord, report: PodReport) -> dict[str, Any] | None:
    percent = percent_step(report.bytes_loaded, report.bytes_total, STEP_PERCENT)
    return {"pod": pod.name, "percent": percent, "bytesTotal": report.bytes_total} if percent else None
