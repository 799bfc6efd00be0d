"""Measured against estimated GPU memory of a pool: what its status says, and whether they drift apart. Pure.

What a GPU should hold once its pod serves is vLLM's whole share of the card, for its cache fills what the
weights leave, and what `vram` estimates beside it. Where the fullest GPU of the pods that serve holds
`TOLERANCE` of the card more or less than that, something is not as it was thought: another process on the
card, an estimate that is wrong, a card of another size. Nothing is done about it but to say it.

A reading replaces the stored one only where it is `STEP` of the card away from it, so that a calm pool makes
no write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stepaudio_operator.gpus.vram import GB, Estimate, as_gb, estimate, setup_of
from stepaudio_operator.records import GpuReading, PodRecord, PodReport
from stepaudio_operator.spec.pool import PoolSpec

TOLERANCE = 0.1
"""Of the card: more than an engine's graphs and an allocator's slack."""
STEP = 0.025
"""Of the card."""
SOLD_AS = 0.95
"""A card has at least this of what its name says, decimal."""


def measured(
    spec: PoolSpec,
    revision: str,
    pods: Iterable[PodRecord],
    reports: Mapping[str, PodReport],
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """`status.vram` of a pool: one GPU, the fullest of those pods of `revision` that serve.

    Empty where no GPU is used or no pod serves. `before` is what stands there: it stays where the pods have
    not said anything yet.
    """
    serving = [p for p in pods if p.ready and p.live and p.revision == revision]
    if not spec.gpu_count or not serving:
        return {}
    said = [reports[p.uid] for p in serving if p.uid in reports and reports[p.uid].serves]
    fullest = max((gpu for report in said for gpu in report.gpus), key=lambda gpu: gpu.used, default=None)
    if fullest is None:
        return dict(before)
    return {
        "product": fullest.product,
        "card": as_gb(fullest.total),
        **_estimated(spec, fullest),
        "measured": as_gb(_calm(fullest, before)),
    }


def drift(spec: PoolSpec, seen: Mapping[str, Any]) -> tuple[bool, str, str] | None:
    """Whether measured and estimated memory of `measured`'s answer drift apart, with a reason and a message
    for the condition; None where they cannot be compared.
    """
    if "measured" not in seen or "expected" not in seen:
        return None
    card, expected, used = (_bytes(seen[key]) for key in ("card", "expected", "measured"))
    said = f"one GPU holds {seen['measured']} of {seen['card']}, expected are {seen['expected']}"
    if spec.gpu_gb is not None and card < SOLD_AS * spec.gpu_gb * GB:
        declared = f"it has {seen['card']}, gpu.memory says {spec.gpu_gb}GB"
        message = f"the GPU is smaller than declared: {declared}; {said}"
        return True, "SmallerGpu", message
    if used > expected + TOLERANCE * card:
        cure = "see what else runs on the card, and lower gpuMemoryUtilization where that stays"
        return True, "MoreThanEstimated", f"{said}: {cure}"
    if used < expected - TOLERANCE * card:
        return True, "LessThanEstimated", f"{said}: the estimate is on the high side for this model"
    return False, "AsEstimated", ""


def _estimated(spec: PoolSpec, gpu: GpuReading) -> dict[str, Any]:
    """What it takes to start, and what the card should hold; nothing where the model is not known."""
    setup = setup_of(spec.preset, spec.component, spec, with_tokenizer=bool(spec.with_tokenizer))
    sums = estimate(spec.preset, setup) if setup is not None else None
    if sums is None:
        return {}
    return {"needed": as_gb(sums.least), "expected": as_gb(_expected(sums, gpu.total))}


def _expected(sums: Estimate, card: int) -> int:
    share = int(card * sums.setup.utilization) if sums.kv_token else 0
    return share + sums.beside


def _calm(gpu: GpuReading, before: Mapping[str, Any]) -> int:
    """The reading, or the stored one where that is as good."""
    if "measured" not in before or before.get("card") != as_gb(gpu.total):
        return gpu.used
    stored = _bytes(before["measured"])
    return stored if abs(gpu.used - stored) < STEP * gpu.total else gpu.used


def _bytes(text: str) -> int:
    return round(float(text.removesuffix("GB")) * GB)
