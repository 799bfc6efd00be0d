"""The volume of downloaded models: what is to be done about it, and whether its files are there. Pure.

1. A volume is named after what it holds: the source, its revisions, the components whose folders it has,
   and the kind of storage. So two deployments that want the same share it; another revision is another one.
2. A Job fills it; the volume counts as filled when that Job is complete. The Job goes on where an earlier one
   stopped, so making it again is cheap.
3. A Job that failed for good is tried again later, as `jobs` says.
4. A volume that lost its disk is a person's matter: nothing is deleted.
5. Nobody's volume with `whenUnused: Delete` goes: no deployment wants it and no stored revision names it.
   Of several deployments that share a volume, one that says Keep is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from stepaudio_operator.conditions import DOWNLOADING, Verdict
from stepaudio_operator.jobs import failure, left_to_retry_s, obstacle, percent_step
from stepaudio_operator.quantities import amount
from stepaudio_operator.records import CacheObserved, ClaimRecord, JobRecord

WAITING = frozenset({"SourceRateLimited", "SourceUnavailable"})
"""What the pod that fills a volume says of a source that gives nothing, as long as it waits for it."""

_FIGURES = ("percent", "bytesTotal", "expectedAt")
"""How far a download is; what stands there holds until a pod says something else."""
_GUESSES_S = 366 * 86_400
"""A download that would take longer (s) has no end that is worth saying."""


class CacheStep(StrEnum):
    """What to do about a volume."""

    CREATE_JOB = "create the Job that fills it"
    DELETE_JOB = "delete the Job that failed, so that another tries"


@dataclass(frozen=True)
class CachePlan:
    """What a volume comes to. Its claim is applied in any case."""

    status: dict[str, Any]
    """`status.cache` of the deployment."""
    step: CacheStep | None = None
    verdict: Verdict | None = None
    """Why the models are not there yet; None where they are."""
    look_after_s: float | None = None
    """When to look again without being woken (s)."""
    copies: Mapping[str, CachePlan] = field(default_factory=dict)
    """By node, what the folder there comes to, where the models lie on the nodes' own disks."""
    older: Mapping[tuple[str, str], CachePlan] = field(default_factory=dict)
    """By folder and node, the same for models that pods of a revision before wait for."""

    @property
    def filled(self) -> bool:
        """Whether the models are there."""
        return self.verdict is None


def plan_cache(claim_name: str, seen: CacheObserved, now: datetime) -> CachePlan:
    """What to do about the volume `claim_name`, of which `seen` exists."""
    claim, job = seen.claim, seen.job
    status: dict[str, Any] = {"claimName": claim_name, "phase": "Pending"}
    if claim is not None and claim.phase == "Lost":
        message = f"volume {claim_name} has lost its disk; delete the claim to download anew"
        return CachePlan({**status, "phase": "Failed"}, verdict=Verdict("VolumeLost", message, stalled=True))
    if claim is not None and claim.deleting:
        return CachePlan(status, verdict=Verdict(DOWNLOADING, f"volume {claim_name} is being deleted"))
    if job is None or claim is None:
        step = CacheStep.CREATE_JOB if claim is not None else None
        return CachePlan(status, step, Verdict(DOWNLOADING, f"volume {claim_name} is being made"))
    told = seen.told if seen.told.get("claimName") == claim_name else {}
    return plan_job(
        status,
        job,
        replace(seen, told=told),
        now,
        pod=f"the pod that fills volume {claim_name}",
        going_on=lambda status: f"volume {claim_name} is being filled; status.cache says how far",
    )


def plan_job(
    status: dict[str, Any],
    job: JobRecord,
    seen: CacheObserved,
    now: datetime,
    *,
    pod: str,
    going_on: Callable[[Mapping[str, Any]], str],
) -> CachePlan:
    """What the Job that fills something comes to; its pod is called `pod`, and `going_on` says of a status
    that it works. `seen.told` is what `status` was the last time.
    """
    if job.deleting:
        return CachePlan(status, verdict=Verdict(DOWNLOADING, f"job {job.name} is made anew"))
    if job.complete:
        return CachePlan({**status, "phase": "Ready"})
    if job.failed:
        return _failed(status, job, seen, now)
    status = {**status, "phase": "Downloading", **_progress(seen, now)}
    return CachePlan(status, verdict=_under_way(seen, pod, going_on(status)))


def unused(claims: Iterable[ClaimRecord], *needed: Iterable[str]) -> list[ClaimRecord]:
    """Volumes that may go: none of `needed` names them. These are read in turn, while there is a question."""
    left = [claim for claim in claims if claim.when_unused == "Delete" and not claim.deleting]
    for names in needed:
        if not left:
            break
        kept = set(names)
        left = [claim for claim in left if claim.name not in kept]
    return left


def mounted(templates: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The claims that pod templates name."""
    for template in templates:
        for volume in template["spec"].get("volumes") or ():
            if "persistentVolumeClaim" in volume:
                yield volume["persistentVolumeClaim"]["claimName"]


def _failed(status: dict[str, Any], job: JobRecord, seen: CacheObserved, now: datetime) -> CachePlan:
    left = left_to_retry_s(job, now)
    return CachePlan(
        {**status, "phase": "Failed"},
        None if left else CacheStep.DELETE_JOB,
        failure(job, seen.pods, "DownloadFailed", "the download failed"),
        left,
    )


def _under_way(seen: CacheObserved, pod: str, going_on: str) -> Verdict:
    if any(p.live for p in seen.pods) and seen.said is not None and seen.said[0] in WAITING:
        return Verdict(*seen.said)
    if (found := obstacle(seen.pods, DOWNLOADING, pod)) is not None:
        return found
    # While nobody has answered, what was said last still holds: to this operator too, if it has just begun.
    if seen.said is None and seen.told_why is not None and seen.told_why[0] in WAITING:
        return Verdict(*seen.told_why)
    return Verdict(DOWNLOADING, going_on)


def _progress(seen: CacheObserved, now: datetime) -> dict[str, Any]:
    if not seen.bytes_total or seen.bytes_present is None:
        return {name: seen.told[name] for name in _FIGURES if name in seen.told}
    percent = percent_step(seen.bytes_present, seen.bytes_total)
    found: dict[str, Any] = {"percent": percent, "bytesTotal": seen.bytes_total}
    if seen.told.get("percent") == percent and seen.told.get("bytesTotal") == seen.bytes_total:
        expected = seen.told.get("expectedAt")  # another guess comes with the next step
    else:
        eta_s = seen.eta_s if seen.eta_s is not None and seen.eta_s < _GUESSES_S else None
        expected = _minute(now + timedelta(seconds=eta_s)) if eta_s is not None else None
    return found | ({"expectedAt": expected} if expected else {})


def _minute(time: datetime) -> str:
    """To the next whole minute: a guess is no more exact than that."""
    return (time.astimezone(UTC) + timedelta(seconds=59)).strftime("%Y-%m-%dT%H:%M:00Z")


def shared_size(asked: str, claim: ClaimRecord | None) -> str:
    """What a claim asks for: the larger of `asked` and what it has, for no volume shrinks."""
    has, wanted = amount(claim.size) if claim is not None else None, amount(asked)
    if claim is None or has is None or wanted is None or has <= wanted:
        return asked
    return claim.size


def shared_policy(asked: str, stands: str, others: bool) -> str:
    """`whenUnused` of models that this deployment, with `asked`, may share with `others`. `stands`: what is
    said there, "" where nothing is yet.
    """
    return "Keep" if others and stands == "Keep" else asked
