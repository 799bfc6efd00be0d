"""What gateways and TTS pods get for created voices: the store's address, its keys, its volume."""

from __future__ import annotations

from typing import Any

from stepaudio_operator import names
from stepaudio_operator.spec.pod import VOLUME_VOICES
from stepaudio_operator.spec.pool import PoolSpec

_REGION = "us-east-1"
_KEYS = (names.ENV_AWS_ACCESS_KEY_ID, names.ENV_AWS_SECRET_ACCESS_KEY)


def environment(spec: PoolSpec) -> list[dict[str, Any]]:
    """The variables of a pod; none where its pool has no store."""
    if spec.voices is None:
        return []
    values: dict[str, str] = {}
    bucket, keys = spec.voices.store.s3, []
    if bucket is None:
        values[names.ENV_VOICES_URL] = f"file://{names.VOICES_MOUNT}"
    else:
        values[names.ENV_VOICES_URL] = f"s3://{bucket.bucket}" + (
            f"/{bucket.prefix}" if bucket.prefix else ""
        )
        values[names.ENV_AWS_REGION] = bucket.region or _REGION
        if bucket.endpoint is not None:
            values[names.ENV_AWS_ENDPOINT_URL] = bucket.endpoint.rstrip("/")
        if bucket.secret_ref is not None:
            secret = bucket.secret_ref.name
            keys = [
                {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for key in _KEYS
            ]
    if spec.component == names.GATEWAY:
        values[names.ENV_VOICES_CONFIGMAP] = names.voices(spec.deployment)
    if spec.component == names.GATEWAY and not spec.voices.watermark:
        values[names.ENV_WATERMARK] = "off"
    return [{"name": name, "value": value} for name, value in values.items()] + keys


def security(spec: PoolSpec) -> dict[str, Any]:
    """What the pod's security context needs so that its user may write the volume."""
    if spec.voices is None or spec.voices.store.pvc is None:
        return {}
    return {"fsGroup": names.USER_ID, "fsGroupChangePolicy": "OnRootMismatch"}


def volumes(spec: PoolSpec) -> list[dict[str, Any]]:
    """The volume of the store, where it is one."""
    if spec.voices is None or (pvc := spec.voices.store.pvc) is None:
        return []
    return [{"name": VOLUME_VOICES, "persistentVolumeClaim": {"claimName": pvc.claim_name}}]


def mounts(spec: PoolSpec) -> list[dict[str, Any]]:
    """Where the container has it."""
    if spec.voices is None or (pvc := spec.voices.store.pvc) is None:
        return []
    mount = {"name": VOLUME_VOICES, "mountPath": names.VOICES_MOUNT}
    return [mount | ({"subPath": pvc.sub_path} if pvc.sub_path else {})]
