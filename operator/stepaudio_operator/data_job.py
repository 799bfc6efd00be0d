"""A data job: what is to be done about its volume and its Job, and what its status says. Pure.

1. A Job makes the data in a folder, and the engine in it goes on where an earlier one stopped: so a Job can
   be made again at any time, but two never work at once. A changed spec ends the Job; the next one is made
   when its pods are gone.
2. Data that are whole are not made again, also when their Job is gone, as long as the spec stays and the
   volume that they were written to. On one that was made after they were whole they are made anew.
3. A Job that failed for good is tried again later, as `jobs` says; a changed spec tries at once.
4. The image stays what it was where the spec leaves it open: another version of the operator changes nothing
   of a run, which other versions of the engine's packages might not be able to finish.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from stepaudio_operator.conditions import Verdict, conditions, invalid
from stepaudio_operator.errors import SpecError
from stepaudio_operator.jobs import failure, last_ended, left_to_retry_s, obstacle, percent_step
from stepaudio_operator.records import ClaimRecord, DataObserved, JobRecord, size
from stepaudio_operator.spec.data import DataJobSpec
from stepaudio_operator.times import moment

PENDING, RUNNING, COMPLETE, FAILED = "Pending", "Running", "Complete", "Failed"
PHASES = (PENDING, RUNNING, COMPLETE, FAILED)
MAKING = "MakingData"
FIGURES = ("samples", "refused", "seconds")
"""What the last words of a run that is whole say."""


class DataStep(StrEnum):
    """What to do about the Job."""

    CREATE_JOB = "create the Job that makes the data"
    DELETE_JOB = "delete the Job, so that another goes on"


@dataclass(frozen=True)
class Asked:
    """What the spec comes to."""

    name: str
    spec: DataJobSpec
    inputs: str  # digest of what its Job is made from
    claim_name: str


@dataclass(frozen=True)
class DataPlan:
    """What a data job comes to. Its claim is applied in any case."""

    figures: dict[str, Any]
    """Its status without generation and conditions."""
    verdict: Verdict
    step: DataStep | None = None
    look_after_s: float | None = None
    """When to look again without being woken (s)."""


def plan_data(asked: Asked, seen: DataObserved, before: Mapping[str, Any], now: datetime) -> DataPlan:
    """What to do about a data job whose status was `before`, of which `seen` exists."""
    claim, job = seen.claim, seen.job
    same = before.get("inputs") == asked.inputs
    figures = {"phase": PENDING, "claimName": asked.claim_name, "inputs": asked.inputs}
    if image := (job.image if job is not None else before.get("image")):
        figures["image"] = image
    if claim is not None and claim.phase == "Lost":
        message = f"volume {claim.name} has lost its disk; delete the claim to begin anew"
        return DataPlan({**figures, "phase": FAILED}, Verdict("VolumeLost", message, stalled=True))
    if job is not None and job.deleting:
        return DataPlan(figures, Verdict(MAKING, f"job {job.name} is being deleted"))
    if job is not None and job.inputs != asked.inputs:
        return DataPlan(
            figures, Verdict(MAKING, "the spec has changed: its job is made anew"), DataStep.DELETE_JOB
        )
    if (job is not None and job.complete) or (job is None and same and before.get("phase") == COMPLETE):
        if asked.spec.output.volume is None or _is_theirs(claim, job, before):
            return _complete(figures, seen, before if same else {})
        if claim is None or claim.deleting:
            return DataPlan(figures, Verdict(MAKING, f"volume {asked.claim_name} is being made"))
        if job is not None:
            message = f"volume {claim.name} is another than the data were written to: they are made anew"
            return DataPlan(figures, Verdict(MAKING, message), DataStep.DELETE_JOB)
    if job is None:
        return _not_begun(asked, figures, seen)
    figures |= _progress(seen, before if same else {})
    if job.failed:
        left = left_to_retry_s(job, now)
        why = failure(job, seen.pods, "DataFailed", "the data could not be made")
        return DataPlan(
            {**figures, "phase": FAILED}, why, None if left else DataStep.DELETE_JOB, look_after_s=left
        )
    waits = obstacle(seen.pods, MAKING, "the pod that makes the data") or _out_of_memory(seen)
    going_on = Verdict(MAKING, "the data are being made; status.percent says how far")
    return DataPlan({**figures, "phase": PENDING if waits else RUNNING}, waits or going_on)


def data_status(raw: Mapping[str, Any], found: DataPlan | SpecError, now: datetime) -> dict[str, Any]:
    """The whole status of `raw`, a StepAudioDataJob; the figures stay where the spec does not parse."""
    before, generation = raw.get("status") or {}, raw["metadata"].get("generation", 0)
    if isinstance(found, SpecError):
        kept = {key: value for key, value in before.items() if key != "conditions"}
        figures, verdict = {**kept, "phase": FAILED}, invalid(found)
    else:
        figures, verdict = found.figures, found.verdict
    return {
        **figures,
        "observedGeneration": generation,
        "conditions": conditions(before, generation, verdict, now),
    }


def _out_of_memory(seen: DataObserved) -> Verdict | None:
    """A pod that is killed for its memory leaves no words, and the next one may fare alike."""
    ended = last_ended(seen.pods)
    if ended is None or ended.exit_reason != "OOMKilled" or any(pod.running_since for pod in seen.pods):
        return None
    cure = "raise podTemplate.resources.limits.memory or lower workers; another pod goes on"
    return Verdict("OutOfMemory", f"the pod that makes the data needed more memory than its limit: {cure}")


def _not_begun(asked: Asked, figures: dict[str, Any], seen: DataObserved) -> DataPlan:
    if any(not pod.failed for pod in seen.pods):
        return DataPlan(figures, Verdict(MAKING, "the pod of an earlier job is ending"))
    if asked.spec.output.volume is not None and (seen.claim is None or seen.claim.deleting):
        return DataPlan(figures, Verdict(MAKING, f"volume {asked.claim_name} is being made"))
    return DataPlan(figures, Verdict(MAKING, "the job is being made"), DataStep.CREATE_JOB)


def _is_theirs(claim: ClaimRecord | None, job: JobRecord | None, before: Mapping[str, Any]) -> bool:
    """Whether data that are whole are on the volume that `claim` names: it is older than they are."""
    if claim is None or claim.deleting:
        return False
    ready: Mapping[str, Any] = next((c for c in before.get("conditions") or () if c["type"] == "Ready"), {})
    whole = job.ended_at if job is not None else moment(ready.get("lastTransitionTime"))
    return whole is None or claim.created is None or claim.created <= whole


def _complete(figures: dict[str, Any], seen: DataObserved, before: Mapping[str, Any]) -> DataPlan:
    said = {name: before[name] for name in (*FIGURES, "samplesTotal") if name in before}
    ended = last_ended(seen.pods)
    if ended is not None and ended.exit_code == 0:
        said |= _last_figures(ended.exit_message)
    message = f"the data are whole, on volume {figures['claimName']}"
    return DataPlan(
        {**figures, **said, "phase": COMPLETE, "percent": 100}, Verdict("DataMade", message, ready=True)
    )


def _last_figures(words: str) -> dict[str, int]:
    try:
        said = json.loads(words)
    except ValueError:
        return {}
    if not isinstance(said, Mapping):
        return {}
    figures = {name: said[name] for name in FIGURES if size(said.get(name)) is not None}
    if {"samples", "refused"} <= figures.keys():
        figures["samplesTotal"] = figures["samples"] + figures["refused"]
    return figures


def _progress(seen: DataObserved, before: Mapping[str, Any]) -> dict[str, Any]:
    """How far it is, as its pod said last; between two pods, as the one before said."""
    if not seen.samples_total or seen.samples_made is None:
        return {name: before[name] for name in ("percent", "samplesTotal") if name in before}
    percent = percent_step(seen.samples_made, seen.samples_total)
    return {"percent": percent, "samplesTotal": seen.samples_total}
