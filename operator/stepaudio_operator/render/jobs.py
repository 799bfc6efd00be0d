"""A Job of ours: one pod at a time, tried again until it ends well or says that a person has to act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_operator import names

# A pod that ends with 75 is followed by another, with the Job's own back-off of at most 6 min.
_TRIES = 1000
_TMP = "tmp"


def job(
    head: Mapping[str, Any],
    labels: Mapping[str, str],
    container: Mapping[str, Any],
    volumes: Sequence[Mapping[str, Any]],
    *,
    pod: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The Job with the metadata `head`. `labels`, `annotations` are its pods', `pod` adds to their spec."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": head,
        "spec": {
            "backoffLimit": _TRIES,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.CONTAINER,
                            "operator": "In",
                            "values": [names.EXIT_CONFIGURATION],
                        },
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
                "spec": {
                    "restartPolicy": "Never",
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": names.USER_ID,
                        "runAsGroup": names.USER_ID,
                        # A fresh volume belongs to root.
                        "fsGroup": names.USER_ID,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [{"name": _TMP, "emptyDir": {}}, *volumes],
                    **pod,
                },
            },
        },
    }


def container(
    reference: str,
    pull_policy: str,
    command: Sequence[str],
    env: Sequence[Mapping[str, Any]],
    *,
    resources: Mapping[str, Any],
    mounts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The main container, which serves `/status` while it works and leaves last words."""
    return {
        "name": names.CONTAINER,
        "image": reference,
        "imagePullPolicy": pull_policy,
        "command": [*command, "--port", str(names.POOL_PORT)],
        "env": [{"name": names.ENV_HOME, "value": names.TMP_MOUNT}, *env],
        "ports": [{"name": names.PORT_NAME, "containerPort": names.POOL_PORT, "protocol": "TCP"}],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": _TMP, "mountPath": names.TMP_MOUNT}, *mounts],
    }


def labels(kind: str, name: str) -> dict[str, str]:
    """Of everything that belongs to the Job `name`; `kind` is the label that says what sort of Job it is."""
    return {names.LABEL_NAME: names.APP_NAME, names.LABEL_MANAGED_BY: names.MANAGED_BY, kind: name}
