"""Measured GPU memory stands in a pool's status beside what was estimated, in coarse steps, and a condition
says where the two drift apart.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_operator.gpus.gpu_memory import STEP, drift, measured
from stepaudio_operator.gpus.vram import to_status
from stepaudio_operator.metrics import Metrics
from stepaudio_operator.plan import pool_target
from stepaudio_operator.pool_status import pool_status
from stepaudio_operator.records import GpuMemory, GpuReading, PodReport, PoolObserved, PoolRecord
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.reading import parse_pool
from stepaudio_operator.status import deployment_status
from tests.unit.operator_core.reported import HASH, NOW, pod, pool_raw
from tests.unit.operator_core.test_vram import spec as deployment_spec

CARD = 85_520_809_984  # an H100 of 80 GB, as its driver says
CHAT = {"preset": "step-audio", "models": {"source": {"pvc": {"claimName": "m"}}}}
EXPECTED = "81.2GB"  # 0.95 of the card


def chat(**fields: Any) -> PoolSpec:
    return parse_pool(pool_raw(**CHAT, **fields))


def report(*used: int, card: int = CARD, serves: bool = True) -> PodReport:
    return PodReport(serves, 0, 0, tuple(GpuReading("H100", n, card) for n in used))


def seen(*used: float, before: dict[str, Any] | None = None, **of: Any) -> dict[str, Any]:
    """What one pod comes to that says of its GPUs that they hold `used` GB each."""
    readings = report(*(round(n * 1e9) for n in used), **of)
    return measured(chat(), HASH, [pod()], {"u0": readings}, before or {})


def test_the_fullest_gpu_stands_beside_the_estimate() -> None:
    assert seen(80.9, 81.4, 80.0, 80.1) == {
        "product": "H100",
        "card": "85.5GB",
        "needed": "72.7GB",
        "expected": EXPECTED,
        "measured": "81.4GB",
    }


@pytest.mark.parametrize(
    ("used", "card", "expected"),
    [
        (81.0, CARD, (False, "AsEstimated", "")),
        (72.8, CARD, (False, "AsEstimated", "")),
        (
            72.5,
            CARD,
            (
                True,
                "LessThanEstimated",
                "one GPU holds 72.5GB of 85.5GB, expected are 81.2GB: the estimate is on the high side for"
                " this model",
            ),
        ),
        (
            38.0,
            42_949_672_960,
            (
                True,
                "SmallerGpu",
                "the GPU is smaller than declared: it has 42.9GB, gpu.memory says 80GB; one GPU holds 38.0GB"
                " of 42.9GB, expected are 40.8GB",
            ),
        ),
    ],
)
def test_a_drift_says_by_how_much_and_what_to_do(used: float, card: int, expected: tuple[Any, ...]) -> None:
    assert drift(chat(), seen(used, card=card)) == expected


def test_a_card_that_others_use_too_is_more_than_estimated() -> None:
    raw = {**CHAT, "gpu": {"count": 1, "memory": "24GB"}}
    tts = parse_pool(pool_raw(component="tts", **raw))
    used = PodReport(True, 0, 0, (GpuReading("L4", 24_000_000_000, 24_152_000_000),))
    found = measured(tts, HASH, [pod()], {"u0": used}, {})
    assert found["expected"] == "20.9GB"  # 0.6 of the card, and flow and vocoder beside it
    assert drift(tts, found) == (
        True,
        "MoreThanEstimated",
        "one GPU holds 24.0GB of 24.2GB, expected are 20.9GB: see what else runs on the card, and lower"
        " gpuMemoryUtilization where that stays",
    )


def test_only_pods_that_serve_the_revision_count() -> None:
    full = report(round(81e9))
    before = {"measured": "80.0GB", "card": "85.5GB"}
    old, loading = pod(revision="0000000a"), pod(0, phase="Running")
    assert measured(chat(), HASH, [old], {"u0": full}, before) == {}
    assert measured(chat(), HASH, [loading], {"u0": full}, before) == {}
    assert measured(parse_pool(pool_raw()), HASH, [pod()], {"u0": full}, before) == {}  # nano, on a CPU
    assert seen(50.0, serves=False, before=before) == before
    assert measured(chat(), HASH, [pod()], {}, before) == before


def test_a_model_that_is_not_known_is_measured_and_not_judged() -> None:
    nano = parse_pool(pool_raw(gpu={"count": 1, "memory": "24GB"}))
    found = measured(nano, HASH, [pod()], {"u0": report(round(2e9))}, {})
    assert found == {"product": "H100", "card": "85.5GB", "measured": "2.0GB"}
    assert drift(nano, found) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(70_000, 85_000), min_size=2, max_size=40))
def test_what_stands_there_is_never_a_step_off_and_changes_by_whole_steps(megabytes: list[int]) -> None:
    stored: dict[str, Any] = {}
    for used in megabytes:
        before, stored = stored, seen(used / 1000, before=stored)
        shown = float(stored["measured"].removesuffix("GB"))
        assert abs(shown - used / 1000) <= STEP * CARD / 1e9 + 0.05
        if before and stored != before:
            assert abs(shown - float(before["measured"].removesuffix("GB"))) >= STEP * CARD / 1e9 - 0.1


def status(before: dict[str, Any], used: float, now: datetime = NOW) -> dict[str, Any]:
    raw = {**pool_raw(**CHAT), "status": before}
    observed = PoolObserved((pod(),), reports={"u0": report(round(used * 1e9))})
    return pool_status(raw, chat(), pool_target("prod-chat", chat(), HASH), observed, now=now)


def test_the_condition_flips_with_the_drift_and_is_calm_otherwise() -> None:
    fine = status({}, 81.0)
    assert [c["type"] for c in fine["conditions"]] == ["Ready", "Reconciling", "Stalled", "GpuMemoryDrift"]
    assert status(fine, 81.9, NOW + timedelta(hours=1)) == fine
    later = datetime(2026, 1, 3, tzinfo=UTC)
    drifting = status(fine, 60.0, later)
    assert drifting["vram"]["measured"] == "60.0GB"
    assert drifting["conditions"][:3] == fine["conditions"][:3]  # the pool is ready all the same
    assert drifting["conditions"][3] == {
        "type": "GpuMemoryDrift",
        "status": "True",
        "observedGeneration": 4,
        "lastTransitionTime": "2026-01-03T00:00:00Z",
        "reason": "LessThanEstimated",
        "message": "one GPU holds 60.0GB of 85.5GB, expected are 81.2GB: the estimate is on the high side for"
        " this model",
    }


def test_it_reaches_the_deployment_and_the_metrics() -> None:
    raw = {**pool_raw(**CHAT), "status": status({}, 60.0)}
    raw["metadata"]["labels"] = {}
    record = PoolRecord.from_raw(raw)
    assert record.gpu_memory == GpuMemory(EXPECTED, "60.0GB", "LessThanEstimated")
    spec = deployment_spec()
    meta = {"name": "prod", "namespace": "d", "generation": 1}
    entries = deployment_status(
        {"metadata": meta}, spec, {"chat": record}, routing=None, acks={}, now=NOW, vram=to_status(spec)
    )["vram"]
    assert [(e["component"], e.get("measured")) for e in entries] == [
        ("chat", "60.0GB"),
        ("tts", None),
        ("tokenizer", None),
    ]
    metrics = Metrics()
    metrics.follow(lambda: 0, lambda: 0, lambda: True, lambda kind: 0, lambda: [record])
    lines = [
        line
        for line in metrics.text().decode().splitlines()
        if line.startswith("stepaudio_operator_pool_gpu")
    ]
    place = 'component="chat",deployment="prod",namespace="d"'
    assert lines == [
        f'stepaudio_operator_pool_gpu_memory_bytes{{{place},state="expected"}} 8.12e+10',
        f'stepaudio_operator_pool_gpu_memory_bytes{{{place},state="measured"}} 6e+10',
        f'stepaudio_operator_pool_gpu_memory_drift{{{place},reason="LessThanEstimated"}} 1.0',
    ]
    calm = replace(record, gpu_memory=None)
    metrics.follow(lambda: 0, lambda: 0, lambda: True, lambda kind: 0, lambda: [calm])
    assert "pool_gpu_memory_bytes{" not in metrics.text().decode()
