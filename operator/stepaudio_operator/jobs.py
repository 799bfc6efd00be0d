"""What a Job of ours and its pods say: why it failed, what holds it up, when it is tried again. Pure.

A pod that ends with 75 is followed by another (the Job's own back-off). One that ends with 78 ends the Job: a
person has to act. It is tried again after `RETRY_S` all the same, for what a person corrects (a token, a
quota) is often nothing that can be watched; deleting the Job tries at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from stepaudio_operator.conditions import Verdict, last_words
from stepaudio_operator.records import JobRecord, PodRecord

RETRY_S = 600
"""A Job that failed for good is made again after so long (s)."""
STEP_PERCENT = 5
"""Progress reaches the status in steps of so much: a measurement is not written at every look."""
_STARTING = ("", "ContainerCreating", "PodInitializing")


def failure(job: JobRecord, pods: Iterable[PodRecord], reason: str, message: str) -> Verdict:
    """Why a Job failed for good: its last pod's words, else the Job's, else `reason` and `message`."""
    ended = last_ended(pods)
    said, words = (
        last_words(ended.exit_message) if ended and ended.exit_message else (job.reason, job.message)
    )
    cure = f"tried again {RETRY_S // 60} min after it failed, or at once when job {job.name} is deleted"
    return Verdict(said or reason, f"{words or message}; {cure}", stalled=True)


def left_to_retry_s(job: JobRecord, now: datetime) -> float:
    """Seconds until a failed Job is tried again."""
    again_at = (job.failed_at or now) + timedelta(seconds=RETRY_S)
    return max(0.0, (again_at - now).total_seconds())


def obstacle(pods: Iterable[PodRecord], reason: str, what: str) -> Verdict | None:
    """What holds up the Job whose pod is called `what`; None where it runs or will at once."""
    pods = tuple(pods)
    running = [pod for pod in pods if not pod.failed and not pod.deleting]
    for pod in running:
        if pod.unschedulable:
            return Verdict(reason, f"{what} waits: {pod.unschedulable}")
        if pod.waiting not in _STARTING:
            return Verdict(pod.waiting, f"{what}: {pod.waiting_message}")
    ended = last_ended(pods)
    if not any(pod.running_since for pod in running) and ended is not None and ended.exit_message:
        return Verdict(*last_words(ended.exit_message))
    return None


def last_ended(pods: Iterable[PodRecord]) -> PodRecord | None:
    """The pod that ended last."""
    ended = [pod for pod in pods if pod.failed and pod.finished is not None]
    return max(ended, key=lambda pod: (pod.finished, pod.name), default=None)


def percent_step(present: int, total: int, step: int = STEP_PERCENT) -> int:
    """Whole steps of `step` per cent that are done; 100 only where everything is there."""
    return min(100 * present // total, 100) // step * step if total else 0
