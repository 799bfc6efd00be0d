"""How the pods of a pool come to their GPUs: a resource of a device plugin or a claim, and which nodes."""

from __future__ import annotations

from typing import Any

from stepaudio_operator import names
from stepaudio_operator.spec.gpu import known_gb
from stepaudio_operator.spec.pool import PoolSpec

# Of what a card is sold as; drivers and error correction keep some of it (an A10 of 24 GB reports 23.8).
_REPORTED = 0.98
_MIB = 1 << 20


def resources(spec: PoolSpec) -> dict[str, str]:
    """Requests, and limits, of the container beside processor and memory."""
    gpu = spec.gpu
    if not spec.gpu_count or (gpu is not None and gpu.claim is not None):
        return {}
    return {(gpu.resource if gpu is not None else None) or names.GPU_RESOURCE: str(spec.gpus_of_pod)}


def claim(spec: PoolSpec, template: str) -> dict[str, Any] | None:
    """The pod's claim of devices; `template` is the name of the one that the operator makes."""
    if spec.gpu is None or spec.gpu.claim is None or not spec.gpu_count:
        return None
    return {"name": names.GPU_CLAIM, "resourceClaimTemplateName": spec.gpu.claim.template_name or template}


def claim_template(spec: PoolSpec) -> dict[str, Any] | None:
    """`spec` of the ResourceClaimTemplate to be made; None where there is none, or somebody else's."""
    if spec.gpu is None or spec.gpu.claim is None or spec.gpu.claim.device_class is None:
        return None
    exactly: dict[str, Any] = {
        "deviceClassName": spec.gpu.claim.device_class,
        "allocationMode": "ExactCount",
        "count": spec.gpus_of_pod,
    }
    if spec.gpu.claim.selectors:
        exactly["selectors"] = [{"cel": {"expression": s.cel}} for s in spec.gpu.claim.selectors]
    return {"spec": {"devices": {"requests": [{"name": names.GPU_CLAIM, "exactly": exactly}]}}}


def nodes(spec: PoolSpec) -> list[dict[str, Any]]:
    """What the labels of a node have to say of its GPUs; empty where any will do."""
    gpu, found = spec.gpu, []
    if gpu is None or not spec.gpu_count:
        return []
    if gpu.products:
        found.append({"key": names.LABEL_GPU_PRODUCT, "operator": "In", "values": list(gpu.products)})
    if gpu.require_memory and (size := known_gb(gpu.model_copy(update={"products": None}), None)):
        least = int(size * 10**9 * _REPORTED) // _MIB
        found.append({"key": names.LABEL_GPU_MEMORY, "operator": "Gt", "values": [str(least)]})
    return found
