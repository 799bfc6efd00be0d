"""Whose an object is that has the name of one of ours. Pure.

1. What its owner reference gives to the right owner is ours, and so is what we once applied and that has lost
   its reference: applying it again puts that back.
2. What belongs to an earlier owner of the same name is on its way out and is waited for (`StillGoing`).
3. Anything else is somebody's, and nothing of it is touched (`Rejected`, reason `NameTaken`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepaudio_operator.errors import ClusterError, Rejected, StillGoing
from stepaudio_operator.kube.cache import Held
from stepaudio_operator.kube.ownership import digest

Raw = Mapping[str, Any]
_NEVER_APPLIED = digest(None)


def check_owner(held: Held, owner: Raw | None) -> None:
    """Raises where `held` is no child of `owner`; None is for a volume, which outlives who asked for it."""
    if owner is None:
        if held.models or held.data_job:
            return
        raise _taken(held)
    if held.owner_uid == owner["metadata"]["uid"]:
        return
    if held.owner_uid:
        raise _of_another(held, owner["kind"])
    if not held.deployment or held.ours == _NEVER_APPLIED:
        raise _taken(held)
    # Else it was ours and its owner reference was taken away: applying it puts that back.


def check_same(held: Held, live: Raw, desired: Raw) -> None:
    """Raises where `live`, which has the name of `desired`, is something else, or has lost its labels."""
    owner: Raw = next(
        (o for o in desired["metadata"].get("ownerReferences") or () if o.get("controller")), {}
    )
    if owner and held.owner_uid not in ("", owner["uid"]):
        raise _of_another(held, owner["kind"])
    labels = live["metadata"].get("labels") or {}
    lost = [key for key, value in desired["metadata"]["labels"].items() if labels.get(key) != value]
    if not lost:
        return
    if owner and held.owner_uid != owner["uid"]:
        raise _taken(held)
    raise Rejected(
        f"{held.kind} {held.namespace}/{held.name} has lost labels of the operator ({', '.join(lost)}): give"
        " them back, or delete it",
        status=409,
        reason="LabelsLost",
    )


def _of_another(held: Held, kind: str) -> ClusterError:
    if held.deployment or held.data_job:
        return StillGoing(
            f"{held.kind} {held.name} of an earlier {kind} of this name is still there: it is waited for;"
            " where it stays, see its finalizers"
        )
    return _taken(held)


def _taken(held: Held) -> Rejected:
    return Rejected(
        f"{held.kind} {held.namespace}/{held.name} exists and belongs to somebody else; "
        "delete it or choose another name",
        status=409,
        reason="NameTaken",
    )
